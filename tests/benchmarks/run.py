"""`make bench`: the figures that the project states, measured on this machine in one run, each beside its limit or its peer.

Everything runs for real: a control plane of its own, processes as pods, a Spark session, the tour; the scheduling core runs on a
virtual clock. `--only WORD` runs a part.
A figure above its limit is marked; the exit code is 1 then. Timed assertions are nowhere else in the suite.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks import abuse, artifacts, cells, lab, policy, scheduling, spark_kernels, spark_proxy, store
from tests.benchmarks.figures import Figure, shown
from tests.benchmarks.notebooks import second_kernel_session_s, sparksql_overhead_s
from tests.benchmarks.planes import control_plane
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    *("jobs", "cells", "spark", "spark-proxy", "spark-kernels", "artifacts", "store", "scheduling", "policy", "panel", "abuse"),
    "demo",
)
SMALL = (PodRequest(cpus="500m", memory="256Mi"),)


def printed_time(client: Client, job: JobView) -> float:
    """What a job that prints the time of day as its first act printed."""
    done = client.wait(job.id, timeout_s=60)
    assert done.phase == "Succeeded", done.reason
    return float(client.logs(job.id).lines[0])


def submit_accepted(client: Client, rounds: int = 50) -> Figure:
    times = []
    request = JobRequest(name="bench", pods=SMALL, command=("true",))
    for _ in range(rounds):
        began = time.perf_counter()
        client.submit(request)
        times.append(time.perf_counter() - began)
    until_at_rest(client)
    worst = statistics.quantiles(times, n=20)[-1]
    return Figure("submit accepted", worst, 0.3, f"p95 of {rounds}, median {shown(statistics.median(times))}; jobs start meanwhile")


def until_at_rest(client: Client) -> None:
    while client.jobs(limit=1).jobs:
        time.sleep(0.05)


def submit_to_user_code(client: Client, rounds: int = 10) -> Figure:
    waits = []
    for _ in range(rounds):
        began = time.time()
        job = client.submit(JobRequest(name="bench", pods=SMALL, command=("date", "+%s.%N")))
        waits.append(printed_time(client, job) - began)
    return Figure("one pod: submit to user code", max(waits), 1.0, f"worst of {rounds}, median {shown(statistics.median(waits))}")


def sidecar_start(client: Client, state: Path, rounds: int = 10) -> Figure:
    """From the moment the control plane has written the pod's plan to the first act of the command."""
    waits = []
    for _ in range(rounds):
        job = client.submit(JobRequest(name="bench", pods=SMALL, command=("date", "+%s.%N")))
        began = printed_time(client, job)
        (plan,) = state.glob(f"**/{job.id}/1/*/plan.json")
        waits.append(began - plan.stat().st_mtime)
    return Figure("sidecar start to user code", statistics.median(waits), 0.15, f"median of {rounds}, worst {shown(max(waits))}")


def plain_start(rounds: int = 20) -> float:
    """The peer: what it costs here to start the same program without us."""
    times = []
    for _ in range(rounds):
        began = time.time()
        out = subprocess.run(["date", "+%s.%N"], capture_output=True, text=True, check=True).stdout
        times.append(float(out) - began)
    return statistics.median(times)


def gang_of_two(client: Client, rounds: int = 5) -> Figure:
    waits = []
    pods = (PodRequest(role="worker", count=2, cpus="500m", memory="256Mi"),)
    for _ in range(rounds):
        began = time.time()
        job = client.submit(JobRequest(name="bench", pods=pods, command=("date", "+%s.%N")))
        waits.append(printed_time(client, job) - began)
    return Figure(
        "gang of two: submit to user code", max(waits), 1.5, f"worst of {rounds}, median {shown(statistics.median(waits))}"
    )


def throughput(client: Client, jobs: int = 100) -> str:
    began = time.perf_counter()
    client.submit_many([JobRequest(name="bench", pods=SMALL, command=("true",)) for _ in range(jobs)])
    accepted = time.perf_counter() - began
    until_at_rest(client)
    took = time.perf_counter() - began
    return f"     {jobs} one-pod jobs in one batch: accepted in {shown(accepted)}, all ended after {took:.1f} s"


def demo_warm() -> Figure:
    environ = {name: value for name, value in os.environ.items() if name != "TUTTILAB_STATE_DIR"}
    began = time.perf_counter()
    subprocess.run(["make", "--silent", "-C", str(ROOT), "demo"], env=environ, check=True, capture_output=True)
    return Figure("make demo, warm", time.perf_counter() - began, 90.0, "one run")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", choices=PARTS, help="run one part")
    options.add_argument("--jobs", type=int, default=policy.JOBS, help="of each trace of the part `policy`")
    options.add_argument("--seeds", type=int, default=len(policy.SEEDS), choices=range(1, len(policy.SEEDS) + 1), help="of it, too")
    given = options.parse_args()
    only = given.only
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    figures: list[Figure] = []

    def take(figure: Figure) -> None:
        figures.append(figure)
        print(figure.line(), flush=True)

    if only in (None, "jobs", "spark"):
        with control_plane() as (client, environ):
            if only != "spark":
                take(submit_accepted(client))
                take(submit_to_user_code(client))
                take(sidecar_start(client, Path(environ["TUTTILAB_STATE_DIR"])))
                print(f"     the peer of the last line: the same program started without us {shown(plain_start())}")
                take(gang_of_two(client))
                print(throughput(client), flush=True)
            if only != "jobs":
                take(Figure("second kernel's Spark session", *second_kernel_session_s(environ)))
                take(Figure("%%sparksql over the plain call", *sparksql_overhead_s(environ)))
    if only in (None, "spark-proxy"):
        for figure in spark_proxy.figures():
            take(figure)
    if only in (None, "spark-kernels"):
        for figure in spark_kernels.figures():
            take(figure)
    if only in (None, "cells"):
        take(cells.capture_and_return())
        with control_plane() as (_, environ):
            take(cells.bar_in_the_cell(environ))
    if only in (None, "artifacts"):
        take(artifacts.answers_while_artifacts_are_sent())
    if only in (None, "store"):
        for figure in store.figures():
            take(figure)
    if only in (None, "scheduling"):
        figures += scheduling.measure()
    if only in (None, "policy"):
        figures += policy.measure(seeds=policy.SEEDS[: given.seeds], jobs=given.jobs)
    if only in (None, "panel"):
        for figure in lab.figures():
            take(figure)
    if only in (None, "abuse"):
        for figure in abuse.figures():
            take(figure)
    if only in (None, "demo"):
        take(demo_warm())
    over = [figure.name for figure in figures if not figure.is_within]
    within = f"{len(figures) - len(over)} of {len(figures)} figures within their limits"
    print(within + (f"; over: {', '.join(over)}" if over else ""))
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
