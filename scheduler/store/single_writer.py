"""Only one process at a time leads a SQLite file: it holds a lock beside it, which the kernel releases when the process ends.

The epoch keeps a former leader from writing, but not from running pods. On Postgres a lease does that. All processes that may lead
a SQLite file run on its machine, so a lock is enough. The content of the lock file is a hint for error messages.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path

from tuttilab.scheduler.domain.errors import EnvironmentProblem, StoreError


def lock_file(path: Path) -> Path:
    # One lock for all names of one database (symbolic links).
    real = Path(os.path.realpath(path))
    return real.with_name(f"{real.name}.lock")


def acquire(path: Path) -> int:
    """Lock the database; return the descriptor that holds the lock until it is closed.

    Raises EnvironmentProblem when another process has it.
    """
    lock = lock_file(path)
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{lock} cannot be made: {error.strerror}; make room or mend the mode of its folder.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EnvironmentProblem(
            f"{path} is in use by another control plane ({holder_of(path)}); end it there with `tuttilab down`, "
            "or set store.url to a file of this one's own."
        ) from None
    return descriptor


def write_holder(descriptor: int, folder: Path) -> None:
    """Write into the lock file who leads now. It is for people only, so errors such as a full disk are ignored."""
    holder = json.dumps({"host": socket.gethostname(), "state_dir": str(folder), "pid": os.getpid()}).encode()
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)


def holder_of(path: Path) -> str:
    """The current or last holder of the lock, for error messages."""
    try:
        holder = json.loads(lock_file(path).read_text(encoding="utf-8"))
        return f"state folder {holder['state_dir']}, pid {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "it did not say which"
