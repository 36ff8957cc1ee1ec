"""Identity of processes. A pid alone is not enough, because the kernel reuses it.

A process is identified by pid, start time (clock ticks since boot, from /proc) and boot id.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    pid: int
    start_time: int
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this process still runs; a zombie does not."""
        return self.boot_id == boot_id() and _start_time(self.pid) == self.start_time


def this_process() -> ProcessId:
    pid = os.getpid()
    return ProcessId(pid, _start_time(pid) or 0, boot_id())


def user_name() -> str:
    """The name of the user as whom this process runs."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # A container may run under a uid that no one gave a name.
        return str(os.geteuid())


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_time(pid: int) -> int | None:
    """None for a process that does not exist or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets and may hold anything, brackets included.
    after_name = text.rpartition(")")[2].split()
    state, start_time = after_name[0], after_name[19]
    return None if state in ("Z", "X") else int(start_time)
