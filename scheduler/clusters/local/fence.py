"""The fence of a local cluster: a file with the newest epoch, which every call with an effect holds locked.

So a control plane that was suspended between the check of its lease and its call changes nothing once another one leads. One that
was suspended inside such a call is waited for, because its remaining effects are unknown.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.kept import epoch as epochs
from tuttilab.scheduler.domain.errors import ClusterUnreachable, StaleEpoch

WAIT_S: Final = 5.0
"""How long to wait for a call of another control plane; one that takes longer was suspended during the call."""
PAUSE_S: Final = 0.01


class Fence:
    """The fence as one control plane uses it. Calls block, so they belong in threads."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / epochs.FILE
        self._epoch = 0
        self._is_raised = True

    def raise_to(self, epoch: int) -> None:
        """From now on, calls of earlier epochs change nothing. Raises StaleEpoch when a later one leads, ClusterUnreachable.

        After ClusterUnreachable the next call retries.
        """
        self._epoch, self._is_raised = epoch, False
        with self._locked(fcntl.LOCK_EX) as file:
            self._check(file)
            os.pwrite(file, epochs.written(epoch), 0)
            os.fsync(file)
        self._is_raised = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Context of an effect: no other leader takes over before it ends. Raises StaleEpoch, ClusterUnreachable."""
        if not self._is_raised:
            self.raise_to(self._epoch)
        with self._locked(fcntl.LOCK_SH) as file:
            self._check(file)
            yield

    def _check(self, file: int) -> None:
        leads = epochs.number(os.pread(file, epochs.BYTES, 0))
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
            while not _try_lock(file, how):
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
                # Read-only, so that it works on a disk that became read-only.
                return os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
