"""Waiting in a cell: live progress until a job has ended, and what Stop does meanwhile.

The first Stop detaches: the cell ends, the job goes on. A second one within five seconds cancels. The wait itself outlives
a restart of the control plane.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Final, Protocol

from tuttilab.magics.connection import client
from tuttilab.magics.display import Area, Shown
from tuttilab.magics.handle import JobHandle
from tuttilab.magics.job_text import SHORT_ID, culprit, newest, progress, short_id
from tuttilab.magics.submission import ERROR
from tuttilab.scheduler.errors import NotFound, Unavailable
from tuttilab.scheduler.wire import JobView

SECOND_STOP_S: Final = 5.0
CANCEL_WAIT_S: Final = 5.0
_POLL_S: Final = 0.2
_SLOWEST_POLL_S: Final = 1.0
_LOG_EVERY_S: Final = 1.0
_LOG_LINES: Final = 5
_LOG_PAGE: Final = 1000


class Stopped(KeyboardInterrupt):
    """The cell was stopped; the text says what became of the job. It shows as that text and stops a run of all cells."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Watched(Protocol):
    """One job or many, as `follow` sees them."""

    def poll(self) -> bool:
        """Ask once; whether all have ended."""
        ...

    def shown(self, note: str) -> Shown: ...

    def cancel(self) -> None: ...

    @property
    def words(self) -> str:
        """``job 3f2a9c12``."""
        ...

    @property
    def way_back(self) -> str:
        """How to come back to it, and how to end it."""
        ...


class OneJob:
    """A job with the last lines of its first member's log."""

    def __init__(self, handle: JobHandle, now: Callable[[], float] = time.time) -> None:
        self.handle = handle
        self._now = now
        self._log: collections.deque[str] = collections.deque(maxlen=_LOG_LINES)
        self._log_at = 0.0
        self._log_next = 0
        self._log_attempt = 0

    def poll(self) -> bool:
        view = self.handle.view()
        if view.is_ended or self._now() - self._log_at >= _LOG_EVERY_S:
            self._log_at = self._now()
            self._read_log(view)
        return view.is_ended

    def _read_log(self, view: JobView) -> None:
        attempt = newest(view)
        if attempt is None or attempt.started_at is None:
            return
        if attempt.number != self._log_attempt:
            self._log_attempt, self._log_next = attempt.number, 0
            self._log.clear()
        try:
            while True:
                page = client().logs(view.id, rank=0, start=self._log_next, limit=_LOG_PAGE)
                self._log.extend(page.lines)
                self._log_next = page.next
                if len(page.lines) < _LOG_PAGE:
                    return
        except NotFound:
            # Nothing was printed yet, or it was deleted with its pod: a status without lines is still a status.
            return

    def shown(self, note: str) -> Shown:
        view = self.handle.seen
        pod = culprit(view) if view.is_ended else None
        # The last lines of a cell that raised are its traceback, which the cell's own error shows better.
        log = [] if pod is not None and ERROR in pod.outputs else list(self._log)
        return progress(view, self._now(), log, note)

    def cancel(self) -> None:
        self.handle.cancel()

    @property
    def words(self) -> str:
        return f"job {self.handle.id[:SHORT_ID]}"

    @property
    def way_back(self) -> str:
        name = short_id(self.handle.id)
        return f"`%attach {name}` shows it, `%job {name} cancel` ends it"


def follow(watched: Watched, area: Area, on_interrupt: str = "detach") -> None:
    """Return when it has ended. Raises Stopped after Stop, and NotFound when somebody deleted it meanwhile."""
    try:
        _until_ended(watched, area)
    except KeyboardInterrupt:
        _stop(watched, area, on_interrupt)


def _until_ended(watched: Watched, area: Area, limit_s: float = float("inf"), note: str = "") -> bool:
    pause = _POLL_S
    until = time.monotonic() + limit_s
    while True:
        told = note
        try:
            if watched.poll():
                area.finish(watched.shown(note))
                return True
            pause = min(pause * 1.2, _SLOWEST_POLL_S / 2)
        except Unavailable:
            told = "the control plane does not answer; the job is not touched by that, and this wait goes on"
            pause = _SLOWEST_POLL_S
        area.update(watched.shown(told))
        if time.monotonic() + pause > until:
            return False
        time.sleep(pause)


def _stop(watched: Watched, area: Area, on_interrupt: str) -> None:
    if on_interrupt == "detach":
        text = f"detached: {watched.words} goes on; {watched.way_back}"
        area.finish(watched.shown(f"{text}. Stop again within {SECOND_STOP_S:.0f} s cancels it."))
        try:
            time.sleep(SECOND_STOP_S)
        except KeyboardInterrupt:
            pass
        else:
            area.finish(watched.shown(text))
            raise Stopped(text) from None
    try:
        watched.cancel()
        is_ended = _until_ended(watched, area, CANCEL_WAIT_S, note="cancelled by Stop")
    except Unavailable:
        raise Stopped(f"{watched.words} could not be cancelled: the control plane does not answer; {watched.way_back}") from None
    done = "was cancelled" if is_ended else "is being cancelled"
    raise Stopped(f"{watched.words} {done}.") from None
