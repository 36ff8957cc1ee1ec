"""Whether something can be written in a folder now, found out by writing: a file system that an error of its disk closed says
nothing of it elsewhere, and a full one may still take names."""

from __future__ import annotations

import errno
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tuttilab.scheduler.domain.errors import StoreUnreachable

PROBE: Final = b"\0" * 2**16
AGES_S: Final = 1.0
"""Answers are so old at most: whoever may ask does not have us write all the time."""
_STATES: Final = {
    errno.EROFS: ("is read-only", "make it writable"),
    errno.ENOSPC: ("is full", "make room"),
    errno.EDQUOT: ("is full for this process, by its quota", "make room"),
    errno.EIO: ("answers errors (EIO)", "mend it or its disk"),
}


class Folders:
    """The folders of a control plane. Threads may share it."""

    def __init__(self, folders: Sequence[Path], clock: Callable[[], float] = time.monotonic) -> None:
        self._folders = folders
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._trouble = ""

    def check(self) -> None:
        """Raises StoreUnreachable for the first one in which nothing can be written. Blocks."""
        with self._lock:
            if self._clock() >= self._looked_at + AGES_S:
                self._trouble = next((found for folder in self._folders if (found := trouble_of(folder))), "")
                self._looked_at = self._clock()
            trouble = self._trouble
        if trouble:
            raise StoreUnreachable(trouble)


def trouble_of(folder: Path) -> str:
    """One sentence, or "" where it can be written in, or is not made yet."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            if file.write(PROBE) < len(PROBE):
                raise OSError(errno.ENOSPC, "a part was written")
    except OSError as error:
        if error.errno not in _STATES:
            return ""
        state, remedy = _STATES[error.errno]
        return (
            f"The file system of the folder {folder.name} {state}, so nothing new starts; {remedy}, and what waits goes on. What "
            "runs is not touched."
        )
    return ""
