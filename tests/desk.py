"""A user's machine for a test: a state folder of its own, the command line as a process, and nothing left running at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tuttilab.scheduler import discovery

TIMEOUT_S = 60.0

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


def eventually(is_so: Callable[[], object], limit_s: float = 20.0) -> Any:
    """The first true answer, within a deadline."""
    until = time.monotonic() + limit_s
    while not (answer := is_so()):
        if time.monotonic() > until:
            raise AssertionError(f"not so after {limit_s} s")
        time.sleep(0.05)
    return answer


def _hears_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Desk:
    """A user's machine as far as tuttilab goes: home, state folder, environment, the processes they started."""

    home: Path
    state: Path
    environ: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, *arguments: str, cwd: Path | None = None, timeout_s: float = TIMEOUT_S, **environ: str) -> Said:
        command = [sys.executable, "-m", "tuttilab.scheduler.cli", *arguments]
        done = subprocess.run(
            command, cwd=cwd or self.home, env={**self.environ, **environ}, capture_output=True, text=True, timeout=timeout_s
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuttilab.scheduler.cli", *arguments],
            cwd=cwd or self.home,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A suite started in the background hands down an ignored SIGINT, and a person's terminal does not.
            preexec_fn=_hears_ctrl_c,
        )
        self.started.append(process)
        return process

    def runtime(self) -> discovery.Runtime:
        runtime = discovery.find(self.state).runtime
        assert runtime is not None
        return runtime

    def processes(self) -> list[psutil.Process]:
        """Everything that runs because of this state folder: it or a file below is in the command line or the environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                texts = [*process.cmdline(), *process.environ().values()]
                is_gone = process.status() == psutil.STATUS_ZOMBIE
                if process.pid != os.getpid() and not is_gone and any(str(self.state) in text for text in texts):
                    found.append(process)
        return found


@contextmanager
def made_desk(folder: Path) -> Iterator[Desk]:
    home = folder / "home"
    home.mkdir()
    state = folder / "state"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TUTTILAB_", "JUPYTER", "XDG_"))}
    desk = Desk(home, state, {**kept, "HOME": str(home), "TUTTILAB_STATE_DIR": str(state)})
    try:
        yield desk
    finally:
        for process in desk.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for left in desk.processes():
            with suppress(psutil.Error):
                left.send_signal(signal.SIGKILL)
