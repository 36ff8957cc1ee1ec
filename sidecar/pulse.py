"""The one thread of a sidecar that decides: it sleeps until a signal, a timer or another thread has something for it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_NEVER = float("inf")


class Pulse:
    """A queue of events, repeated calls, and one timer, over ``poll``. Signals become calls on this thread."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._due: dict[Callable[[], None], tuple[float, float]] = {}
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._woken, select.POLLIN)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        self._timer_at = _NEVER
        self._on_timer: Any = None

    def on_signal(self, number: signal.Signals, call: Callable[[], None]) -> None:
        """``call`` is made by `next`, never in the middle of something else."""
        signal.signal(number, lambda _number, _frame: self._calls.append(call))
        # Whoever starts us blocks signals until here: one that comes in the first 50 ms waits instead of killing.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

    def post(self, event: object) -> None:
        """From any thread."""
        self._events.append(event)
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:
            pass  # full of earlier wake-ups: it will wake

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        self._due[call] = (time.monotonic() + seconds, seconds)

    def no_more(self, call: Callable[[], None]) -> None:
        self._due.pop(call, None)

    def arm(self, seconds: float, event: object) -> None:
        """The one timer: posts ``event`` unless it is armed again before."""
        self._timer_at, self._on_timer = time.monotonic() + seconds, event

    def next(self) -> Any:
        """The next event. Calls for signals, and repeated ones that are due, are made meanwhile."""
        while True:
            while self._calls:
                self._calls.popleft()()
            if self._events:
                return self._events.popleft()
            at = min([self._timer_at, *(due for due, _ in self._due.values())])
            wait_ms = None if at == _NEVER else max(0.0, (at - time.monotonic()) * 1000 + 1)
            if self._poll.poll(wait_ms):
                os.read(self._woken, 4096)
            now = time.monotonic()
            if now >= self._timer_at:
                self._timer_at = _NEVER
                self._events.append(self._on_timer)
            for call, (due, seconds) in list(self._due.items()):
                if now >= due and call in self._due:
                    self._due[call] = (now + seconds, seconds)
                    call()
