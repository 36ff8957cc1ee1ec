"""The pod's processes: starting the main command, finding what it left, how much memory it holds, ending all of it.

The sidecar is a subreaper: whoever detaches himself (double fork, setsid) becomes its child again, so "no child left" means
that nothing of the pod is alive. The main command dies with the sidecar by the kernel's parent-death signal, the others by its
keeper.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Mapping, Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)


class NotStarted(Exception):
    """The main command could not be executed; ``exit_code`` and ``reason`` are what the pod ends with."""

    def __init__(self, exit_code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.reason = reason


def become_subreaper() -> None:
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def show_as(*words: str) -> None:
    """In the place of our command line, as far as it has room: `ps` and `pgrep -f` tell processes of one program apart by it."""
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    begin, end = map(int, stat[stat.rindex(b")") + 2 :].split()[45:47])
    title = b"\0".join(word.encode(errors="surrogateescape") for word in words)[: end - begin - 1]
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, title, len(title))


def start(command: Sequence[str], env: Mapping[str, str], workdir: str, output: int) -> int:
    """Executes ``command`` in its own session with ``output`` as stdout and stderr; returns its pid once it is executed.

    Must be called by the main thread: the parent-death signal is tied to the thread that forks. Raises NotStarted.
    """
    told, tell = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
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
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        failed = pipe.read()  # ends when exec closes the other end
    if not failed:
        return pid
    os.waitpid(pid, 0)
    number = int(failed)
    if number in (errno.ENOENT, errno.ENOTDIR):
        raise NotStarted(127, "CommandNotFound", f"{command[0]}: command not found")
    raise NotStarted(126, "CommandNotExecutable", f"{command[0]}: {os.strerror(number)}")


def exit_code(status: int) -> int:
    """Of a wait status; a signal counts as 128 + its number, as shells have it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(map(int, file.read().split()))
    except OSError:
        pass  # it ended meanwhile, and its children are somebody else's now
    return found


def descendants(pid: int) -> list[int]:
    """All below ``pid``, parents before children. May miss one that is being born or handed on: ask again until it is empty."""
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


def resident(pids: Sequence[int]) -> int:
    """Bytes resident in all of them, shared pages counted once for each: cheap, and never too small."""
    pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                pages += int(file.read().split()[1])
        except (OSError, IndexError):
            continue
    return pages * PAGE


def proportional(pids: Sequence[int]) -> int:
    """Bytes in all of them, a page that n processes share counted as an n-th: exact, and slow for large processes."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith(b"Pss:")) * 1024
        except OSError:
            continue
    return total
