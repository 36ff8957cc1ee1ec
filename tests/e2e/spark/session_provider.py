"""A provider for tests: each session is a folder and a real server process, without a control plane in between.

Two processes with the same root see the same sessions, so that a test can kill one kernel and ask another.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tuttilab.magics.spark.session import SessionRequest, SparkEndpoint, SparkSessionInfo

START_S = 120.0


class FolderProvider:
    """Implements SessionProvider; `environ` is what the servers are started with."""

    def __init__(self, root: Path, environ: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.environ = dict(os.environ if environ is None else environ)
        self.requests: dict[str, SessionRequest] = {}

    def endpoint(self, name: str, on_wait: Callable[[str], None]) -> SparkEndpoint:
        if not self._is_alive(name):
            return self.start(name, SessionRequest(), on_wait)
        return self._read(name)

    def start(self, name: str, request: SessionRequest, on_wait: Callable[[str], None]) -> SparkEndpoint:
        self.stop(name)
        folder = self.root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.requests[name] = request
        token = folder / "spark-token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_urlsafe(32))
        spec = {
            "cores": request.cores or 2,
            "memory_bytes": 2 * 1024**3,
            "conf": dict(request.conf),
            "idle_s": request.idle_s,
            "ui": request.ui,
        }
        environ = self.environ | {
            "TUTTILAB_SPARK_SPEC": json.dumps(spec),
            "TUTTILAB_SECRETS_DIR": str(folder),
            "TUTTILAB_ENDPOINTS": str(folder / "endpoints.json"),
        }
        on_wait("starting: the session's process comes up")
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tuttilab.scheduler.spark.server"],
                cwd=folder, env=environ, stdin=subprocess.DEVNULL, stderr=log, stdout=log, start_new_session=True,
            )  # fmt: skip
        (folder / "pid").write_text(str(process.pid))
        (folder / "job").write_text(f"job-{secrets.token_hex(4)}")
        deadline = time.monotonic() + START_S
        while not (folder / "endpoints.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.05)
        return self._read(name)

    def list(self) -> list[SparkSessionInfo]:
        found = []
        for folder in sorted(self.root.iterdir()):
            name = folder.name
            phase = "running" if self._is_alive(name) else "ended"
            reason = "" if phase == "running" else (folder / "log").read_text().strip().rpartition("\n")[2]
            request = self.requests.get(name, SessionRequest())
            file = folder / "endpoints.json"
            ui = json.loads(file.read_text()).get("ui") if file.exists() else None
            found.append(SparkSessionInfo(name, (folder / "job").read_text(), phase, reason, request, None, ui))
        return found

    def stop(self, name: str) -> None:
        if self._is_alive(name):
            os.kill(self.pid(name), signal.SIGTERM)
            deadline = time.monotonic() + 60
            while self._is_alive(name):
                assert time.monotonic() < deadline, f"session {name} does not end"
                time.sleep(0.05)

    def is_live(self, endpoint: SparkEndpoint) -> bool:
        return self._is_alive(endpoint.name)

    def wait_for_end(self, endpoint: SparkEndpoint, is_enough: threading.Event) -> bool:
        while not is_enough.wait(0.1):
            if not self._is_alive(endpoint.name):
                return True
        return False

    def why_ended(self, job_id: str) -> str:
        return next((f"ended ({info.reason})" for info in self.list() if info.job_id == job_id), "ended")

    def stop_all(self) -> None:
        for folder in self.root.iterdir():
            self.stop(folder.name)

    def logs(self, name: str, lines: int) -> str:
        return "\n".join((self.root / name / "log").read_text().splitlines()[-lines:])

    def pid(self, name: str) -> int:
        return int((self.root / name / "pid").read_text())

    def _read(self, name: str) -> SparkEndpoint:
        folder = self.root / name
        host, _, port = json.loads((folder / "endpoints.json").read_text())["connect"].rpartition(":")
        return SparkEndpoint(host, int(port), (folder / "spark-token").read_text(), (folder / "job").read_text(), name)

    def _is_alive(self, name: str) -> bool:
        try:
            state = Path(f"/proc/{self.pid(name)}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"
