"""The pod's processes: starts the main command, finds its descendants, measures their memory, kills them.

The sidecar is a subreaper: a process that detaches (double fork, setsid) becomes its child again, so "no child left" means that
no process of the pod is alive. When the sidecar dies, the kernel's parent-death signal ends the main command, and the keeper
ends the others.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Mapping, Sequence

from tuttilab.sidecar import accounts
from tuttilab.sidecar.accounts import Account

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


class NotStarted(Exception):
    """The main command could not be executed; the pod ends with ``exit_code`` and ``reason``."""

    def __init__(self, exit_code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.reason = reason


def become_subreaper() -> None:
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def set_title(*words: str) -> None:
    """Overwrites our command line, cut to its length, so that `ps` and `pgrep -f` show which process this is."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    begin, end = map(int, stat[stat.rindex(b")") + 2 :].split()[45:47])
    title = b"\0".join(word.encode(errors="surrogateescape") for word in words)[: end - begin - 1]
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, title, len(title))


def start(command: Sequence[str], env: Mapping[str, str], workdir: str, output: int, owner: Account | None = None) -> int:
    """Executes ``command`` in its own session with ``output`` as stdout and stderr; returns its pid once it is executed.

    ``owner``: as whom, if not as this process.
    Must be called by the main thread: the parent-death signal is tied to the thread that forks. Raises NotStarted.
    """
    error_read, error_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if owner is not None:
                accounts.become_owner(owner)
            # After that, because a change of the user takes it back.
            _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(137)  # the sidecar died between the fork and the line above
            for name in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(name, signal.SIG_DFL)
            os.chdir(workdir)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.execvpe(command[0], list(command), dict(env))  # noqa: S606 - a list of arguments, no shell sees them
        except OSError as error:
            os.write(error_write, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(error_write)
    with os.fdopen(error_read, "rb") as pipe:
        failed = pipe.read()  # ends when exec closes the other end
    if not failed:
        return pid
    os.waitpid(pid, 0)
    number = int(failed)
    if number in (errno.ENOENT, errno.ENOTDIR):
        raise NotStarted(127, "CommandNotFound", f"{command[0]}: command not found")
    raise NotStarted(126, "CommandNotExecutable", f"{command[0]}: {os.strerror(number)}")


def exit_code(status: int) -> int:
    """The exit code of a wait status; a signal counts as 128 + its number, as in shells."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
    except OSError:
        pass  # it has ended, and its children have another parent now
    return found


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``, parents before children. May miss one that is just forked or reparented: repeat until empty."""
    found = children(pid)
    for child in found:
        found.extend(children(child))
    return found


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        pass


def reap() -> tuple[dict[int, int], bool]:
    """Exit codes by pid of the children that ended, and whether any child is left."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended[pid] = exit_code(status)


def resident_bytes(pids: Sequence[int]) -> int:
    """Resident bytes of all of them; a shared page counts once for each process. Cheap, and never too small."""
    pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                pages += int(file.read().split()[1])
        except (OSError, IndexError):
            continue
    return pages * PAGE


def proportional_bytes(pids: Sequence[int], owner: Account | None = None) -> int:
    """Proportional set size of all of them; a page shared by n processes counts 1/n. Exact, but slow for large processes.

    One that hides itself from us (PR_SET_DUMPABLE) counts with all that it has resident. ``owner``: whose they are.
    """
    total = 0
    with accounts.acting_as(owner):
        for pid in pids:
            try:
                with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                    total += sum(int(line.split()[1]) for line in file if line.startswith(b"Pss:")) * 1024
            except PermissionError:
                total += resident_bytes([pid])
            except OSError:
                continue
    return total
