"""The small JSON files of a pod directory, and who a process is: shared facts of everything that starts or adopts a pod.

A record is written beside its place, synced and renamed, so that a reader sees all of it or nothing, also after a power cut.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Mapping
from typing import Any

PLAN = "plan.json"
SIDECAR = "sidecar.json"
"""``pid`` and ``start_time`` are of the first process of the pod, which whoever made it knows: its keeper, or a master itself."""
PROCESSES = "processes.json"
"""Pid and start time of those below the sidecar, as of a moment ago."""
READY = "ready.json"
STARTED = "started.json"
ENDPOINTS = "endpoints.json"
STOP = "stop.json"
END = "end.json"
LOCK = "lock"

_FLOCK = "hhqqi4x"
"""struct flock of a 64-bit Linux: type, whence, start, length, pid."""


def write(path: str, record: Mapping[str, object], *, is_durable: bool = True) -> None:
    """Replaces ``path`` as a whole. Not durable: only the rename, for what a crash of the machine may forget."""
    beside = f"{path}.{os.getpid()}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        body = json.dumps(record).encode()
        while body:
            body = body[os.write(descriptor, body) :]
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(beside, path)
    if is_durable:
        sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str) -> dict[str, Any] | None:
    """The record, or None where there is none or something that is no JSON object. Values are whatever was written."""
    try:
        with open(path, "rb") as file:
            record = json.load(file)
    except (OSError, ValueError):
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
    """A pod's identity: no two pods of a machine share it, over restarts too."""
    return f"{str(identity['boot_id'])[:8]}-{identity['pid']}-{identity['start_time']}"


def take_lock(path: str) -> int | None:
    """A descriptor that holds the lock for as long as any process has it open, or None when somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: str) -> bool:
    """Whether a process lives that holds the lock. Asks without taking it, so that nobody is turned away by the question."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)
