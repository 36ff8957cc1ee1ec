"""Who leads a local cluster: the newest epoch stands in a file of its folder, which every call with an effect holds locked.

So a control plane that was stopped between its last look at its lease and its call changes nothing once another one leads; and
one that was stopped inside of such a call is waited for, since nobody can say what of it is still to come.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuttilab.scheduler.errors import ClusterUnreachable, StaleEpoch

FILE: Final = "epoch"
WAIT_S: Final = 5.0
"""For a call of another control plane; one that takes longer was stopped in the midst of it."""
PAUSE_S: Final = 0.01


class Fence:
    """One control plane's side of it. Calls block, so they belong into threads."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._epoch = 0
        self._is_raised = True

    def raise_to(self, epoch: int) -> None:
        """Calls under an earlier epoch change nothing from now on. Raises StaleEpoch for a later one, ClusterUnreachable.

        After ClusterUnreachable the next call tries again.
        """
        self._epoch, self._is_raised = epoch, False
        with self._locked(fcntl.LOCK_EX) as file:
            self._check(file)
            # A number of fixed length: written at once, or not at all.
            os.pwrite(file, b"%020d" % epoch, 0)
            os.fsync(file)
        self._is_raised = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Around an effect: nobody takes over before its end. Raises StaleEpoch, ClusterUnreachable."""
        if not self._is_raised:
            self.raise_to(self._epoch)
        with self._locked(fcntl.LOCK_SH) as file:
            self._check(file)
            yield

    def _check(self, file: int) -> None:
        leads = _number(os.pread(file, 20, 0))
        if leads > self._epoch:
            raise StaleEpoch(f"epoch {self._epoch} was given, and {leads} leads the pods in {self._file.parent}.")

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[int]:
        try:
            file = self._open(how)
        except OSError as error:
            raise ClusterUnreachable(f"{self._file}: {error.strerror}; make room or mend the mode of its folder.") from error
        try:
            until = time.monotonic() + WAIT_S
            while not _got(file, how):
                if time.monotonic() > until:
                    raise ClusterUnreachable(
                        f"another control plane is in the midst of a call on the pods in {self._file.parent} for {WAIT_S:g} s; "
                        "if it is stopped, end or continue it."
                    )
                time.sleep(PAUSE_S)
            yield file
        finally:
            os.close(file)

    def _open(self, how: int) -> int:
        if how == fcntl.LOCK_SH:
            with contextlib.suppress(FileNotFoundError):
                # A disk that has become read-only hinders no look.
                return os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def recorded(folder: Path) -> int:
    """The newest epoch that led the cluster of this folder; 0 when none did."""
    try:
        return _number((folder / FILE).read_bytes())
    except FileNotFoundError:
        return 0


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() else 0


def _got(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
