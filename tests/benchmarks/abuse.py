"""What others wait while somebody abuses the control plane: a submit and a list, idle and under each abuse, in one run.

Beside the time it takes stands the CPU time that the control plane burns from a request to its answer: that counts on a machine
with other work too. The abuse comes from processes of their own, `python -m tests.benchmarks.abuse NAME URL TOKEN JOB`, which go on
until they are ended; they use the same cores. tests/attack shows that each of them hurts nothing; here is what it costs.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from tests.benchmarks.figures import Figure, shown
from tests.benchmarks.planes import control_plane
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.runtime import discovery

V: Final = "/api/v1"
SMALL: Final = (PodRequest(cpus="100m", memory="64Mi"),)
SETTLES_S: Final = 2.0
MOST_RATIO: Final = 2.0
"""Of others' p99 under wide JSON to idle."""
WIDE: Final = b'{"pods": [' + b"{}," * (2**20 // 4) + b"{}]}"
CLAIM: Final = "?job_id=abcdef&attempt=1&epoch=1"


@dataclass(frozen=True)
class Victim:
    url: str
    token: str
    job: str
    """A job whose log is a FIFO."""

    def connect(self) -> socket.socket:
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)

    def head(self, method: str, path: str, *lines: str) -> bytes:
        first = f"{method} {V}{path} HTTP/1.1"
        return "\r\n".join([first, "Host: x", f"Authorization: Bearer {self.token}", *lines, "", ""]).encode()

    def web(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url + V, headers=headers, trust_env=False, timeout=60)


def read_logs(victim: Victim) -> None:
    with victim.web() as web:
        while True:
            web.get(f"/jobs/{victim.job}/logs", params={"limit": 100})


def send_bodies_without_token(victim: Victim) -> None:
    with httpx.Client(base_url=victim.url + V, trust_env=False, timeout=60) as web:
        while True:
            with suppress(httpx.TransportError):  # answered and closed before all was sent
                web.post(f"/pods/report{CLAIM}", content=b'{"members": [' + b"{}," * 80_000 + b"{}]}")


def send_wide_json(victim: Victim) -> None:
    with victim.web() as web:
        while True:
            web.post("/jobs", content=WIDE)


def hold_connections(victim: Victim, count: int = 250) -> None:
    held: list[socket.socket] = []
    while True:
        while len(held) < count:
            held.append(victim.connect())
            held[-1].setblocking(False)
        for one in list(held):
            with suppress(BlockingIOError):
                # What can be read of a silent connection is that it was closed.
                with suppress(ConnectionError):
                    one.recv(4096)
                held.remove(one)
                one.close()
        time.sleep(0.1)


def watch_silently(victim: Victim, count: int = 64) -> None:
    held = []
    for _ in range(count):
        one = victim.connect()
        one.sendall(victim.head("GET", "/changes", "Accept: text/event-stream"))
        held.append(one)
    while True:
        for one in held:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.recv(65536)
        time.sleep(0.5)


def break_off(victim: Victim) -> None:
    while True:
        with victim.connect() as one:
            one.sendall(victim.head("POST", "/jobs", "Content-Length: 100") + b"{")


ABUSES: Final[dict[str, tuple[str, Callable[[Victim], None], int]]] = {
    "logs": ("12 readers of a log that is a FIFO", read_logs, 12),
    "tokenless": ("4 senders of 256 KiB without a token", send_bodies_without_token, 4),
    "wide": ("4 senders of 1 MiB of wide JSON", send_wide_json, 4),
    "idle": ("1,000 connections that ask for nothing", hold_connections, 4),
    "watchers": ("256 silent watchers", watch_silently, 4),
    "aborted": ("4 senders of bodies that break off", break_off, 4),
}


@contextmanager
def abused(name: str, victim: Victim) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.benchmarks.abuse", name, victim.url, victim.token, victim.job]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(SETTLES_S)
        assert process.poll() is None, f"the abuse {name} has ended by itself"
        yield
        assert process.poll() is None, f"the abuse {name} has ended by itself"
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Waits:
    """Of a request to its answer, in seconds; ``cpu`` is what all threads of the control plane ran meanwhile."""

    median: float
    p99: float
    cpu_median: float
    cpu_p99: float


def waits(call: Callable[[], object], rounds: int, pid: int) -> Waits:
    times, ran = [], []
    for _ in range(rounds):
        before, began = run_time(pid), time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
        ran.append(run_time(pid) - before)
    worst = [statistics.quantiles(each, n=100, method="inclusive")[-1] for each in (times, ran)]
    return Waits(statistics.median(times), worst[0], statistics.median(ran), worst[1])


def run_time(pid: int) -> float:
    """CPU seconds of all threads so far; `psutil` counts in steps of 10 ms."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e9


def others(client: Client, after: str, rounds: int, pid: int) -> dict[str, Waits]:
    """Of a caller with nothing else to do. Its jobs wait for one that does not end, so that none starts meanwhile."""
    request = JobRequest(name="bench", pods=SMALL, command=("true",), after=(after,))
    submits = waits(lambda: client.submit(request), rounds, pid)
    lists = waits(lambda: client.jobs(limit=50), rounds, pid)
    while jobs := client.jobs(text="bench", limit=200).jobs:
        for job in jobs:
            client.cancel(job.id)
    return {"submit": submits, "list": lists}


def figures(rounds: int = 100) -> Iterator[Figure]:
    """Prints a line for each abuse; those with a limit are figures too."""
    with control_plane() as (client, environ):
        fifo = client.submit(JobRequest(name="fifo", pods=SMALL, command=("sh", "-c", "rm ../log; mkfifo ../log; sleep 86400")))
        while client.job(fifo.id).phase != "Running":
            time.sleep(0.05)
        runtime = discovery.find(Path(environ["TUTTILAB_STATE_DIR"])).runtime
        assert runtime is not None
        victim = Victim(runtime.url, runtime.token, fifo.id)
        for name, (words, _, _) in ABUSES.items():
            idle = others(client, fifo.id, rounds, runtime.pid)
            with abused(name, victim):
                under = others(client, fifo.id, rounds, runtime.pid)
            for what in idle:
                before, now = idle[what], under[what]
                print(
                    f"     {what} beside {words}: p50 {shown(now.median)} ({now.median / before.median:.1f} x idle), "
                    f"p99 {shown(now.p99)} ({now.p99 / before.p99:.1f} x idle); CPU time p50 {shown(now.cpu_median)} "
                    f"({now.cpu_median / before.cpu_median:.1f} x idle), p99 {shown(now.cpu_p99)} "
                    f"({now.cpu_p99 / before.cpu_p99:.1f} x idle), of {rounds}",
                    flush=True,
                )
                if name == "wide":
                    yield Figure(
                        f"{what} beside wide JSON, p99 to idle", now.p99 / before.p99, MOST_RATIO, f"of {rounds}", unit="x"
                    )


def main(name: str, victim: Victim) -> None:
    _, abuse, count = ABUSES[name]
    threads = [threading.Thread(target=abuse, args=(victim,), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], Victim(*sys.argv[2:5]))
