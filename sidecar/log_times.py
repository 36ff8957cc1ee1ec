"""When lines of a log were written, one time for many lines: for reading the logs of several pods in the order of time.

The file ``times`` has lines ``<number of a line> <milliseconds since 1970>``: from that line on, up to the next entry's, lines
were written at that time or a little later. Not more than `MOST` entries are kept: when there are, every second one goes and the
least distance between two doubles.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

NAME = "times"
MOST = 4096
FIRST_APART_S = 0.1


class Times:
    """Writes the file. On a full disk entries are missing; the log itself is not concerned."""

    def __init__(self, folder: str, now: Callable[[], float] = time.time) -> None:
        self._path = f"{folder}/{NAME}"
        self._now = now
        self._apart_s = FIRST_APART_S
        self._entries: list[tuple[int, float]] = []
        self._last = float("-inf")

    def note(self, line: int) -> None:
        """Line ``line`` and those after it are being written now."""
        now = self._now()
        # A clock that was set back does not stop the entries for as long.
        if 0 <= now - self._last < self._apart_s:
            return
        self._last = now
        self._entries.append((line, now))
        if len(self._entries) <= MOST:
            self._write(self._path, self._entries[-1:], os.O_APPEND)
            return
        self._entries = self._entries[::2]
        self._apart_s *= 2
        if self._write(f"{self._path}.new", self._entries, os.O_TRUNC):
            with contextlib.suppress(OSError):  # the job put a folder there
                os.rename(f"{self._path}.new", self._path)

    @staticmethod
    def _write(path: str, entries: list[tuple[int, float]], how: int) -> bool:
        text = "".join(f"{line} {at * 1000:.0f}\n" for line, at in entries).encode()
        try:
            # Without O_NONBLOCK a FIFO in its place would block the log for ever.
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | how, 0o600)
            try:
                os.write(file, text)
            finally:
                os.close(file)
        except OSError:
            return False
        return True
