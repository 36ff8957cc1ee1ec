"""Connections of those who have no token: many that stay silent, and requests that never become whole."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from urllib.parse import urlsplit

import psutil
import pytest

from tests.user_machine import CONFIG, UserMachine, made_machine
from tuttilab.scheduler.api.connections import HEAD_BYTES
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

FILES = 400
ANSWER_S = 40.0


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMachine]:
    """A machine whose control plane may open few files, and is started with a lower limit still."""
    with made_machine(tmp_path_factory.mktemp("narrow")) as machine:
        config = machine.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        up = [sys.executable, "-m", "tuttilab.scheduler.cli", "up", "--config", str(config)]
        limited = ["sh", "-c", f'ulimit -S -n 128 && ulimit -H -n {FILES} && exec "$@"', "sh", *up]
        subprocess.run(limited, env=machine.environ, cwd=machine.home, check=True, timeout=60, capture_output=True)
        yield machine


def connected(machine: UserMachine) -> socket.socket:
    parts = urlsplit(machine.runtime().url)
    return socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_S)


def host(machine: UserMachine) -> str:
    return urlsplit(machine.runtime().url).netloc


def works(machine: UserMachine) -> None:
    runtime = machine.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        job = client.submit(JobRequest(name="honest", pods=(PodRequest(cpus="100m", memory="64Mi"),), command=("echo", "hello")))
        assert client.wait(job.id, timeout_s=150).phase == "Succeeded"
        assert client.logs(job.id).lines == ("hello",)


def test_silent_connections_shut_nobody_out(narrow: UserMachine) -> None:
    process = psutil.Process(narrow.runtime().pid)
    assert process.rlimit(resource.RLIMIT_NOFILE) == (FILES, FILES)

    with ExitStack() as silent:
        # All at once: the control plane finds them in its queue.
        process.suspend()
        for _ in range(3 * FILES):
            silent.enter_context(connected(narrow))
        process.resume()
        works(narrow)
        assert process.num_fds() < FILES - 50

    log = (narrow.state / "control.log").read_text()
    assert log.count("connections are open, as many as") == 1
    assert "Traceback" not in log
    assert "out of system resource" not in log
    assert len(log) < 20_000


def test_connections_that_ask_and_stay_shut_nobody_out(narrow: UserMachine) -> None:
    with ExitStack() as silent:
        for _ in range(2 * FILES):
            one = silent.enter_context(connected(narrow))
            # Whoever is closed for another one has asked for nothing.
            with suppress(OSError):
                one.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host(narrow)}\r\n\r\n".encode())
                one.recv(1000)
        works(narrow)


def test_no_connection_lasts_without_a_whole_request(narrow: UserMachine) -> None:
    beginnings = {
        "nothing": b"",
        "half a head": f"GET /healthz HTTP/1.1\r\nHost: {host(narrow)}\r\n".encode(),
        "a body of nobody": f"POST /api/v1/jobs HTTP/1.1\r\nHost: {host(narrow)}\r\nContent-Length: 1000000000\r\n\r\n".encode(),
        "half a second head": f"GET /healthz HTTP/1.1\r\nHost: {host(narrow)}\r\n\r\nGET /".encode(),
        "empty lines behind a request": f"GET /healthz HTTP/1.1\r\nHost: {host(narrow)}\r\n\r\n".encode(),
    }
    is_closed: dict[str, bool] = {}

    def stay(name: str, beginning: bytes) -> None:
        """Send a little now and then, which is no whole request, until the other side closes."""
        more = {"nothing": b"", "empty lines behind a request": b"\r\n"}.get(name, b"x")
        with connected(narrow) as connection, suppress(OSError):
            connection.sendall(beginning)
            connection.settimeout(1.0)
            is_closed[name] = False
            for _ in range(60):
                try:
                    if connection.recv(65536) == b"":
                        break
                except TimeoutError:
                    connection.sendall(more)
            else:
                return
        is_closed[name] = True

    threads = [threading.Thread(target=stay, args=item) for item in beginnings.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert is_closed == dict.fromkeys(beginnings, True)


def test_a_head_without_an_end_is_refused(narrow: UserMachine) -> None:
    with connected(narrow) as connection:
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host(narrow)}\r\n".encode())
        said = b""
        with suppress(ConnectionError):
            for number in range(HEAD_BYTES // 1000 + 1):
                connection.sendall(f"x-{number}: {'x' * 1000}\r\n".encode())
        with suppress(ConnectionError):
            said = connection.recv(65536)

    assert said.startswith(b"HTTP/1.1 431 ") or not said
    works(narrow)


def test_what_is_no_request_leaves_a_line_a_minute(narrow: UserMachine) -> None:
    before = len((narrow.state / "control.log").read_text())
    for _ in range(200):
        with connected(narrow) as connection:
            connection.sendall(b"\x16\x03\x01 what\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")

    assert (narrow.state / "control.log").read_text()[before:].count("Invalid HTTP request") <= 2
