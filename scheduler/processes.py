"""Is that process still the one we mean? A pid alone is not enough: the kernel gives it to another process later.

A process is named by pid, start time (clock ticks since boot, from /proc) and boot id.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    pid: int
    start_time: int
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this very process still runs; one that has ended and was not yet reaped does not."""
        return self.boot_id == boot_id() and _start_time(self.pid) == self.start_time


def this_process() -> ProcessId:
    pid = os.getpid()
    return ProcessId(pid, _start_time(pid) or 0, boot_id())


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int | None:
    """None for a process that is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets and may hold anything, brackets included.
    after_name = text.rpartition(")")[2].split()
    state, start_time = after_name[0], after_name[19]
    return None if state in ("Z", "X") else int(start_time)
