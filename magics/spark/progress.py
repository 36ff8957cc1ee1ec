"""Shows the progress of a cell's Spark operations: one line in one output area, at most two updates a second.

Spark's totals grow as stages appear, so a bar of them would jump back; this bar only goes forward. Cells that end within
half a second show nothing.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

QUIET_S = 0.5
INTERVAL_S = 0.5
_CELLS = 20


class Stage(Protocol):
    """A stage as Spark reports it."""

    num_tasks: int
    num_completed_tasks: int


@dataclass(frozen=True)
class Status:
    """One state of the line."""

    text: str
    fraction: float | None

    def __repr__(self) -> str:
        if self.fraction is None:
            return self.text
        full = round(self.fraction * _CELLS)
        return f"{'█' * full}{'░' * (_CELLS - full)} {self.text}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        bar = "" if self.fraction is None else f'<progress max="100" value="{self.fraction * 100:.0f}"></progress> '
        return {"text/html": f"<div>{bar}{html.escape(self.text)}</div>", "text/plain": repr(self)}


class ProgressLine:
    """Collects reports of operations, from any thread, and shows them with `show(status)`."""

    def __init__(self, show: Callable[[Status], None], now: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._now = now
        self._started = now()
        self._last_shown = float("-inf")
        self._was_shown = False
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[int, int]] = {}
        self._stages: dict[str, tuple[int, int]] = {}
        """Complete and known so far, of each operation."""
        self._fraction = 0.0

    def wait_reason(self, text: str) -> None:
        """Shows a line without a bar at once: why the cell waits before Spark starts."""
        with self._lock:
            self._put(Status(text, None))

    def __call__(self, stages: Iterable[Stage] | None, inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        """The progress handler that Spark calls."""
        with self._lock:
            known = list(stages or ())
            total = sum(stage.num_tasks for stage in known)
            if total:
                complete = total if done else sum(stage.num_completed_tasks for stage in known)
                self._tasks[operation_id or ""] = (complete, total)
                over = sum(stage.num_completed_tasks >= stage.num_tasks for stage in known)
                self._stages[operation_id or ""] = (len(known) if done else over, len(known))
            now = self._now()
            if done or not total or now - self._started < QUIET_S or now - self._last_shown < INTERVAL_S:
                return
            self._put(self._status(f"{inflight_tasks} running"))

    def finish(self, outcome: str) -> None:
        """Shows the last state, which stays in the saved notebook; only if anything was shown before."""
        with self._lock:
            if self._was_shown:
                complete = sum(done for done, _ in self._tasks.values()) if outcome == "done" else 0
                tasks = f"{complete:,} task{'' if complete == 1 else 's'}, " if complete else ""
                self._put(Status(f"Spark: {outcome}, {tasks}{self._now() - self._started:.1f} s", None))

    def _status(self, running: str) -> Status:
        complete = sum(done for done, _ in self._tasks.values())
        total = sum(count for _, count in self._tasks.values())
        # Never full before it is over, never backwards.
        self._fraction = max(self._fraction, min(0.99, complete / total))
        elapsed = self._now() - self._started
        over, known = (sum(numbers) for numbers in zip(*self._stages.values(), strict=True))
        stages = f"{over} of {known} stages, " if known > 1 else ""
        text = f"{self._fraction:.0%}  {complete:,} of {total:,} tasks, {stages}{running}, {elapsed:.0f} s"
        return Status(text, self._fraction)

    def _put(self, status: Status) -> None:
        self._last_shown = self._now()
        self._was_shown = True
        self._show(status)
