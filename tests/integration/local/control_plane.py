"""What a control plane is to pods: an address that takes reports, and may be away or come back at another port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tuttilab.sidecar.protocol import CLAIM

DEADLINE_S = 120.0


class ControlPlane:
    """``reports`` are the bodies that came; ``answer`` is what they get. The file names the present URL."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.reports: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.answer: dict[str, Any] = {"stop": None}
        self.status = 200
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self, port: int = 0) -> None:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                path, _, claim = self.path.partition("?")
                assert path == "/api/v1/pods/report"
                plane.tokens.add(self.headers["Authorization"])
                report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert dict(parse_qsl(claim)) == {key: str(report[key]) for key in CLAIM}
                plane.reports.append(report)
                body = json.dumps(plane.answer).encode()
                self.send_response(plane.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.file.write_text(json.dumps({"url": self.url}))

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def phases(self, pod: str) -> list[str]:
        """In order, without repeats."""
        seen: list[str] = []
        for report in list(self.reports):
            for member in report["members"]:
                if member["pod"] == pod and member["phase"] not in seen[-1:]:
                    seen.append(member["phase"])
        return seen

    def last(self, pod: str) -> dict[str, Any]:
        return next(m for report in reversed(self.reports) for m in report["members"] if m["pod"] == pod)

    def wait_for_phase(self, pod: str, phase: str) -> None:
        self.wait_for(lambda: phase in self.phases(pod))

    def wait_for(self, is_told: Callable[[], object]) -> None:
        until = time.monotonic() + DEADLINE_S
        while not is_told():
            assert time.monotonic() < until, f"not among the reports: {self.reports[-3:]}"
            time.sleep(0.01)
