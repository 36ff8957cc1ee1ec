"""The event loop of a sidecar: one thread sleeps until a signal, the timer, a periodic call or another thread wakes it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_NEVER = float("inf")


class EventLoop:
    """A queue of events, periodic calls and one timer, over ``poll``. Signals become calls on this thread."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._periodic: dict[Callable[[], None], tuple[float, float]] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        self._timer_at = _NEVER
        self._on_timer: Any = None

    def on_signal(self, number: signal.Signals, call: Callable[[], None]) -> None:
        """`next_event` makes ``call``, so it never interrupts other work."""
        signal.signal(number, lambda _number, _frame: self._calls.append(call))
        # The parent starts us with signals blocked: one that arrives in the first 50 ms stays pending instead of killing us.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})

    def post(self, event: object) -> None:
        """Queues an event. May be called from any thread."""
        self._events.append(event)
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            pass  # the pipe is full of earlier wake-ups

    def call_every(self, seconds: float, call: Callable[[], None]) -> None:
        self._periodic[call] = (time.monotonic() + seconds, seconds)

    def cancel_periodic(self, call: Callable[[], None]) -> None:
        self._periodic.pop(call, None)

    def set_timer(self, seconds: float, event: object) -> None:
        """Sets the one timer, in place of its last setting: posts ``event`` when it expires."""
        self._timer_at, self._on_timer = time.monotonic() + seconds, event

    def next_event(self) -> Any:
        """Waits for the next event. Makes the calls for signals and the periodic calls that are due meanwhile."""
        while True:
            while self._calls:
                self._calls.popleft()()
            if self._events:
                return self._events.popleft()
            at = min([self._timer_at, *(due for due, _ in self._periodic.values())])
            wait_ms = None if at == _NEVER else max(0.0, (at - time.monotonic()) * 1000 + 1)
            if self._poll.poll(wait_ms):
                os.read(self._wake_read, 4096)
            now = time.monotonic()
            if now >= self._timer_at:
                self._timer_at = _NEVER
                self._events.append(self._on_timer)
            for call, (due, seconds) in list(self._periodic.items()):
                if now >= due and call in self._periodic:
                    self._periodic[call] = (now + seconds, seconds)
                    call()
