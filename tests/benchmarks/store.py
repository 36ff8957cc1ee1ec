"""`python -m tests.benchmarks.store`: what the database costs, on SQLite and on Postgres, each figure beside its limit.

First the store alone. Then a control plane of its own as a process, asked over REST by clients in this one; all jobs wait,
because another one takes half of the only node.
`--jobs 2000` measures with fewer; a part that takes longer than `--limit` seconds is cut off and says how far it came.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests import postgres
from tests.benchmarks import sidecars
from tests.benchmarks.figures import Figure, shown
from tests.contract.building import a_job, submitted
from tests.replicas import CONFIG
from tests.user_machine import eventually
from tuttilab.scheduler.client import AsyncClient, Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.server.replica import LEASE_S
from tuttilab.scheduler.store.base import IdempotencyKey
from tuttilab.scheduler.store.sql import SqlStore

CLIENTS = 8
PROBES = 200
HEARD_S = 20.0
WAITING = JobRequest(name="waits", pods=(PodRequest(role="worker", count=2, cpus=1, memory="256Mi"),), command=("sleep", "9"))
"""Two pods of one CPU, on a node that has two, one of which `Plane.occupy` takes."""


class Plane:
    """A control plane on ``url`` that can be killed and started again on the same state."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self._config = folder / "tuttilab.yaml"
        (folder / "key").write_bytes(b"k" * 32)
        self._config.write_text(CONFIG.format(url=url, key=folder / "key"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds until it is ready, which is after its first decision."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "tuttilab.scheduler.server.serve", "--config", str(self._config)]
        self.process = subprocess.Popen(command, env={**os.environ, "TUTTILAB_STATE_DIR": str(self.folder / "state")})
        eventually(lambda: (found := discovery.find(self.folder / "state").runtime) and found.pid == self._pid, 120.0)
        return time.perf_counter() - began

    def occupy(self) -> None:
        """Start a job on one of the two CPUs, so that others wait."""
        runtime = self.runtime()
        with Client(runtime.url, runtime.token) as client:
            job = client.submit(JobRequest(name="runs", pods=(PodRequest(cpus=1, memory="256Mi"),), command=("sleep", "100000")))
            eventually(lambda: client.job(job.id).phase == "Running", 60.0)

    @property
    def _pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def runtime(self) -> discovery.Runtime:
        found = discovery.find(self.folder / "state").runtime
        assert found is not None
        return found

    @property
    def store_url(self) -> str:
        """For a store of the test's own, while the service does not run."""
        return self.url.replace("sqlite:///", f"sqlite:///{self.folder / 'state'}/")

    def cpu_s(self) -> float:
        used = psutil.Process(self._pid).cpu_times()
        return float(used.user + used.system)

    def rss(self) -> float:
        return float(psutil.Process(self._pid).memory_info().rss) / 2**20

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def planes(folder: Path, only: str | None) -> Iterator[list[tuple[str, Plane]]]:
    with contextlib.ExitStack() as stack:
        found = []
        if only in (None, "sqlite"):
            (folder / "sqlite").mkdir()
            found.append(("SQLite", Plane(folder / "sqlite", "sqlite:///state.db")))
        if only in (None, "postgres") and postgres.can_run():
            (folder / "postgres").mkdir()
            server = stack.enter_context(postgres.running_postgres())
            found.append(("Postgres", Plane(folder / "postgres", server.url(server.new_database()))))
        for _, plane in found:
            stack.callback(plane.kill)
        yield found


async def one_by_one(plane: Plane, jobs: int, limit_s: float) -> tuple[float, list[float]]:
    """Seconds until all were acknowledged, and of each how long it took."""
    numbers, times = iter(range(jobs)), list[float]()
    began = time.perf_counter()

    async def client() -> None:
        connection = AsyncClient(plane.runtime().url, plane.runtime().token, timeout_s=120.0)
        for number in numbers:
            sent = time.perf_counter()
            if sent - began > limit_s:
                break
            await connection.submit(WAITING, key=f"one-{number}")
            times.append(time.perf_counter() - sent)
        await connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return time.perf_counter() - began, times


async def in_batches(plane: Plane, jobs: int, size: int = 1000) -> float:
    connection = AsyncClient(plane.runtime().url, plane.runtime().token, timeout_s=300.0)
    began = time.perf_counter()
    for start in range(0, jobs, size):
        await connection.submit_many([WAITING] * min(size, jobs - start))
    took = time.perf_counter() - began
    await connection.close()
    return took


async def probes(plane: Plane) -> list[float]:
    """One client, one submit after the other, while all others wait in their queue."""
    connection = AsyncClient(plane.runtime().url, plane.runtime().token, timeout_s=120.0)
    times = []
    for number in range(PROBES):
        sent = time.perf_counter()
        await connection.submit(WAITING, key=f"probe-{number}")
        times.append(time.perf_counter() - sent)
        if sum(times) > 120:
            break
    await connection.close()
    return times


def p99(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def measure_waiting(name: str, plane: Plane, jobs: int, _limit_s: float) -> Iterator[Figure]:
    plane.start()
    plane.occupy()
    before = plane.cpu_s()
    took = asyncio.run(in_batches(plane, jobs))
    note = f"one client; {plane.cpu_s() - before:.1f} s of CPU in the service"
    yield Figure(f"{name}: {jobs} submits in batches of 1000", took, 3.0 * jobs / 10_000, note)
    times = asyncio.run(probes(plane))
    note = f"median {shown(statistics.median(times))} of {len(times)}"
    yield Figure(f"{name}: acknowledged submit, {jobs} waiting, p99", p99(times), 0.2, note)
    yield Figure(f"{name}: RSS with {jobs} waiting", plane.rss(), 512, "limit of the whole service", "MiB")
    yield from measure_recovery(name, plane, f"{jobs} waiting jobs")
    plane.kill()


def measure_recovery(name: str, plane: Plane, what: str) -> Iterator[Figure]:
    """Killed and started again; on Postgres the lease of the one that was killed has to run out."""
    plane.kill()
    note = "process start included" + ("" if name == "SQLite" else f", and the lease of the one that was killed ({LEASE_S:.0f} s)")
    yield Figure(f"{name}: recovery of {what}", plane.start(), 5.0, note)


def measure_one_by_one(name: str, plane: Plane, jobs: int, limit_s: float) -> Iterator[Figure]:
    plane.start()
    plane.occupy()
    before = plane.cpu_s()
    took, times = asyncio.run(one_by_one(plane, jobs, limit_s))
    note = f"{CLIENTS} clients, {len(times) / took:.0f}/s, p99 {shown(p99(times))}"
    note += f", {(plane.cpu_s() - before) / len(times) * 1000:.2f} ms of CPU each in the service"
    if len(times) < jobs:
        note += f"; cut off after {len(times)}, and reckoned up"
    yield Figure(f"{name}: {jobs} submits one by one", took / len(times) * jobs, 30.0 * jobs / 10_000, note)
    plane.kill()


def measure_sidecars(name: str, plane: Plane, jobs: int, _limit_s: float) -> Iterator[Figure]:
    """Gangs of a hundred, whose masters report."""
    yield from _beating(name, plane, jobs // 100, 100, f"{jobs} side-cars in gangs of 100")


def measure_single_sidecars(name: str, plane: Plane, jobs: int, _limit_s: float) -> Iterator[Figure]:
    """Jobs of one pod, which nobody speaks for."""
    yield from _beating(name, plane, jobs, 1, f"{jobs} side-cars of jobs of one pod")


def _beating(name: str, plane: Plane, jobs: int, pods_each: int, what: str) -> Iterator[Figure]:
    attempts = asyncio.run(sidecars.fill(plane.store_url, jobs, pods_each))
    note = "process start included"
    yield Figure(f"{name}: start with {jobs} running jobs, {pods_each} pods each", plane.start(), 5.0, note)
    url = plane.runtime().url
    senders = sidecars.reporters(attempts, url, plane.folder / "key")
    period_s = asyncio.run(sidecars.asked_period(senders[0], url))
    before = plane.cpu_s()
    refused, times = asyncio.run(sidecars.beat(senders, url, period_s, HEARD_S))
    cores = (plane.cpu_s() - before) / HEARD_S
    note = f"{len(times)} reports, {refused} refused, answered in p99 {shown(p99(times))}; RSS {plane.rss():.0f} MiB"
    yield Figure(f"{name}: {what}, asked to report each {period_s:g} s", cores, 0.5, note, "cores")
    plane.kill()


async def alone(name: str, url: str, jobs: int) -> list[Figure]:
    """The store without the service: what a commit costs, and what a start reads."""
    store = SqlStore(url)
    epoch = await store.open()
    singles, order = [], 0
    for order in range(1, 501):
        job = a_job(order)
        began = time.perf_counter()
        await store.commit(submitted(job, epoch=epoch, keys=(IdempotencyKey("ana", f"k{order}", "d", job.id),)))
        singles.append(time.perf_counter() - began)
    began = time.perf_counter()
    for start in range(order + 1, order + 1 + jobs, 1000):
        some = [a_job(number, id=f"{number:032x}") for number in range(start, start + 1000)]
        await store.commit(
            submitted(*some, epoch=epoch, keys=tuple(IdempotencyKey("ana", f"k{job.order}", "d", job.id) for job in some))
        )
    batches = time.perf_counter() - began
    began = time.perf_counter()
    loaded = await store.load()
    load = time.perf_counter() - began
    await store.close()
    return [
        Figure(f"{name} alone: a commit of one job, p99", p99(singles), 0.2, f"median {shown(statistics.median(singles))} of 500"),
        Figure(f"{name} alone: {jobs} jobs in commits of 1000", batches, 3.0 * jobs / 10_000, ""),
        Figure(f"{name} alone: loading {len(loaded.jobs)} live jobs", load, 5.0, ""),
    ]


def measure_alone(name: str, plane: Plane, jobs: int, _limit_s: float) -> Iterator[Figure]:
    yield from asyncio.run(alone(name, plane.store_url, jobs))


PARTS = {
    "alone": measure_alone,
    "waiting": measure_waiting,
    "one-by-one": measure_one_by_one,
    "sidecars": measure_sidecars,
    "single-sidecars": measure_single_sidecars,
}


def figures(
    jobs: int = 10_000, limit_s: float = 60.0, only: str | None = None, parts: Sequence[str] = tuple(PARTS)
) -> Iterator[Figure]:
    """Every part on a new database each."""
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="tuttilab-bench-") as folder, planes(Path(folder), only) as found:
            for name, plane in found:
                yield from PARTS[part](name, plane, jobs, limit_s)
    if not postgres.can_run() and only != "sqlite":
        sys.stdout.write("     Postgres: not measured, its programs are not here (apt-get install postgresql)\n")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=10_000)
    options.add_argument("--limit", type=float, default=60.0, help="seconds after which single submits are cut off")
    options.add_argument("--only", choices=["sqlite", "postgres"])
    options.add_argument("--part", choices=list(PARTS), action="append")
    given = options.parse_args()
    is_good = True
    for figure in figures(given.jobs, given.limit, given.only, given.part or tuple(PARTS)):
        sys.stdout.write(figure.line() + "\n")
        sys.stdout.flush()
        is_good = is_good and figure.is_within
    sys.stdout.write(f"     load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
