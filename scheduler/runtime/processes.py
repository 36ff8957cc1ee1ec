"""Identity of processes. A pid alone is not enough, because the kernel reuses it.

A process is identified by pid, start time (clock ticks since boot, from /proc) and boot id.
"""

from __future__ import annotations

import os
import pwd
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PF_EXITING: Final = 0x4
"""Among the flags in /proc/PID/stat; include/linux/sched.h."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    pid: int
    start_time: int
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this process still runs; a zombie does not."""
        return self.boot_id == boot_id() and _start_time(self.pid) == self.start_time

    def is_being_killed(self) -> bool:
        """Whether it has SIGKILL before it, or is being taken down by the kernel: still alive, and to be gone in a moment."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            flags = int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[6])
        except (OSError, IndexError):
            return False
        pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))]
        is_killed = any(signals >> (signal.SIGKILL - 1) & 1 for signals in pending)
        return self.is_alive() and (is_killed or bool(flags & PF_EXITING))


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
