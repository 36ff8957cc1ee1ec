"""`MapHandle`: the jobs of one `--map` or `sweep`, one per element, with results in the order of the elements.

A failed element does not affect the others: the results hold a RemoteError in its place.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.results import RemoteError, Returned
from tuttilab.magics.shared.box import HEAD_CLASS, map_box
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Shown, bar, count, html_bar, show_duration
from tuttilab.magics.shared.job_text import end_sentence, short_id, waiting
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.terminal import clean
from tuttilab.scheduler.domain.wire import JobView
from tuttilab.scheduler.domain.words import STARTING, word

_PAGE: Final = 500

_MOST_SINGLE_REQUESTS: Final = 20
_THREADS: Final = 8
_POLL_S: Final = 0.5
_MOST_ERRORS_SHOWN: Final = 3
_MOST_NAMED: Final = 20
"""Elements named in the one line that says which failed."""


class ElementsFailed(Exception):
    """Some jobs of a `--map` did not succeed: it stops a run of all cells. The values of the others are in the handle's results."""

    def _render_traceback_(self) -> list[str]:
        return [clean(str(self))]


class MapHandle(Sequence[JobHandle]):
    """The handles by element: ``len()``, indexing and iteration work as with a list."""

    def __init__(self, jobs: Sequence[JobHandle]) -> None:
        self._jobs = list(jobs)

    def __getitem__(self, index: Any) -> Any:  # Any: an integer gives a handle, a slice a list of them
        return self._jobs[index]

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[JobHandle]:
        return iter(self._jobs)

    @property
    def ids(self) -> list[str]:
        return [job.id for job in self._jobs]

    def refresh(self) -> bool:
        """Fetches the jobs that had not ended when last fetched. Returns whether all have ended."""
        open_jobs = {job.id: job for job in self._jobs if not job.seen.is_ended}
        if 0 < len(open_jobs) <= _MOST_SINGLE_REQUESTS:
            for job in open_jobs.values():
                job.view()
        elif open_jobs:
            for view in self._list_jobs():
                if view.id in open_jobs:
                    open_jobs[view.id].seen = view
        return all(job.seen.is_ended for job in self._jobs)

    def _list_jobs(self) -> Iterator[JobView]:
        """All jobs of the sweep in a few requests, found by the stem that only their names share."""
        cursor: str | None = None
        while True:
            page = client().jobs(all=True, text=_stem(self._jobs[0].name), limit=_PAGE, cursor=cursor)
            yield from page.jobs
            cursor = page.next
            if cursor is None:
                return

    @property
    def status(self) -> dict[str, int]:
        """How many elements are in which phase."""
        self.refresh()
        return dict(Counter(job.seen.phase for job in self._jobs))

    def wait(self, timeout: float | None = None) -> MapHandle:
        """Return when every element has ended. Raises TimeoutError after ``timeout`` seconds."""
        until = time.monotonic() + (float("inf") if timeout is None else timeout)
        while not self.refresh():
            if time.monotonic() >= until:
                left = sum(not job.seen.is_ended for job in self._jobs)
                raise TimeoutError(f"{left} of {count(len(self), 'element')} have not ended within {timeout:g} s; they go on.")
            time.sleep(_POLL_S)
        return self

    def result(self, timeout: float | None = None) -> list[Any]:
        """The values in the order of the elements, with a RemoteError in the place of a failed one."""
        self.wait(timeout)
        return [(each.problem or each.value) if isinstance(each, Returned) else each for each in self.ended_results()]

    def ended_results(self) -> list[Returned | RemoteError]:
        """What came back from each element, all of which have ended, or its error."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="tuttilab-results") as pool:
            return list(pool.map(_returned_or_error, self._jobs))

    def failed(self) -> list[int]:
        """The indexes of the elements that ended without success, as last fetched."""
        return [index for index, job in enumerate(self._jobs) if job.seen.is_ended and job.seen.phase != "Succeeded"]

    def failed_sentence(self) -> str:
        """Which elements did not succeed, and why the first one; empty when all did."""
        failed = self.failed()
        if not failed:
            return ""
        first = end_sentence(self._jobs[failed[0]].seen)
        return f"{len(failed)} of {count(len(self), 'element')} failed: {_named(failed)}. The first: {first}"

    def cancel(self) -> None:
        """Cancel all jobs that have not ended."""
        self.refresh()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="tuttilab-cancel") as pool:
            list(pool.map(JobHandle.cancel, [job for job in self._jobs if not job.seen.is_ended]))

    def retry(self) -> MapHandle:
        """Retry the elements that did not succeed; the others keep their values."""
        self.wait()
        return MapHandle([job if job.seen.phase == "Succeeded" else job.retry() for job in self._jobs])

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return asyncio.to_thread(self.result).__await__()

    def shown(self, now: float, note: str = "") -> Shown:
        """A progress bar over all elements, their phases, the rate, and the first errors."""
        views = [job.seen for job in self._jobs]
        ended = [view for view in views if view.is_ended]
        phases = Counter(word(view.phase) for view in views)
        text = ", ".join(f"{number} {phase}" for phase, number in sorted(phases.items()))
        since = min((view.created_at for view in views), default=now)
        until = max((view.ended_at or now for view in ended), default=now) if len(ended) == len(views) else now
        rate = len(ended) / (until - since) if until > since and ended else 0.0
        facts = f"{len(ended)} of {count(len(views), 'element')} done in {show_duration(until - since)}"
        if rate:
            facts += f" ({rate:.1f} a second)"
        failed = self.failed()
        below = [f"[{i}] {end_sentence(views[i])}" for i in failed[:_MOST_ERRORS_SHOWN]]
        lines = [*([note] if note else []), *below]
        if failed:
            lines.append(f"{count(len(failed), 'element')} failed: {_named(failed)}")
        reason = next((waiting(view.wait, now) for view in views if view.wait is not None and not view.is_ended), "")
        if reason and not phases.keys() & {"Running", STARTING}:
            lines.insert(0, f"first in line: {reason}")
        plain = "\n".join([f"{bar(len(ended), len(views))} {facts}: {text}", *lines])
        marked = f'<div class="{HEAD_CLASS}">{html_bar(len(ended), len(views))} {html.escape(f"{facts}: {text}")}</div>'
        below_bar = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        key = f"{len(ended) * 10 // len(views)}{note}"
        return Shown(plain, marked + below_bar, change_key=key, box=map_box(views, _stem(views[0].name), now))

    def __repr__(self) -> str:
        phases = Counter(word(job.seen.phase) for job in self._jobs)
        return f"<{count(len(self), 'job')}: {', '.join(f'{number} {phase}' for phase, number in sorted(phases.items()))}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        note = ""
        try:
            self.refresh()
        except TuttiError as error:
            note = str(error)
        return self.shown(time.time(), note)._repr_mimebundle_()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a MapHandle stays in its notebook, send its values instead: xs = handle.result()")


class ManyJobs:
    """A sweep as `watch.follow` sees it."""

    def __init__(self, handle: MapHandle) -> None:
        self.handle = handle

    def poll(self) -> bool:
        return self.handle.refresh()

    def shown(self, note: str) -> Shown:
        return self.handle.shown(time.time(), note)

    def cancel(self) -> None:
        self.handle.cancel()

    @property
    def words(self) -> str:
        return count(len(self.handle), "job")

    @property
    def way_back(self) -> str:
        return f"`%attach {short_id(self.handle[0].id)}` shows them, `.cancel()` of the handle ends them"


def _named(indexes: Sequence[int]) -> str:
    more = f" and {len(indexes) - _MOST_NAMED} more" if len(indexes) > _MOST_NAMED else ""
    return ", ".join(f"[{index}]" for index in indexes[:_MOST_NAMED]) + more


def _stem(name: str) -> str:
    return name.rpartition("[")[0] or name


def _returned_or_error(job: JobHandle) -> Returned | RemoteError:
    try:
        return job.ended_result()
    except RemoteError as error:
        return error
