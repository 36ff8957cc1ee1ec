"""When a sidecar reports: at once what is new, else as often as the control plane asks for. Against a real listener."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tuttilab.scheduler.service.heartbeats import next_report_s
from tuttilab.sidecar.heartbeat import Heartbeat, ReportUrl


@pytest.mark.parametrize(
    ("reporters", "heartbeat_s", "lost_after_s", "expected"),
    [(1, 5.0, 60.0, 5.0), (2_500, 5.0, 60.0, 5.0), (5_000, 5.0, 60.0, 10.0), (10_000, 5.0, 60.0, 20.0), (50_000, 5.0, 60.0, 20.0),
     (50_000, 5.0, 9.0, 5.0)],
)  # fmt: skip
def test_the_more_report_the_less_often_but_never_too_seldom(
    reporters: int, heartbeat_s: float, lost_after_s: float, expected: float
) -> None:
    assert next_report_s(reporters, heartbeat_s, lost_after_s) == expected


@dataclass
class Plane:
    """Receives reports with their times and answers ``reply``."""

    server: HTTPServer
    reply: dict[str, Any] = field(default_factory=lambda: {"stop": None})
    received: list[tuple[float, str]] = field(default_factory=list)

    def times(self, count: int, limit_s: float = 10.0) -> list[float]:
        until = time.monotonic() + limit_s
        while len(self.received) < count:
            assert time.monotonic() < until, f"{len(self.received)} of {count} reports came"
            time.sleep(0.005)
        return [at for at, _ in self.received[:count]]


@pytest.fixture
def plane() -> Iterator[Plane]:
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.received.append((time.monotonic(), body["state"]))
            answer = json.dumps(found.reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        found = Plane(server)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def beating(plane: Plane, period_s: float) -> Heartbeat:
    return Heartbeat(ReportUrl(f"http://127.0.0.1:{plane.server.server_port}"), "token", lambda reply: None, period_s=period_s)


def test_without_changes_the_period_is_the_one_of_the_answer(plane: Plane) -> None:
    plane.reply = {"stop": None, "next_s": 0.6}
    beat = beating(plane, 0.05)
    beat.start()
    beat.report({"state": "one"})
    first, second = plane.times(2)
    assert second - first >= 0.55
    # A change does not wait for it.
    beat.report({"state": "two"})
    third = plane.times(3)[2]
    assert third - second < 0.4
    assert [state for _, state in plane.received[:3]] == ["one", "one", "two"]
    # The period of one answer holds until the next answer only.
    plane.reply = {"stop": None}
    fourth, fifth = plane.times(5)[3:]
    assert fifth - fourth < 0.4
    beat.finish(1.0)


@pytest.mark.parametrize("asked", ["soon", -1, 0, True, None, [], float("nan"), 1e-9])
def test_a_period_that_is_none_changes_nothing(plane: Plane, asked: object) -> None:
    plane.reply = {"stop": None, "next_s": asked}
    beat = beating(plane, 0.05)
    beat.start()
    beat.report({"state": "one"})
    first, *_, last = plane.times(4)
    assert 0.1 <= last - first < 5.0
    beat.finish(1.0)
