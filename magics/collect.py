"""The end of a submit in the notebook: wait, bind what came back, and remember that it was collected.

What is remembered lies in IPython's own store of the user's profile, so that a new kernel knows which jobs nobody looked at yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.connection import client
from tuttilab.magics.display import Area
from tuttilab.magics.handle import JobHandle
from tuttilab.magics.map_handle import ManyJobs, MapHandle
from tuttilab.magics.results import RemoteError
from tuttilab.magics.submission import ELEMENT, SWEEP
from tuttilab.magics.watch import OneJob, follow
from tuttilab.scheduler.wire import JobView

CELL: Final = "cell"
NOTEBOOK: Final = "notebook"
VARIABLE: Final = "var"
_STORE: Final = "tuttilab/collected"
_KEPT_S: Final = 7 * 24 * 3600.0
_PAGE: Final = 500


def wait_and_collect(shell: InteractiveShell, jobs: JobHandle | MapHandle, area: Area, on_interrupt: str = "detach") -> Any:
    """Live progress, then the value; names of ``--out`` are bound in the notebook. Raises RemoteError and `watch.Stopped`."""
    if isinstance(jobs, MapHandle):
        follow(ManyJobs(jobs), area, on_interrupt)
        values = jobs.result()
        mark_collected(shell, jobs.ids)
        return values
    follow(OneJob(jobs), area, on_interrupt)
    try:
        value, names = jobs.ended_result()
    except RemoteError:
        mark_collected(shell, [jobs.id])
        raise
    mark_collected(shell, [jobs.id])
    shell.user_ns.update(names)
    return value


def mark_collected(shell: InteractiveShell, ids: Sequence[str]) -> None:
    """Their end was shown. A profile that cannot be written to costs a reminder, never a result."""
    try:
        known = {job: at for job, at in shell.db.get(_STORE, {}).items() if time.time() - at < _KEPT_S}
        shell.db[_STORE] = known | dict.fromkeys(ids, time.time())
    except Exception:  # whatever IPython's store raises on a full or read-only disk
        shell.log.warning("tuttilab could not remember which jobs were collected", exc_info=True)


def uncollected(shell: InteractiveShell, notebook: str | None) -> list[JobHandle | MapHandle]:
    """Cells' jobs that nobody has seen the end of, the newest first; of this notebook when its name is known."""
    known = shell.db.get(_STORE, {})
    found: dict[str, JobView] = {}
    # Newest first, so the first of a sweep that is seen is its newest.
    for view in client().jobs(all=True, limit=_PAGE).jobs:
        is_ours = CELL in view.labels and (notebook is None or view.labels.get(NOTEBOOK) in (notebook, None))
        if is_ours and view.id not in known and time.time() - view.created_at < _KEPT_S:
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
            # An element that was run again counts by its newest job.
            if other.labels.get(SWEEP) == sweep and (element not in found or other.created_at > found[element].created_at):
                found[element] = other
        cursor = page.next
        if cursor is None:
            return MapHandle([JobHandle.of(found[element]) for element in sorted(found)])


def _element(view: JobView) -> int:
    """Its place in the sweep; labels are anybody's to write, so one without a sound place comes first."""
    text = view.labels.get(ELEMENT, "")
    return int(text) if text.isdecimal() else -1


def variable_of(jobs: JobHandle | MapHandle) -> str | None:
    """The notebook variable that the submitting cell bound the handle to."""
    job = jobs[0] if isinstance(jobs, MapHandle) else jobs
    name = job.labels.get(VARIABLE)
    return name if name and name.isidentifier() else None


def resolve(shell: InteractiveShell, text: str) -> JobHandle | MapHandle:
    """A handle by the name of its variable, or by a job's id or the beginning of it. Raises NotFound with the way out."""
    value = shell.user_ns.get(text)
    if isinstance(value, (JobHandle, MapHandle)):
        return value
    return JobHandle(text)
