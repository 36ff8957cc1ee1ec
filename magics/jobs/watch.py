"""Waiting in a cell: live progress until a job has ended, and what Stop does meanwhile.

The first Stop detaches: the cell ends, the job goes on. A second one within five seconds cancels. The wait itself outlives
a restart of the control plane.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from tuttilab.magics.jobs.displays import Replay
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.results import read_records
from tuttilab.magics.shared.ansi import plain
from tuttilab.magics.shared.connection import client, user
from tuttilab.magics.shared.display import Area, Shown, count
from tuttilab.magics.shared.job_text import culprit, newest, progress, short_id, title
from tuttilab.magics.shared.labels import ERROR
from tuttilab.scheduler.domain.errors import NotFound, Unavailable
from tuttilab.scheduler.domain.terminal import clean
from tuttilab.scheduler.domain.wire import JobView

SECOND_STOP_S: Final = 5.0
CANCEL_WAIT_S: Final = 5.0
_POLL_S: Final = 0.2
_SLOWEST_POLL_S: Final = 1.0
_LOG_EVERY_S: Final = 0.4
LATE_LOG_S: Final = 5.0
"""After the end, for a log that its cluster still copies."""
_LOG_LINES: Final = 5
_LOG_PAGE: Final = 1000
_LOG_RANKS: Final = 8
"""Of a larger gang the first ones are shown."""


class Stopped(KeyboardInterrupt):
    """The cell was stopped; the text says what became of the job. It shows as that text and stops a run of all cells."""

    def _render_traceback_(self) -> list[str]:
        return [clean(str(self))]


class _Tail:
    """The last lines of one rank's log, and the line that is being written."""

    def __init__(self) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=_LOG_LINES)
        self._partial = ""
        self._next = 0
        self.is_whole = False
        """Whether all that the pod printed was read."""

    def read(self, job_id: str, rank: int) -> None:
        """Reads on. Raises NotFound when there is no log (yet)."""
        while True:
            page = client().logs(job_id, rank=rank, start=self._next, limit=_LOG_PAGE)
            self._lines.extend(page.lines)
            self._next, self._partial, self.is_whole = page.next, page.partial, page.is_end
            if len(page.lines) < _LOG_PAGE:
                return

    @property
    def newest(self) -> str:
        """What is being written, else the last line that says something."""
        return next((line for line in (self._partial, *reversed(self._lines)) if plain(line).strip()), "")

    def lines(self, name: str) -> list[str]:
        """The last lines, and above them how many there are before."""
        shown = [*self._lines, *([self._partial] if self._partial else [])][-_LOG_LINES:]
        above = self._next + bool(self._partial) - len(shown)
        return [f"… {count(above, 'line')} above · `%job {name} logs` shows them", *shown] if above > 0 else shown


class Watched(Protocol):
    """One job or many, as `follow` sees them."""

    def poll(self) -> bool:
        """Ask once; whether all have ended."""
        ...

    def shown(self, note: str) -> Shown: ...

    def cancel(self) -> None: ...

    @property
    def words(self) -> str:
        """``job 3f2a9c12 'train'``."""
        ...

    @property
    def way_back(self) -> str:
        """How to come back to it, and how to end it."""
        ...


class OneJob:
    """A job with the newest lines of its log: of one pod the last few, of a gang one line a rank."""

    def __init__(self, handle: JobHandle, now: Callable[[], float] = time.time) -> None:
        self.handle = handle
        self._now = now
        self._tails: dict[int, _Tail] = {}
        self._log_at = 0.0
        self._log_attempt = 0
        self._ended_at: float | None = None
        self.displayed = Replay()
        """What the cell displayed so far, shown as it comes where its cluster can tell."""
        self._records: list[dict[str, Any]] = []
        self._records_next = 0
        self._shows_live = handle.seen.owner == user()
        """Only one's own output is shown: it is HTML and scripts of whoever wrote the cell."""

    def poll(self) -> bool:
        view = self.handle.view()
        if view.is_ended or self._now() - self._log_at >= _LOG_EVERY_S:
            self._log_at = self._now()
            self._read_log(view)
            self._read_displays(view)
        if not view.is_ended:
            return False
        if self._ended_at is None:
            self._ended_at = self._now()
        return not self._late(view) or self._now() - self._ended_at >= LATE_LOG_S

    def _late(self, view: JobView) -> list[int]:
        """Ranks of a job that has ended whose log is not here to its end."""
        return [rank for rank, tail in sorted(self._tails.items()) if view.is_ended and not tail.is_whole]

    def _read_displays(self, view: JobView) -> None:
        attempt = newest(view)
        if view.is_ended or not self._shows_live or attempt is None or attempt.started_at is None or attempt.number > 1:
            return
        try:
            found = client().displays(view.id, attempt=attempt.number, start=self._records_next)
        except NotFound:
            return
        self._records_next = found.next
        self._records += read_records(found.lines)
        self.displayed.show(self._records)

    def _read_log(self, view: JobView) -> None:
        attempt = newest(view)
        if attempt is None or attempt.started_at is None:
            return
        if attempt.number != self._log_attempt:
            self._log_attempt = attempt.number
            self._tails.clear()
        ranks = sorted(pod.rank for pod in attempt.pods if pod.rank >= 0)
        for rank in ranks[:_LOG_RANKS]:
            try:
                self._tails.setdefault(rank, _Tail()).read(view.id, rank)
            except NotFound:
                # Nothing was printed yet, or it was deleted with its pod: a status without lines is still a status.
                continue

    def shown(self, note: str) -> Shown:
        view = self.handle.seen
        pod = culprit(view) if view.is_ended else None
        # The last lines of a cell that raised are its traceback, which the cell's own error shows better.
        log = [] if pod is not None and ERROR in pod.outputs else self._lines(view)
        return progress(view, self._now(), log, note)

    def _lines(self, view: JobView) -> list[str]:
        late = [str(rank) for rank in self._late(view)]
        ranks = "" if len(self._tails) == 1 else f" of rank{'s' if len(late) > 1 else ''} {', '.join(late)}"
        # Its cluster may be slow, or the log lost with its node: the end that is shown is not its end.
        rest = (
            [f"… the log{ranks} is not here to its end yet · `%job {short_id(view.id)} logs` shows what came since"] if late else []
        )
        return [*self._newest(view), *rest]

    def _newest(self, view: JobView) -> list[str]:
        if len(self._tails) <= 1:
            return [line for tail in self._tails.values() for line in tail.lines(short_id(view.id))]
        attempt = newest(view)
        more = sum(pod.rank >= 0 for pod in attempt.pods) - _LOG_RANKS if attempt else 0
        lines = [f"[{rank}] {tail.newest}" for rank, tail in sorted(self._tails.items()) if tail.newest]
        hint = f"`%job {short_id(view.id)} logs` shows all lines"
        return [*lines, f"… and {more} more ranks · {hint}" if more > 0 else f"… {hint}"] if lines else []

    def cancel(self) -> None:
        self.handle.cancel()

    @property
    def words(self) -> str:
        return title(self.handle.seen)

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
        try:
            # Within, for the second Stop may come while this is still being drawn.
            area.finish(watched.shown(f"{text}. Stop again within {SECOND_STOP_S:.0f} s cancels it."))
            time.sleep(SECOND_STOP_S)
        except KeyboardInterrupt:
            pass
        else:
            area.finish(watched.shown(text))
            raise Stopped(text) from None
    is_asked = is_ended = False
    try:
        watched.cancel()
        is_asked = True
        is_ended = _until_ended(watched, area, CANCEL_WAIT_S, note="cancelled by Stop")
    except KeyboardInterrupt:  # a third one: its person does not want to wait
        if not is_asked:
            raise Stopped(f"{watched.words} was perhaps not cancelled: Stop ended the request; {watched.way_back}") from None
    except Unavailable:
        raise Stopped(f"{watched.words} could not be cancelled: the control plane does not answer; {watched.way_back}") from None
    done = "was cancelled" if is_ended else "is being cancelled"
    raise Stopped(f"{watched.words} {done}.") from None
