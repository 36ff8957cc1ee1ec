"""One process at a time leads a SQLite file: it holds a lock beside it, which the kernel lets go of when the process ends.

The epoch keeps an old leader from writing, but not from running pods. On Postgres a lease does that; all who may lead a file run
on its machine, so that a lock can. What the lock's file says is a hint for whoever is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path

from tuttilab.scheduler.errors import EnvironmentProblem, StoreError


def lock_file(path: Path) -> Path:
    # Two names of one database are one database.
    real = Path(os.path.realpath(path))
    return real.with_name(f"{real.name}.lock")


def take(path: Path) -> int:
    """A descriptor that holds the lock of the database until it is closed. Raises EnvironmentProblem when another one has it."""
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
            f"{path} is in use by another control plane ({told_of(path)}); end it there with `tuttilab down`, "
            "or set store.url to a file of this one's own."
        ) from None
    return descriptor


def sign(descriptor: int, folder: Path) -> None:
    """Note in the lock's file who leads now: for people, so that a full disk hinders nobody."""
    told = json.dumps({"host": socket.gethostname(), "state_dir": str(folder), "pid": os.getpid()}).encode()
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, told, 0)


def told_of(path: Path) -> str:
    """Who leads the database, or was the last to."""
    try:
        told = json.loads(lock_file(path).read_text(encoding="utf-8"))
        return f"state folder {told['state_dir']}, pid {told['pid']} on {told['host']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "it did not say which"
