"""Requests that try to keep the control plane from answering others: bodies that nobody may send, and bodies that are too much."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler.api.watchers import MOST_WATCHERS
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

V = "/api/v1"
MIB = 2**20
ANSWER_S = 120.0
CLAIM = "?job_id=abcdef&attempt=1&epoch=1"


@pytest.fixture
def web(attacked: UserMachine) -> Iterator[httpx.Client]:
    runtime = attacked.runtime()
    headers = {"Authorization": f"Bearer {runtime.token}"}
    with httpx.Client(base_url=runtime.url, headers=headers, trust_env=False, timeout=ANSWER_S) as web:
        yield web


def answer_to_head(attacked: UserMachine, method: str, path: str, token: str, length: int) -> tuple[int, str]:
    """Status and text of the answer to a request of which only the head is sent, and of its body nothing."""
    parts = urlsplit(attacked.runtime().url)
    with socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_S) as connection:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
        )
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, answer.read().decode()


def works(attacked: UserMachine) -> None:
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        job = client.submit(JobRequest(name="honest", pods=(PodRequest(cpus="100m", memory="64Mi"),), command=("true",)))
        assert client.wait(job.id, timeout_s=150).phase == "Succeeded"


def memory_of(attacked: UserMachine) -> int:
    return int(psutil.Process(attacked.runtime().pid).memory_info().rss)


def test_no_route_reads_a_body_before_it_knows_who_sends_it(attacked: UserMachine, web: httpx.Client) -> None:
    document: dict[str, Any] = web.get(f"{V}/openapi.json").json()
    routes = [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in document["paths"].items()
        for method in methods
        if method in ("post", "put", "patch", "delete")
    ]

    answers = {
        (method, path): answer_to_head(attacked, method, path + claim, "0a.0.pod", MIB)[0]
        for method, path in routes
        for claim in (("", CLAIM) if "/pods/" in path else ("",))
    }

    assert {route: status for route, status in answers.items() if status != 401} == {}
    assert len(answers) > 20


def test_a_report_of_nobody_costs_nothing(attacked: UserMachine, web: httpx.Client) -> None:
    body = b'{"members": [' + b"{}," * (MIB // 3) + b"{}]}"
    before = memory_of(attacked)

    answers = {web.post(f"{V}/pods/report{CLAIM}", content=body).status_code for _ in range(5)}

    assert answers == {401}
    assert memory_of(attacked) - before < 100 * MIB
    works(attacked)


WIDE: dict[str, tuple[str, bytes, str]] = {
    "pods": ("jobs", b'{"pods": [' + b"1," * (MIB // 4) + b"1]}", "pods[0]: input should be an object"),
    "many pods": ("jobs", b'{"pods": [' + b"{}," * (MIB // 4) + b"{}]}", "pods: more than 256 are given"),
    "unknown keys": ("jobs", json.dumps({f"k{n}": 1 for n in range(50_000)}).encode(), "unknown key k0"),
    "env": ("jobs", json.dumps({"env": {f"k{n}": 1 for n in range(50_000)}}).encode(), "env.k0: input should be a valid string"),
    "a large env": ("jobs", json.dumps({"env": {f"k{n}": "" for n in range(50_000)}}).encode(), "env: more than 2000 are given"),
    "command": ("jobs", b'{"command": [' + b'"a",' * (MIB // 5) + b'"a"]}', "command: more than 16384 are given"),
    "labels": ("jobs", json.dumps({"labels": {f"k{n}": "" for n in range(65)}}).encode(), "labels: more than 64 are given"),
    "after": ("jobs", json.dumps({"after": ["a"] * 1001}).encode(), "after: more than 1000 are given"),
    "lists in a name": ("jobs", b'{"name": [' + b"[]," * (MIB // 4) + b"[]]}", "name: input should be a valid string"),
    "nesting": ("jobs", b"[" * MIB, "input should be an object"),
    "a batch": ("jobs:batch", b'{"jobs": [' + b"1," * (10 * MIB) + b"1]}", "jobs[0]: input should be an object"),
    "a large batch": ("jobs:batch", b'{"jobs": [' + b"{}," * (7 * MIB) + b"{}]}", "jobs: more than 10000 are given"),
    "wide jobs": ("jobs:batch", b'{"jobs": [{"pods": [' + b"{}," * (7 * MIB) + b"{}]}]}", "jobs[0].pods: more than 256 are given"),
    "keys": ("jobs:batch", b'{"jobs": [], "keys": [' + b'"",' * (7 * MIB) + b'""]}', "keys: more than 10000 are given"),
    "nodes": ("dags", b'{"name": "d", "nodes": [' + b"{}," * (2 * MIB) + b"{}]}", "nodes[0].name: field required"),
    "variables": (
        "runs",
        b'{"variables": {' + b'"a": [],' * (MIB // 2) + b'"a": 1}}',
        "variables.a: input should be a valid string",
    ),
    "a number of broken bytes": ("jobs", b'{"priority": 7e' + b"\xf0\x9f" * 500 + b"}", "priority: the number 7e"),
    "a large number": ("jobs", b'{"priority": 1' + b"0" * 5000 + b"}", "priority: the number 1000"),
}


@pytest.mark.parametrize(("path", "body", "sentence"), WIDE.values(), ids=WIDE)
def test_a_wide_body_is_refused_for_its_first_fault(
    attacked: UserMachine, web: httpx.Client, path: str, body: bytes, sentence: str
) -> None:
    before = memory_of(attacked)

    answer = web.post(f"{V}/{path}", content=body)

    assert (answer.status_code, answer.json()["type"]) == (400, "bad-input"), answer.text
    assert sentence in answer.json()["detail"]
    assert len(answer.content) < 1000
    assert memory_of(attacked) - before < 200 * MIB


LIMITS = {"jobs": 1, "jobs:dryrun": 1, "jobs:batch": 32, "dags": 8, "runs": 8, "profiles": 1, "spark/sessions": 1, "shutdown": 1}


@pytest.mark.parametrize(("path", "mebibytes"), LIMITS.items())
def test_a_body_that_says_it_is_too_large_is_not_waited_for(attacked: UserMachine, path: str, mebibytes: int) -> None:
    said = answer_to_head(attacked, "POST", f"{V}/{path}", attacked.runtime().token, mebibytes * MIB + 1)

    assert said[0] == 413
    assert f"expected at most {mebibytes * MIB}" in said[1]


def test_a_body_that_does_not_say_how_large_it_is_is_read_up_to_the_limit(attacked: UserMachine, web: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * (MIB // 10)

    try:
        status = web.post(f"{V}/jobs", content=endless()).status_code
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        status = 413  # the control plane has answered and closed before all was sent, and the answer may be lost with that
    assert status == 413
    works(attacked)


def log_of(attacked: UserMachine) -> str:
    return (attacked.state / "control.log").read_text()


def test_bodies_that_break_off_leave_a_line_and_not_a_page_each(attacked: UserMachine) -> None:
    before = len(log_of(attacked))
    parts, token = urlsplit(attacked.runtime().url), attacked.runtime().token
    for _ in range(20):
        for path in ("jobs", "artifacts/" + "a" * 64):
            with socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_S) as connection:
                method = "POST" if path == "jobs" else "PUT"
                head = f"{method} {V}/{path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
                connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    eventually(lambda: "went away" in log_of(attacked)[before:])
    works(attacked)

    added = log_of(attacked)[before:]
    assert added.count("went away") <= 2
    assert "Traceback" not in added
    assert "broke" not in added


HUGE = ("9" * 19, "9" * 30, "9" * 5000, "1e3", "-" + "9" * 30, "\u0663", "")
LARGEST = str(2**63 - 1)


def test_no_number_of_an_address_breaks_a_route(attacked: UserMachine, web: httpx.Client) -> None:
    document: dict[str, Any] = web.get(f"{V}/openapi.json").json()
    job = web.post(f"{V}/jobs", json={"command": ["true"], "pods": [{"cpus": "100m", "memory": "64Mi"}]}).json()["id"]
    numbers = {
        (path, parameter["name"])
        for path, methods in document["paths"].items()
        for parameter in methods.get("get", {}).get("parameters", ())
        if parameter["in"] == "query" and "integer" in json.dumps(parameter["schema"])
    }
    needed = {"/upload": {"size": 1}}

    answers = {
        (path, name, value[:40]): web.get(
            path.replace("{job_id}", job).replace("{artifact_id}", "a" * 64).replace("{name}", "x"),
            params={**next((more for end, more in needed.items() if path.endswith(end)), {}), name: value},
        ).status_code
        for path, name in numbers
        for value in (*HUGE, LARGEST)
        if "/pods/" not in path
    }

    assert {what: status for what, status in answers.items() if status != 400 and what[2] != LARGEST} == {}
    assert {what: status for what, status in answers.items() if status >= 500} == {}
    assert len(answers) > 50


@pytest.mark.parametrize("event_id", [b"9" * 5000, b"9" * 19, b"x", "٣".encode()])
def test_an_id_of_no_event_is_refused_by_its_name(attacked: UserMachine, web: httpx.Client, event_id: bytes) -> None:
    answer = web.get(f"{V}/changes", headers={b"Accept": b"text/event-stream", b"Last-Event-ID": event_id})

    assert (answer.status_code, answer.json()["type"]) == (400, "bad-input")
    assert answer.json()["detail"].startswith("header: last-event-id: ")


def test_a_caller_has_so_many_watchers_and_others_are_served_meanwhile(attacked: UserMachine, web: httpx.Client) -> None:
    parts, token = urlsplit(attacked.runtime().url), attacked.runtime().token
    head = f"GET {V}/changes HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
    with ExitStack() as watchers:
        streams = []
        for _ in range(MOST_WATCHERS):
            stream = watchers.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_S))
            stream.sendall(head.encode())
            streams.append(stream)
        assert {stream.recv(4096)[:12] for stream in streams} == {b"HTTP/1.1 200"}

        refused = web.get(f"{V}/changes", headers={"Accept": "text/event-stream"})
        assert (refused.status_code, refused.json()["type"], refused.headers["retry-after"]) == (429, "too-many", "1")
        assert f"{MOST_WATCHERS} times at once" in refused.json()["detail"]
        assert web.get(f"{V}/changes", params={"since": 0}).status_code == 200
        web.post(f"{V}/jobs", json={"command": ["true"], "pods": [{"cpus": "100m", "memory": "64Mi"}]})
        for stream in streams:
            seen = b""
            while b"JobSubmitted" not in seen:
                seen += stream.recv(65536)
    since = web.get(f"{V}/changes").json()["seq"]
    eventually(lambda: web.get(f"{V}/changes", params={"since": since, "wait": 0.1}).status_code == 200)
