"""`JobHandle`: a notebook's handle of a job. It holds an id and fetches everything else from the service.

So it also works after a restart of the kernel and for jobs that were submitted elsewhere: `JobHandle("3f2a9c12")`.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Generator
from typing import Any, NoReturn

from tuttilab.magics.jobs.displays import replay_all
from tuttilab.magics.jobs.results import RemoteError, Returned, displays_of, failure_of, load_value
from tuttilab.magics.shared import job_text
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Shown, preformatted
from tuttilab.scheduler.domain.errors import TuttiError, Unavailable
from tuttilab.scheduler.domain.terminal import clean
from tuttilab.scheduler.domain.wire import JobView
from tuttilab.scheduler.domain.words import word

_PAGE = 1000

_AWAIT_STEP_S = 5.0


class Log(str):
    """Log text that shows itself as lines, in a notebook too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return clean(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": clean(self), "text/html": preformatted(str(self))}


class JobHandle:
    """A job by its id or the beginning of it (four characters or more). Raises NotFound when there is none of yours."""

    def __init__(self, job_id: str) -> None:
        self._view = client().job(job_id)

    @classmethod
    def of(cls, view: JobView) -> JobHandle:
        """A handle of a view that was fetched already."""
        handle = cls.__new__(cls)
        handle._view = view
        return handle

    @property
    def id(self) -> str:
        return self._view.id

    @property
    def name(self) -> str:
        return self._view.name

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._view.labels)

    @property
    def seen(self) -> JobView:
        """The job as last fetched, without a request."""
        return self._view

    @seen.setter
    def seen(self, view: JobView) -> None:
        self._view = view

    def view(self) -> JobView:
        """The job as it is now. An ended job is not fetched again."""
        if not self._view.is_ended:
            self._view = client().job(self.id)
        return self._view

    @property
    def status(self) -> str:
        """``Queued``, ``Running``, ``Succeeded``, ``Failed``, ``Cancelled`` …"""
        return self.view().phase

    @property
    def reason(self) -> str:
        """Why it waits, or why it ended as it did; empty for a job that simply runs."""
        view = self.view()
        if view.is_ended:
            return "" if view.phase == "Succeeded" else job_text.end_sentence(view)
        return job_text.waiting(view.wait, time.time()) if view.wait else view.reason

    def logs(self, rank: int | None = None, tail: int | None = None) -> Log:
        """The output of one rank or of all; ``tail`` keeps the last lines of each. Empty before the start."""
        view = self.view()
        attempt = job_text.newest(view)
        members = sorted(pod.rank for pod in attempt.pods if pod.rank >= 0) if attempt else []
        wanted = members if rank is None else [rank]
        texts = []
        for one in wanted if attempt else []:
            lines: collections.deque[str] = collections.deque(maxlen=tail)
            start = 0
            while True:
                page = client().logs(self.id, rank=one, start=start, limit=_PAGE)
                lines.extend(page.lines)
                if not page.lines:
                    break
                start = page.next
            mark = f"[rank {one}] " if len(wanted) > 1 else ""
            texts.append("\n".join(mark + line.rstrip("\n") for line in lines))
        return Log("\n".join(text for text in texts if text))

    def wait(self, timeout: float | None = None) -> JobHandle:
        """Return when the job has ended, however it ended. Raises TimeoutError after ``timeout`` seconds."""
        self._view = _wait(self._view, timeout)
        return self

    def result(self, rank: int = 0, timeout: float | None = None) -> Any:
        """The value of the cell on that rank, of its last expression or assignment, waiting for the end first.

        Raises RemoteError when the job did not succeed, TimeoutError after ``timeout`` seconds, Forbidden for another owner's job.
        """
        self.wait(timeout)
        returned = self.ended_result(rank)
        if returned.problem is not None:
            raise returned.problem
        return returned.value

    def ended_result(self, rank: int = 0) -> Returned:
        """The value and the names that came back from a job that has ended."""
        failure = failure_of(client(), self._view, rank)
        if failure is not None:
            raise failure
        return load_value(client(), self._view, rank)

    def kept(self) -> Returned:
        """What an ended job left before it failed; empty when it left nothing that can be loaded."""
        try:
            return load_value(client(), self._view, 0)
        except (TuttiError, RemoteError):
            return Returned()

    def displays(self, rank: int = 0) -> None:
        """Show what the cell displayed on that rank: figures, tables, HTML, and its value where that is one of these."""
        self.wait()
        replay_all(displays_of(client(), self._view, rank))

    def cancel(self) -> None:
        """Cancel the job. Does nothing when it has ended."""
        if not self.view().is_ended:
            self._view = client().cancel(self.id)

    def retry(self) -> JobHandle:
        """Submit the same again as a new job. Raises Conflict while this one is live."""
        return JobHandle.of(client().retry(self.id))

    def __await__(self) -> Generator[Any, None, Any]:
        """``await job`` gives `result()` without blocking the event loop."""
        return self._await_result().__await__()

    async def _await_result(self) -> Any:
        # In short steps, so that a cancelled await leaves no thread waiting for ever.
        while not self._view.is_ended:
            try:
                await asyncio.to_thread(self.wait, _AWAIT_STEP_S)
            except TimeoutError:
                continue
        return await asyncio.to_thread(self.result)

    def shown(self) -> Shown:
        """The job as it is now, or as last fetched when the service does not answer."""
        try:
            view, note = self.view(), ""
        except TuttiError as error:
            view, note = self._view, str(error)
        return job_text.progress(view, time.time(), note=note)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"a JobHandle has no {name}: this is the handle of job {self._view.name!r}; the value of its cell is .result(), and a "
            "variable that the cell assigns comes back under its own name."
        )

    def __repr__(self) -> str:
        try:
            phase = word(self.status)
        except Unavailable:
            phase = f"{word(self._view.phase)} when last seen"
        return f"<job {job_text.short_id(self.id)} {self.name!r}: {phase}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self.shown()._repr_mimebundle_()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a JobHandle stays in its notebook, send its value instead: x = {self.name}.result()")


def _wait(view: JobView, timeout: float | None) -> JobView:
    if view.is_ended:
        return view
    return client().wait(view.id, timeout_s=timeout)
