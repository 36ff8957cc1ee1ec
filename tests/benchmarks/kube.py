"""`make bench-kube`: how fast pods start on Kubernetes, through the product and without it, on one API server in one run.

Real etcd, API server, controller manager and kube-scheduler on this machine, and nodes that are rows (KWOK). Each load is N pods on
M nodes, from the first request until the last pod is bound, and until it runs:

- a loop that creates each pod and binds it, with the product's own client and bodies and as many requests at once; before and after
  all others, because the machine's speed drifts, and the mean counts; of bare pods, and of pods with the product's side-car, which
  cost the API server more;
- the same pods created for kube-scheduler;
- jobs of the product with `binding: direct`: gangs of 1, 20, 500 and N pods, bare (`sidecar: false`) and with side-cars.

Then the control plane is killed with many pods running (`--restart-pods`), and started again. At last servers of a hub are
spawned, beside plain KubeSpawner's (`spawns.py`). A figure that misses its aim is marked; the exit code is 1 then. All share
the machine's cores, so only the ratios mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.benchmarks import spawns
from tests.benchmarks.figures import Figure
from tests.contract.clusters import plan
from tests.kube.cluster import Cluster, running_control_plane
from tests.kube.kwok import CAPACITY
from tests.kube.load import Counted, Product, counted, in_turns, product, product_api, remove_pods, writes
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.pods import pod_body
from tuttilab.scheduler.clusters.kubernetes.settings import Binding, KubernetesSettings
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.resources import Resources

LEAST_SPEED = 0.8
MOST_WRITES = 2.1
RESTART_S = 15.0
RESTART_MIB = 1536.0
LIMIT_S = 1800.0
BATCH = 1000
"""Jobs in one request."""


@dataclass(frozen=True)
class Dose:
    pods: int
    nodes: int


@dataclass(frozen=True)
class Run:
    """``pods``: with masters. Times from the first request on."""

    name: str
    pods: int
    bound_s: float
    running_s: float
    writes: float
    """A pod, of whoever starts them."""
    all_writes: float
    cpu_s: float | None = None
    rss_mib: float | None = None

    @property
    def bound_a_second(self) -> float:
        return self.pods / self.bound_s

    def line(self, loop: float) -> str:
        own = "" if self.cpu_s is None else f"{self.cpu_s / self.pods * 1000:9.2f} {self.rss_mib:8.0f}"
        return (
            f"{self.name:<34} {self.pods:>6} {self.bound_a_second:>9.0f} {self.bound_a_second / loop:>6.2f} "
            f"{self.pods / self.running_s:>11.0f} {self.writes:>8.2f} {self.all_writes:>6.2f} {own}"
        )


HEAD = (
    f"{'load':<34} {'pods':>6} {'bound/s':>9} {'loop':>6} {'running/s':>11} {'writes':>8} {'all':>6} {'ms CPU':>9} {'MiB':>8}\n"
    f"{'':<34} {'':>6} {'':>9} {'= 1':>6} {'':>11} {'a pod':>8} {'a pod':>6} {'a pod':>9} {'RSS':>8}"
)


class Bench:
    def __init__(self, cluster: Cluster, dose: Dose, folder: Path) -> None:
        self.cluster, self.dose, self._folder = cluster, dose, folder
        per_node = -(-dose.pods // dose.nodes)
        # Room for side-cars and masters too.
        capacity = {**CAPACITY, "cpu": str(per_node + 2 + per_node // 50), "memory": "512Gi", "pods": "1000"}
        self.nodes = cluster.add_fake_nodes(dose.nodes, prefix="bench", capacity=capacity, limit_s=LIMIT_S)

    def measured(self, name: str, pods: int, namespace: str, begin: Callable[[], None], of: Product | None = None) -> Run:
        before, cpu = writes(self.cluster), of.cpu_s() if of is not None else None
        with Counted(self.cluster, namespace) as seen:
            time.sleep(0.5)  # its watches are open
            began = time.monotonic()
            begin()
            bound = seen.until("bound", pods, LIMIT_S)
            at_bound = writes(self.cluster)
            running = seen.until("running", pods, LIMIT_S)
            after = writes(self.cluster)
        return Run(
            name,
            pods,
            bound - began,
            running - began,
            counted(before, at_bound) / pods,
            sum((after - before).values()) / pods,
            of.cpu_s() - cpu if of is not None and cpu is not None else None,
            of.most_rss / 2**20 if of is not None else None,
        )

    def loop(self, name: str, *, by_scheduler: bool = False, sidecar: bool = False) -> Run:
        """The same bodies as pods of the product have, from the product's own client."""
        namespace = self.cluster.new_namespace("loop")
        path = f"/api/v1/namespaces/{namespace}/pods"
        settings = KubernetesSettings(
            namespace=namespace, sidecar_image="none", image="none", report_url="http://127.0.0.1:9", binding=Binding.SCHEDULER
        )
        launch = plan("loop", "true", resources=Resources.parse({"cpu": 1, "memory": "64Mi"}), work={"sidecar": sidecar})
        model = pod_body(launch, launch.pods[0], settings, "loop", None)
        del model["metadata"]["finalizers"], model["spec"]["affinity"]

        def body_of(number: int) -> Any:
            pod = {**model, "metadata": {**model["metadata"], "name": f"loop-{number}"}}
            return pod if by_scheduler else {**pod, "spec": {**model["spec"], "schedulerName": "nobody"}}

        async def start(api: Api, number: int) -> None:
            await api.call("POST", path, body_of(number))
            if not by_scheduler:
                target = {"apiVersion": "v1", "kind": "Node", "name": self.nodes[number % len(self.nodes)]}
                body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": f"loop-{number}"}, "target": target}
                await api.call("POST", f"{path}/loop-{number}/binding", body)

        async def run() -> None:
            api = product_api(self.cluster)
            try:
                await in_turns(start(api, number) for number in range(self.dose.pods))
            finally:
                await api.close()

        found = self.measured(name, self.dose.pods, namespace, lambda: asyncio.run(run()))
        remove_pods(self.cluster, namespace)
        return found

    def product(self, size: int, *, sidecar: bool) -> Run:
        gangs = self.dose.pods // size
        masters = gangs if sidecar and size > 1 else 0
        name = f"{gangs} x {size}{', side-cars' if sidecar else ', bare'}"
        namespace = self.cluster.new_namespace("product")
        with product(self.cluster, namespace, self._folder / namespace) as control:
            pods = (PodRequest(role="worker", count=size, cpus="1", memory="64Mi"),)
            request = JobRequest(name="bench", pods=pods, command=("true",), sidecar=sidecar)

            def begin() -> None:
                for start in range(0, gangs, BATCH):
                    control.client.submit_many([request] * min(BATCH, gangs - start))

            found = self.measured(name, gangs * size + masters, namespace, begin, control)
        remove_pods(self.cluster, namespace)
        return found

    def restart(self) -> Iterator[Figure]:
        """Killed with all pods running, until a job that was submitted since has its pod bound."""
        namespace = self.cluster.new_namespace("restart")
        with product(self.cluster, namespace, self._folder / namespace) as control:
            size = min(500, self.dose.pods)
            gang = JobRequest(
                name="bench",
                pods=(PodRequest(role="worker", count=size, cpus="1", memory="64Mi"),),
                command=("true",),
                sidecar=False,
            )
            gangs = self.dose.pods // size

            def begin() -> None:
                for _ in range(gangs):
                    control.client.submit(gang)

            self.measured("", gangs * size, namespace, begin, control)
            eventually_all_run(control, gangs)
            control.kill()
            with Counted(self.cluster, namespace) as seen:
                began = time.monotonic()
                control.up()
                one = replace(gang, pods=(replace(gang.pods[0], count=1),))
                control.client.submit(one)
                at = seen.until("bound", 1, LIMIT_S)
            time.sleep(60)  # its complete looks too
            note = (
                f"{gangs * size} pods run on {len(self.nodes)} nodes: from the start of the process to the first pod that it binds"
            )
            yield Figure("restart to the first decision", at - began, RESTART_S, note)
            yield Figure("memory of the control plane", control.most_rss / 2**20, RESTART_MIB, "the most within a minute", "MiB")
        remove_pods(self.cluster, namespace)


def eventually_all_run(control: Product, gangs: int) -> None:
    end = time.monotonic() + LIMIT_S
    while len([job for job in control.client.jobs(limit=1000).jobs if job.started_at is not None]) < gangs:
        assert time.monotonic() < end, control.log()
        time.sleep(1)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pods", type=int, default=10_000)
    options.add_argument("--nodes", type=int, default=1_000)
    options.add_argument("--only", choices=("shapes", "restart", "spawns"))
    options.add_argument("--sizes", help="of gangs, as 1,20,500; without it also all pods in one")
    options.add_argument("--sidecars", choices=("with", "without", "both"), default="both")
    options.add_argument("--restart-pods", type=int, default=30_000)
    options.add_argument("--restart-nodes", type=int, default=5_000)
    options.add_argument("--spawns", type=int, default=200)
    options.add_argument("--spawns-at-once", type=int, default=64)
    given = options.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="tuttilab-bench-") as folder:
        if given.only in (None, "shapes"):
            sizes = [int(text) for text in given.sizes.split(",")] if given.sizes else [1, 20, 500, given.pods]
            sizes = [size for size in dict.fromkeys(sizes) if size <= given.pods]
            sidecars = {"with": [True], "without": [False], "both": [False, True]}[given.sidecars]
            figures += shapes(Dose(given.pods, given.nodes), sizes, sidecars, Path(folder))
        if given.only in (None, "restart"):
            dose = Dose(given.restart_pods, given.restart_nodes)
            with running_control_plane() as cluster:
                for figure in Bench(cluster, dose, Path(folder)).restart():
                    figures.append(figure)
                    print(figure.line(), flush=True)
        if given.only in (None, "spawns"):
            for figure in spawns.figures(Path(folder) / "spawns", given.spawns, given.spawns_at_once):
                figures.append(figure)
                print(figure.line(), flush=True)
    missed = [figure.name for figure in figures if not figure.is_within]
    print(f"{len(figures) - len(missed)} of {len(figures)} aims met" + (f"; missed: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


def shapes(dose: Dose, sizes: list[int], sidecars: list[bool], folder: Path) -> list[Figure]:
    print(f"{dose.pods} pods on {dose.nodes} nodes; the rows of the product are gangs x pods in each", flush=True)
    runs: list[Run] = []
    with running_control_plane() as cluster:
        bench = Bench(cluster, dose, folder)
        loops = [bench.loop("loop: create and bind, before")]
        like = [bench.loop("loop: with side-cars, before", sidecar=True)] if True in sidecars else []
        scheduler = bench.loop("kube-scheduler alone", by_scheduler=True)
        for size in sizes:
            for sidecar in sidecars:
                runs.append(bench.product(size, sidecar=sidecar))
                print(f"     {runs[-1].name}: {runs[-1].bound_a_second:.0f} a second", flush=True)
        loops.append(bench.loop("loop: create and bind, after"))
        like += [bench.loop("loop: with side-cars, after", sidecar=True)] if like else []
    speed = statistics.fmean(run.bound_a_second for run in loops)
    print(HEAD)
    for run in (*loops, *like, scheduler, *runs):
        print(run.line(speed), flush=True)
    figures = []
    for run in runs:
        figures.append(Figure(f"{run.name}: of the loop", run.bound_a_second / speed, LEAST_SPEED, "", "", is_least=True))
        if "side-cars" in run.name:
            of_like = run.bound_a_second / statistics.fmean(run.bound_a_second for run in like)
            figures.append(Figure(f"{run.name}: of the loop with the same side-cars", of_like, LEAST_SPEED, "", "", is_least=True))
        figures.append(Figure(f"{run.name}: writes", run.writes, MOST_WRITES, "", "a pod"))
    for figure in figures:
        print(figure.line())
    return figures


if __name__ == "__main__":
    sys.exit(main())
