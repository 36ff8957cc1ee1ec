"""The processes of a test cluster: started with a log each, ended with the test process however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

TAIL_CHARACTERS = 3000


class ProcessEnded(Exception):
    """A server ended though nobody stopped it; says the end of its log."""


def _be_as_nice_as_this_session(pid: int) -> None:
    """Linux groups processes by session where it may, and the niceness of a process counts only within its group."""
    with suppress(OSError):
        niceness = Path("/proc/self/autogroup").read_text(encoding="ascii").rpartition(" ")[2].strip()
        Path(f"/proc/{pid}/autogroup").write_text(niceness, encoding="ascii")


class Processes:
    """Processes by name, their logs in ``folder``. Each gets a SIGKILL from the kernel when this process dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # The kernel's signal comes when the thread that started the process ends, so it is one that lives as long as we do.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="kube-processes")

    def start(self, name: str, *argv: str | Path, environment: Mapping[str, str] | None = None) -> None:
        assert name not in self._running, f"{name} runs already"
        command = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)]
        settings = {**os.environ, **(environment or {})}

        def start() -> subprocess.Popen[bytes]:
            with self.log(name).open("ab") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=settings, start_new_session=True
                )
            _be_as_nice_as_this_session(process.pid)
            return process

        self._running[name] = self._starter.submit(start).result()

    def stop(self, name: str) -> None:
        """Kill it: what a test cluster knows is thrown away, so nothing has to end well. No error when it does not run."""
        process = self._running.pop(name, None)
        if process is not None:
            below = _below(process.pid)
            process.kill()
            process.wait(150)
            # A node's processes end with its first one; who has to bury them is no concern of ours.
            eventually(f"the processes of {name} are gone", lambda: all(map(_is_gone, below)), 150, every_s=0.01)

    def pause(self, name: str) -> None:
        """It stands still: connections stay open, nothing is answered."""
        self._running[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._running[name].send_signal(signal.SIGCONT)

    def stop_all(self) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)
        self._starter.shutdown()

    def names(self) -> list[str]:
        return list(self._running)

    def is_running(self, name: str) -> bool:
        return name in self._running and self._running[name].poll() is None

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def check(self) -> None:
        """ProcessEnded when one of them ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise ProcessEnded(f"{name} ended with {process.returncode}:\n{tail(self.log(name))}")

    def wait_for(self, what: str, is_so: Callable[[], bool], limit_s: float = 240.0, every_s: float = 0.05) -> None:
        """Until ``is_so``; a refused connection counts as not yet."""

        def ask() -> bool:
            self.check()
            return is_so()

        eventually(what, ask, limit_s, every_s)

    def memory_mib(self) -> dict[str, float]:
        """What each of them has in memory, its children included."""
        return {name: _resident(process.pid) / 2**20 for name, process in self._running.items() if process.poll() is None}


def _below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _resident(pid: int) -> int:
    total = 0
    for process in (psutil.Process(pid), *_below(pid)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def eventually(what: str, is_so: Callable[[], bool], limit_s: float = 240.0, every_s: float = 0.05) -> float:
    """The seconds until ``is_so`` said yes; TimeoutError after ``limit_s``. What cannot be reached yet says no."""
    began = time.monotonic()
    problem: Exception | None = None
    while True:
        try:
            if is_so():
                return time.monotonic() - began
        except OSError as error:
            problem = error
        if time.monotonic() - began > limit_s:
            raise TimeoutError(f"not within {limit_s:.0f} s: {what}" + (f" ({problem})" if problem else ""))
        time.sleep(every_s)


def tail(path: Path, characters: int = TAIL_CHARACTERS) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - characters))
        return file.read().decode(errors="replace")
