"""`MapHandle`: the jobs of one `--map` or `sweep`, one an element, with results in the order of the elements.

An element that fails loses nothing of the others: its place in the results holds the RemoteError.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

from tuttilab.magics.connection import client
from tuttilab.magics.display import Shown, bar, count, html_bar, show_duration
from tuttilab.magics.handle import JobHandle
from tuttilab.magics.job_text import end_sentence, short_id, waiting
from tuttilab.magics.results import RemoteError
from tuttilab.scheduler.errors import TuttiError
from tuttilab.scheduler.wire import JobView

_PAGE: Final = 500
_FEW: Final = 20
_AT_ONCE: Final = 8
_POLL_S: Final = 0.5
_WORST_SHOWN: Final = 3


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
        """Ask the service for those that have not ended as far as is known; whether all have."""
        open_jobs = {job.id: job for job in self._jobs if not job.seen.is_ended}
        if 0 < len(open_jobs) <= _FEW:
            for job in open_jobs.values():
                job.view()
        elif open_jobs:
            for view in self._listed():
                if view.id in open_jobs:
                    open_jobs[view.id].seen = view
        return all(job.seen.is_ended for job in self._jobs)

    def _listed(self) -> Iterator[JobView]:
        """All jobs of the sweep in a few requests: their names share a stem that nothing else has."""
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
        """The values in the order of the elements; a RemoteError stands in the place of one that did not succeed."""
        self.wait(timeout)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tuttilab-results") as pool:
            return list(pool.map(_value_or_error, self._jobs))

    def cancel(self) -> None:
        """End all that have not ended."""
        self.refresh()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tuttilab-cancel") as pool:
            list(pool.map(JobHandle.cancel, [job for job in self._jobs if not job.seen.is_ended]))

    def retry(self) -> MapHandle:
        """Run the elements that did not succeed again; the others keep their values."""
        self.wait()
        return MapHandle([job if job.seen.phase == "Succeeded" else job.retry() for job in self._jobs])

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return asyncio.to_thread(self.result).__await__()

    def shown(self, now: float, note: str = "") -> Shown:
        """A bar over all elements, the phases, the pace, and what the first of the failed ones say."""
        views = [job.seen for job in self._jobs]
        ended = [view for view in views if view.is_ended]
        phases = Counter(view.phase for view in views)
        text = ", ".join(f"{number} {phase}" for phase, number in sorted(phases.items()))
        since = min((view.created_at for view in views), default=now)
        till = max((view.ended_at or now for view in ended), default=now) if len(ended) == len(views) else now
        pace = len(ended) / (till - since) if till > since and ended else 0.0
        facts = f"{len(ended)} of {count(len(views), 'element')} done in {show_duration(till - since)}"
        if pace:
            facts += f" ({pace:.1f} a second)"
        below = [f"[{i}] {end_sentence(v)}" for i, v in enumerate(views) if v.is_ended and v.phase != "Succeeded"]
        more = len(below) - _WORST_SHOWN
        lines = [*([note] if note else []), *below[:_WORST_SHOWN], *([f"… and {more} more"] if more > 0 else [])]
        reason = next((waiting(view.wait, now) for view in views if view.wait is not None and not view.is_ended), "")
        if reason and not phases.keys() & {"Running", "Launching"}:
            lines.insert(0, f"first in line: {reason}")
        plain = "\n".join([f"{bar(len(ended), len(views))} {facts}: {text}", *lines])
        marked = f"<div>{html_bar(len(ended), len(views))} {html.escape(f'{facts}: {text}')}</div>"
        below_bar = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        return Shown(plain, marked + below_bar, news=f"{len(ended) * 10 // len(views)}{note}")

    def __repr__(self) -> str:
        phases = Counter(job.seen.phase for job in self._jobs)
        return f"<{count(len(self), 'job')}: {', '.join(f'{number} {phase}' for phase, number in sorted(phases.items()))}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
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


def _stem(name: str) -> str:
    return name.rpartition("[")[0] or name


def _value_or_error(job: JobHandle) -> Any:
    try:
        return job.result()
    except RemoteError as error:
        return error
