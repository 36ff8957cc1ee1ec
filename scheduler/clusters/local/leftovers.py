"""Finds and kills the processes of a pod whose sidecar and keeper were both killed.

Processes of a pod are recognized by the mark in their environment, by the list of pids and start times that the sidecar wrote last,
as descendants of such a process, or by the session of a listed one. A process that cleared its environment, left its session and
lost its parent, all within the last two seconds, is not found.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.local.env import POD_MARK
from tuttilab.sidecar import records

ROUNDS: Final = 20
PAUSE_S: Final = 0.05
_GONE: Final = (b"Z", b"X")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    session: int
    start_time: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.start_time


def kill_leftovers(folder: Path, known: Collection[tuple[int, int]] = ()) -> None:
    """Kill all remaining processes of the pod in ``folder``; repeats until there is none, for about a second.

    ``known``: pids and start times of some of them, for a pod whose files may be gone.
    """
    mark, listed = f"{POD_MARK}={folder}".encode(), _listed(folder) | frozenset(known)
    for _ in range(ROUNDS):
        held: set[_Process] = set()
        # All are stopped first: a child of a killed process would lose its parent and not be found.
        while more := _remaining(mark, listed) - held:
            for process in more:
                send(process.identity, signal.SIGSTOP)
            held |= more
        if not held:
            return
        for process in held:
            send(process.identity, signal.SIGKILL)
        time.sleep(PAUSE_S)


def send(identity: tuple[int | None, int | None], number: signal.Signals) -> None:
    """Send a signal to that process, never to a later one with the same pid; nothing when it has ended."""
    descriptor = open_process(*identity)
    if descriptor is None:
        return
    try:
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        pass  # it ended, or changed its user
    finally:
        os.close(descriptor)


def open_process(pid: int | None, start_time: int | None) -> int | None:
    """A pidfd of exactly that process; None when it has ended."""
    if pid is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if records.start_time(pid) != start_time:
        os.close(descriptor)
        return None
    return descriptor


def is_running(pid: int, start_time: int) -> bool:
    """Whether exactly that process is there and has not ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return False
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0] not in _GONE and int(fields[19]) == start_time


def _listed(folder: Path) -> frozenset[tuple[int, int]]:
    """Pids and start times that the sidecar wrote. None of them count after a reboot."""
    sidecar = records.read(str(folder / records.SIDECAR))
    if sidecar is None or sidecar.get("boot_id") != records.boot_id():
        return frozenset()
    record = records.read(str(folder / records.PROCESSES)) or {}
    try:
        return frozenset((int(pid), int(start_time)) for pid, start_time in record.get("processes", ()))
    except (TypeError, ValueError):
        return frozenset()  # the job wrote it


def _remaining(mark: bytes, listed: Collection[tuple[int, int]]) -> set[_Process]:
    table = _table()
    # A mark may have been set by hand in a session of a user. The session of a listed process belongs to the pod.
    marked = _with_descendants({process for process in table.values() if _has_mark(process.pid, mark)}, table, has_sessions=False)
    return marked | _with_descendants({p for p in table.values() if p.identity in listed}, table, has_sessions=True)


def _with_descendants(found: set[_Process], table: Mapping[int, _Process], *, has_sessions: bool) -> set[_Process]:
    while True:
        pids = {process.pid for process in found}
        sessions = {process.session for process in found} if has_sessions else set()
        more = {process for process in table.values() if process.parent in pids or process.session in sessions} - found
        if not more:
            return found
        found = found | more


def _table() -> dict[int, _Process]:
    """All processes of this machine except this one, pid 1 and zombies, by pid."""
    found: dict[int, _Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    stat = file.read()
            except OSError:
                continue
            fields = stat[stat.rindex(b")") + 2 :].split()
            if fields[0] not in _GONE:
                found[int(name)] = _Process(int(name), int(fields[1]), int(fields[3]), int(fields[19]))
    return found


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False
