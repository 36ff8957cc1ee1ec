"""A user's machine for a test: its own state folder, the command line as a process, and no process left at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests import warm
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.runtime import discovery

TIMEOUT_S = 150.0

CONFIG = """
clusters:
  - name: here
    kind: local
    nodes:
      - {name: a, cpus: 4, memory: 8Gi, resources: {nvidia.com/gpu: 2}}
      - {name: b, cpus: 4, memory: 8Gi}
queues:
  - {name: root, max: {nvidia.com/gpu: 2}}
  - {name: research, parent: root, guaranteed: {nvidia.com/gpu: 1}, max: {nvidia.com/gpu: 2}}
  - {name: small, parent: root, max: {cpu: 1}}
defaults: {queue: research}
"""


def eventually(is_so: Callable[[], object], limit_s: float = 240.0) -> Any:
    """Poll ``is_so`` until it returns a true value, and return that. Raises AssertionError after ``limit_s``."""
    until = time.monotonic() + limit_s
    while True:
        # Whoever could not run for long looks once more after the limit.
        is_last = time.monotonic() > until
        if answer := is_so():
            return answer
        if is_last:
            raise AssertionError(f"not so after {limit_s} s")
        time.sleep(0.05)


def kill(pid: int) -> None:
    """SIGKILL, and the process is gone. It is looked up before: nobody could wait for one that has been reaped."""
    process = psutil.Process(pid)
    process.kill()
    process.wait(150)


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentences(self) -> list[str]:
        """The lines of standard error, but for what a busy machine adds: that an answer is being waited for."""
        return [line for line in self.err.splitlines() if " has not answered for " not in line]


@dataclass
class UserMachine:
    """A home, a state folder, an environment, and the processes started here."""

    home: Path
    state: Path
    environ: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    _client: tuple[discovery.Runtime, Client] | None = None

    def run(self, *arguments: str, cwd: Path | None = None, timeout_s: float = TIMEOUT_S, **environ: str) -> CommandResult:
        env = {**self.environ, **environ}
        if warm.fits(env):
            done = warm.run(arguments, cwd or self.home, env, timeout_s)
        else:
            command = [sys.executable, "-m", warm.MODULE, *arguments]
            done = subprocess.run(command, cwd=cwd or self.home, env=env, capture_output=True, text=True, timeout=timeout_s)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuttilab.scheduler.cli", *arguments],
            cwd=cwd or self.home,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def runtime(self) -> discovery.Runtime:
        runtime = self.find()
        assert runtime is not None
        return runtime

    def find(self) -> discovery.Runtime | None:
        """The control plane, while it runs."""
        return discovery.find(self.state).runtime

    def client(self) -> Client:
        """Of the control plane that runs. For polls: a command starts for half a second."""
        runtime = self.runtime()
        if self._client is None or self._client[0] != runtime:
            self.close_client()
            self._client = (runtime, Client(runtime.url, runtime.token))
        return self._client[1]

    def why_it_waits(self, job_id: str) -> str:
        """What `tuttilab explain JOB` says, or what its last attempt said while the next one starts; empty without a reason."""
        wait = self.client().explain(job_id)
        if wait is None:
            return self.client().job(job_id).reason
        return " ".join(filter(None, (wait.sentence, *wait.held_by, wait.basis)))

    def close_client(self) -> None:
        if self._client is not None:
            self._client[1].close()
            self._client = None

    def processes(self, part: str = "") -> list[psutil.Process]:
        """All processes with this state folder, or a path below it, in their command line or environment.

        ``part``: only those with that in a word of their command line. One that ends meanwhile is none.
        """
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                texts = [*words, *process.environ().values()]
                is_zombie = process.status() == psutil.STATUS_ZOMBIE
                is_meant = any(str(self.state) in text for text in texts) and (not part or any(part in word for word in words))
                if process.pid != os.getpid() and not is_zombie and is_meant:
                    found.append(process)
        return found

    def job_ids(self) -> list[str]:
        """Of all jobs. What else is told of a job may still change after it has ended."""
        return [job["id"] for job in self.run("jobs", "--all", "--json").json]


def hide_programs(machine: UserMachine, beginnings: Collection[str]) -> None:
    """Leave PATH with links to all of its programs but those, and take away the variables that lead to them."""
    links = machine.home.parent / "bin"
    links.mkdir()
    for folder in machine.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            if not program.name.startswith(tuple(beginnings)) and not (links / program.name).is_symlink():
                (links / program.name).symlink_to(program)
    machine.environ["PATH"] = str(links)
    for name in ("JAVA_HOME", "NODE_PATH"):
        machine.environ.pop(name, None)


@contextmanager
def made_machine(folder: Path) -> Iterator[UserMachine]:
    home = folder / "home"
    home.mkdir()
    state = folder / "state"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TUTTILAB_", "JUPYTER", "XDG_"))}
    machine = UserMachine(home, state, {**kept, "HOME": str(home), "TUTTILAB_STATE_DIR": str(state)})
    try:
        yield machine
    finally:
        machine.close_client()
        for process in machine.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for left in machine.processes():
            with suppress(psutil.Error):
                left.send_signal(signal.SIGKILL)
