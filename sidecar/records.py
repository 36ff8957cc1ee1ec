"""The JSON records in a pod directory, the identity of a process, and file locks: shared by all code that starts or adopts pods.

A record is written to a temporary file, synced and renamed, so that a reader sees all of it or nothing, also after a power cut.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import struct
from collections.abc import Mapping
from typing import Any

from tuttilab.sidecar import beneath

PLAN = "plan.json"
SIDECAR = "sidecar.json"
"""``pid`` and ``start_time`` are those of the pod's first process, whose pid its starter knows: the keeper, or a master."""
PROCESSES = "processes.json"
"""Pids and start times of the processes below the sidecar, as of the last look."""
READY = "ready.json"
STARTED = "started.json"
ENDPOINTS = "endpoints.json"
STOP = "stop.json"
SWEPT = "swept.json"
"""The keeper of a killed sidecar has ended all that it left."""
END = "end.json"
USAGE = "usage/points.json"
"""In a folder of its own, because the control plane reads the others again whenever the pod's folder changes."""
USAGE_POINTS = 240
"""At most, however long the pod runs."""
LOCK = "lock"
LARGEST = 16 * 2**20
"""Bytes of a record that are read; a plan has a few hundred kilobytes at most."""

_NOT_A_LOCK = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES)
"""Errors of opening what is no lock: gone, a link, a folder, a socket, closed to us."""
_FLOCK = "hhqqi4x"
"""struct flock of a 64-bit Linux: type, whence, start, length, pid."""


def write(path: str, record: Mapping[str, object], *, is_durable: bool = True, owner: int = -1) -> None:
    """Replaces ``path`` atomically. Without ``is_durable`` nothing is synced: a crash of the machine may lose the record.
    ``owner``: the uid that it is for, if not our own.

    The job may have put anything there, a folder too, or at the name of the temporary file: a FIFO would block for ever.
    """
    temporary = f"{path}.{os.getpid()}.new"
    descriptor = beneath.create(temporary)
    try:
        if owner >= 0:
            os.fchown(descriptor, owner, -1)
        body = json.dumps(record).encode()
        while body:
            body = body[os.write(descriptor, body) :]
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.rename(temporary, path)
    except IsADirectoryError:
        beneath.put_away(path)
        os.rename(temporary, path)
    if is_durable:
        sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str) -> dict[str, Any] | None:
    """The record; None when the file is missing or is no JSON object of a regular file. The values are not checked."""
    try:
        # The job may have put anything in its place: without O_NONBLOCK a FIFO would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                return None
            record = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process (field 22 of its stat); None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def uid(identity: Mapping[str, Any]) -> str:
    """A pod's identity: unique on its machine, also across reboots."""
    return f"{str(identity['boot_id'])[:8]}-{identity['pid']}-{identity['start_time']}"


def take_lock(path: str) -> int | None:
    """Takes the lock: a descriptor that holds it for as long as any process has it open; None when it is taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: str) -> bool:
    """Whether a live process holds the lock. Does not take it, so nobody else fails to take it because of this call.

    What the job may have put in its place is nobody's lock. Raises OSError where nobody knows, as on a disk that fails: a pod must
    not count as ended then. To ask, reading is enough, so that a read-only disk says it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NOT_A_LOCK:
            return False
        raise
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)
