"""What of a pod is still alive when its sidecar and its keeper were both killed, found without their help and ended by force.

Three things tell the processes of a pod: the mark in their environment, the list of pids and start times that the sidecar wrote
a moment ago, and being below one of these or in the session of a listed one. So who cleared his environment, left his session and
lost his parent, all of it within the last two seconds, is not found when both are killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.local_env import POD_MARK
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


def sweep(folder: Path) -> None:
    """Ends every process that is left of the pod in ``folder``; asks until there is none, for about a second."""
    mark, listed = f"{POD_MARK}={folder}".encode(), _listed(folder)
    for _ in range(ROUNDS):
        held: set[_Process] = set()
        # Halted first, all of them: else a child of one that was killed is nobody's child when its turn comes.
        while more := _left(mark, listed) - held:
            for process in more:
                send(process.identity, signal.SIGSTOP)
            held |= more
        if not held:
            return
        for process in held:
            send(process.identity, signal.SIGKILL)
        time.sleep(PAUSE_S)


def send(identity: tuple[int | None, int | None], number: signal.Signals) -> None:
    """To that process and to no later one with its number; nothing when it is gone."""
    descriptor = open_process(*identity)
    if descriptor is None:
        return
    try:
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        pass  # it ended, or became somebody else's
    finally:
        os.close(descriptor)


def open_process(pid: int | None, start_time: int | None) -> int | None:
    """A pidfd, certain to be of that process."""
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


def _listed(folder: Path) -> frozenset[tuple[int, int]]:
    """Numbers of processes mean nothing after the machine was started again."""
    sidecar = records.read(str(folder / records.SIDECAR))
    if sidecar is None or sidecar["boot_id"] != records.boot_id():
        return frozenset()
    record = records.read(str(folder / records.PROCESSES)) or {}
    return frozenset((pid, start_time) for pid, start_time in record.get("processes", ()))


def _left(mark: bytes, listed: Collection[tuple[int, int]]) -> set[_Process]:
    table = _table()
    # A mark may have been given by hand, in a session of somebody; a listed one has no session but the pod's.
    marked = _with_kin({process for process in table.values() if _has(process.pid, mark)}, table, has_sessions=False)
    return marked | _with_kin({p for p in table.values() if p.identity in listed}, table, has_sessions=True)


def _with_kin(found: set[_Process], table: Mapping[int, _Process], *, has_sessions: bool) -> set[_Process]:
    while True:
        pids = {process.pid for process in found}
        sessions = {process.session for process in found} if has_sessions else set()
        more = {process for process in table.values() if process.parent in pids or process.session in sessions} - found
        if not more:
            return found
        found = found | more


def _table() -> dict[int, _Process]:
    """All of this machine but ourselves; one that has ended and waits to be reaped is none."""
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


def _has(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False
