"""Collects jobs in the notebook: waits, binds the results, and records that they were collected.

The record is in IPython's store of the user's profile, so that a new kernel knows which jobs have not been collected yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.jobs.displays import Replay, replay, show_value_as_there
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import ElementsFailed, ManyJobs, MapHandle
from tuttilab.magics.jobs.notebooks import has_executed, keep_executed
from tuttilab.magics.jobs.results import RemoteError, Returned, displays_of, failure_of
from tuttilab.magics.jobs.watch import OneJob, follow
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Area, show, show_bytes
from tuttilab.magics.shared.job_text import newest
from tuttilab.magics.shared.labels import CELL, DISPLAY, ELEMENT, NOTEBOOK, SWEEP, VARIABLE
from tuttilab.scheduler.domain.wire import JobView

_STORE_KEY: Final = "tuttilab/collected"
_RETENTION_S: Final = 7 * 24 * 3600.0
_PAGE: Final = 500
LAST_MAP: Final = "last_map"
"""The variable of a `--map` that named none and of which an element failed: the values of the others are in it."""


def wait_and_collect(shell: InteractiveShell, jobs: JobHandle | MapHandle, area: Area, on_interrupt: str = "detach") -> Any:
    """Live progress, then what the cell displayed, then its value; the names that came back are bound in the notebook.

    A cell that ends with an assignment has no value to show, as anywhere in a notebook: below its status stands what came back.
    Raises RemoteError and `watch.Stopped`.
    """
    if isinstance(jobs, MapHandle):
        follow(ManyJobs(jobs), area, on_interrupt)
        return _collect_map(shell, jobs, area)
    watched = OneJob(jobs)
    follow(watched, area, on_interrupt)
    if has_executed(jobs):
        return collect_notebook(shell, jobs)
    records = displays_of(client(), jobs.seen, 0)
    attempt = newest(jobs.seen)
    # A second attempt displays anew, beside what the first one did.
    shown = watched.displayed if attempt is None or attempt.number == 1 else Replay()
    shown.show(records)
    shown.finish()
    try:
        returned = jobs.ended_result()
    except RemoteError:
        kept = jobs.kept()
        shell.user_ns.update(kept.names)
        area.add([*_came_back(kept), *([] if kept.names else _stays(shell, jobs))])
        raise
    finally:
        mark_collected(shell, [jobs.id])
    shell.user_ns.update(returned.names)
    area.add([*_came_back(returned), *returned.notes, *_elsewhere(jobs)])
    if returned.problem is not None:
        raise returned.problem
    if returned.is_assigned:
        return None
    show_value_as_there(records, returned.value)
    return returned.value


def _collect_map(shell: InteractiveShell, jobs: MapHandle, area: Area) -> Any:
    """Each name that came back is a list in the order of the elements, with the error in the place of a failed one."""
    every = jobs.ended_results()
    for job in [job for job in jobs if _shows(job)][:_MOST_SHOWING]:
        replay(displays_of(client(), job.seen, 0))
    mark_collected(shell, jobs.ids)
    good = [each for each in every if isinstance(each, Returned)]
    for name in dict.fromkeys(name for each in good for name in each.names):
        shell.user_ns[name] = [each.names.get(name) if isinstance(each, Returned) else each for each in every]
    back = next((each for each in good if each.names), None)
    notes = dict.fromkeys(note for each in good for note in each.notes if back is None or not note.startswith(NOTHING))
    area.add([*(_came_back(back, len(every)) if back else []), *notes])
    if jobs.failed():
        first = next(each for each in every if isinstance(each, RemoteError))
        raised = f"It raised {first.type_name}: {first.message[:200]}. " if first.type_name else ""
        raise ElementsFailed(f"{jobs.failed_sentence()} {raised}{_way_to_results(shell, jobs)}")
    problem = next((each.problem for each in good if each.problem is not None), None)
    if problem is not None:
        raise problem
    if good and (all(each.is_assigned for each in good) or (back is not None and all(each.value is None for each in good))):
        return None
    return [each.value if isinstance(each, Returned) else each for each in every]


def _came_back(returned: Returned, elements: int | None = None) -> list[str]:
    """``back in the notebook: model (Booster, 1.2 MB)``, of a map ``squares (list of 20)``."""
    if not returned.names:
        return []
    if elements is not None:
        told = [f"{name} (list of {elements})" for name in returned.names]
    else:
        told = [
            f"{name} ({type(each).__name__}, {show_bytes(returned.sizes.get(name, 0))})" for name, each in returned.names.items()
        ]
    return [f"back in the notebook: {', '.join(told)}"]


def _shows(job: JobHandle) -> bool:
    attempt = newest(job.seen)
    return attempt is not None and any(DISPLAY in pod.outputs for pod in attempt.pods)


def _elsewhere(job: JobHandle) -> list[str]:
    """Of a gang the outputs of rank 0 are shown; the others are named."""
    attempt = newest(job.seen)
    ranks = [pod.rank for pod in attempt.pods if pod.rank > 0 and DISPLAY in pod.outputs] if attempt else []
    if not ranks:
        return []
    listed = ", ".join(map(str, ranks[:8])) + (" …" if len(ranks) > 8 else "")
    return [f"ranks {listed} displayed outputs too: .displays(rank=N) of the handle shows them"]


def remember(shell: InteractiveShell, variable: str, jobs: JobHandle | MapHandle) -> None:
    """Binds the variable to the handle unless it holds a value: that stays until the job brings another. `%job VAR` finds both."""
    _SUBMITTED[variable] = jobs
    if _is_free(shell, variable):
        shell.user_ns[variable] = jobs


def _is_free(shell: InteractiveShell, variable: str) -> bool:
    value = shell.user_ns.get(variable)
    return value is None or isinstance(value, (JobHandle, MapHandle))


def _stays(shell: InteractiveShell, jobs: JobHandle | MapHandle) -> list[str]:
    """A line when the submit's variable still has the value from before."""
    variable = variable_of(jobs)
    if variable is None or _is_free(shell, variable):
        return []
    return [f"{variable} keeps the value it had ({type(shell.user_ns[variable]).__name__}); `%job {variable}` is the job"]


_SUBMITTED: Final[dict[str, JobHandle | MapHandle]] = {}
NOTHING: Final = "The cell brings nothing back"
_MOST_SHOWING: Final = 10
"""Elements of a map whose outputs are shown."""


def _way_to_results(shell: InteractiveShell, jobs: MapHandle) -> str:
    """How to reach the values of the elements that succeeded: by the variable that has the handle."""
    name = next((name for name, value in shell.user_ns.items() if value is jobs and not name.startswith("_")), None)
    if name is None:
        name, shell.user_ns[LAST_MAP] = LAST_MAP, jobs
    return f"{name}.result() has the values of the others, {name}.retry() runs the failed ones again."


def collect_notebook(shell: InteractiveShell, job: JobHandle) -> None:
    """After the end of a notebook's job: its executed copy is kept, and a failed cell is raised as RemoteError."""
    show(keep_executed(job))
    mark_collected(shell, [job.id])
    failure = failure_of(client(), job.seen, 0)
    if failure is not None:
        raise failure


def mark_collected(shell: InteractiveShell, ids: Sequence[str]) -> None:
    """Records that the end of these jobs was shown. A profile that cannot be written only costs a reminder."""
    try:
        known = {job: at for job, at in shell.db.get(_STORE_KEY, {}).items() if time.time() - at < _RETENTION_S}
        shell.db[_STORE_KEY] = known | dict.fromkeys(ids, time.time())
    except Exception:  # whatever IPython's store raises on a full or read-only disk
        shell.log.warning("tuttilab could not remember which jobs were collected", exc_info=True)


def uncollected(shell: InteractiveShell, notebook: str | None) -> list[JobHandle | MapHandle]:
    """Jobs of cells that have not been collected, newest first; only of this notebook when its name is known."""
    known = shell.db.get(_STORE_KEY, {})
    found: dict[str, JobView] = {}
    # The list is newest first, so the first job of a sweep is its newest.
    for view in client().jobs(all=True, limit=_PAGE).jobs:
        is_ours = CELL in view.labels and (notebook is None or view.labels.get(NOTEBOOK) in (notebook, None))
        if is_ours and view.id not in known and time.time() - view.created_at < _RETENTION_S:
            found.setdefault(view.labels.get(SWEEP, view.id), view)
    return [whole_sweep(view) for view in found.values()]


def whole_sweep(view: JobView) -> JobHandle | MapHandle:
    """The job, or the sweep that it is an element of, in the order of the elements."""
    sweep = view.labels.get(SWEEP)
    if sweep is None:
        return JobHandle.of(view)
    found = {_element(view): view}
    cursor: str | None = None
    while True:
        page = client().jobs(all=True, text=f"-{sweep}[", limit=_PAGE, cursor=cursor)
        for other in page.jobs:
            element = _element(other)
            # Of an element that was retried the newest job counts.
            if other.labels.get(SWEEP) == sweep and (element not in found or other.created_at > found[element].created_at):
                found[element] = other
        cursor = page.next
        if cursor is None:
            return MapHandle([JobHandle.of(found[element]) for element in sorted(found)])


def _element(view: JobView) -> int:
    """Its index in the sweep. Any client may write labels, so a job without a valid index comes first."""
    text = view.labels.get(ELEMENT, "")
    return int(text) if text.isdecimal() else -1


def variable_of(jobs: JobHandle | MapHandle) -> str | None:
    """The notebook variable to which the submitting cell bound the handle."""
    job = jobs[0] if isinstance(jobs, MapHandle) else jobs
    name = job.labels.get(VARIABLE)
    return name if name and name.isidentifier() else None


def resolve(shell: InteractiveShell, text: str) -> JobHandle | MapHandle:
    """A handle by the name of its variable, or by a job's id or the beginning of it. Raises NotFound."""
    value = shell.user_ns.get(text)
    if isinstance(value, (JobHandle, MapHandle)):
        return value
    if text in _SUBMITTED:
        return _SUBMITTED[text]
    return JobHandle(text)
