"""Where the control plane's log goes: a rotated file in the state folder, and the terminal when it runs in the foreground."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.seldom import EVERY_S

LOG_BYTES: Final = 5 * 2**20
LOG_FILES: Final = 3
OF_CALLERS: Final = {
    "uvicorn.error": ("Invalid HTTP request", "Unsupported upgrade request", "No supported WebSocket library"),
    "asyncio": ("socket.accept() out of system resource",),
}
"""Beginnings of other libraries' lines that whoever reaches the port can cause at will."""


class OnceAMinute(logging.Filter):
    """Drops lines that begin like one of the last `EVERY_S` seconds."""

    def __init__(self, beginnings: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._next_at = dict.fromkeys(beginnings, float("-inf"))
        self._clock = clock

    def filter(self, record: logging.LogRecord) -> bool:
        begins = next((one for one in self._next_at if str(record.msg).startswith(one)), None)
        if begins is None:
            return True
        is_due = self._clock() >= self._next_at[begins]
        if is_due:
            self._next_at[begins] = self._clock() + EVERY_S
        return is_due


@contextlib.contextmanager
def logging_to(state: Path, in_foreground: bool) -> Iterator[None]:
    path = discovery.log_file(state)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    handlers: list[logging.Handler] = [logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1)]
    if in_foreground:
        handlers.append(logging.StreamHandler())
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    # Their lines about connections, plugins, their own start, and each request that we send (to the hub, to the leader, to the
    # artifact process) add nothing to ours.
    for name in ("uvicorn", "alembic", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    filters = {name: OnceAMinute(beginnings) for name, beginnings in OF_CALLERS.items()}
    for name, one in filters.items():
        logging.getLogger(name).addFilter(one)
    try:
        yield
    finally:
        for name, one in filters.items():
            logging.getLogger(name).removeFilter(one)
        for handler in handlers:
            root.removeHandler(handler)
            # On a full disk the last lines are lost; the reason of the end is also reported elsewhere.
            with contextlib.suppress(OSError):
                handler.close()
