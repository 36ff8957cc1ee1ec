"""Answers the kubelet: whether the barrier is open (start-up probe), and whether user code may go on (liveness probe)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED_PATH = "/started"
ALIVE_PATH = "/alive"


class ProbeServer(ThreadingHTTPServer):
    """Serves on all addresses of the pod, on a thread of its own: 200 for yes, 503 for no."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, answers: dict[str, Callable[[], bool]]) -> None:
        super().__init__(("", port), _Handler)
        self.answers = answers

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="probes", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: ProbeServer
    timeout = 5.0

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path)
        status = 404 if answer is None else 200 if answer() else 503
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent: a line a second would be all that the log has."""
