"""Builds model objects for tests, with defaults for what a test does not set. Amounts are given as in a manifest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tuttilab.scheduler.core.cycle import Decision, schedule
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.core.told.waits import WaitsByJob
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction
from tuttilab.scheduler.domain.model import Cluster, Job, Node, Queue
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest, Who
from tuttilab.scheduler.domain.resources import Resources

ANN = Who("ann", ("research",))
ADMIN = Who("root", (), is_admin=True, in_every_group=True)
_numbers = itertools.count(1)


def node(name: str, cpus: float = 8, gpus: int = 0, memory: str = "64Gi", labels: dict[str, str] | None = None) -> Node:
    amounts = {"cpu": cpus, "memory": memory, "nvidia.com/gpu": gpus}
    return Node(name, "here", Resources.parse(amounts), labels or {})


def cluster(*nodes: Node, name: str = "here") -> Cluster:
    return Cluster(name, "fake", tuple(replace(n, cluster=name) for n in nodes))


def queue(name: str = "main", **given: Any) -> Queue:
    if "guaranteed" in given:
        given["guaranteed"] = Resources.parse(given["guaranteed"])
    if "max" in given:
        given["max"] = Resources.parse_limits(given["max"])
    return Queue(name, **given)


def request(*, workers: int = 1, cpus: Any = 1, gpus: Any = 0, memory: Any = "1Gi", **given: Any) -> JobRequest:
    pods = given.pop("pods", (PodRequest(role="worker", count=workers, cpus=cpus, gpus=gpus, memory=memory),))
    return JobRequest(pods=pods, command=given.pop("command", ("true",)), **given)


def job(site: Site | None = None, *, who: Who = ANN, now: float = 0.0, **given: Any) -> Job:
    number = next(_numbers)
    site = site or Site({"main": queue()}, {}, "main")
    return build(request(**given), who, site, job_id=f"job{number:04d}", order=number, now=now)


def state(clusters: Sequence[Cluster] = (), queues: Sequence[Queue] = ()) -> State:
    fresh = State(epoch=1)
    fresh.handle(ev.QueuesConfigured(tuple(queues) or (queue(),)), 0.0)
    for one in clusters:
        fresh.handle(ev.ClusterObserved(one), 0.0)
    return fresh


def submit(to: State, *, at: float = 0.0, **given: Any) -> Job:
    """``grows``: nodes may be added to the clusters, so what fits on none of them waits."""
    growing = frozenset(to.clusters) if given.pop("grows", False) else frozenset()
    site = Site(to.queues, to.clusters, given.pop("queue", None), growing=growing)
    one = job(site, now=at, **given)
    to.handle(ev.JobSubmitted(one), at)
    return one


def run_cycle(of: State, at: float = 0.0) -> tuple[Decision, list[Instruction]]:
    """Run a cycle and apply its admissions, as the service does."""
    decision = schedule(of.snapshot(), at)
    instructions = [instruction for admitted in decision.admitted for instruction in of.handle(admitted, at)]
    of.waits = WaitsByJob(decision.waits)
    return decision, instructions


def start_all(of: State, job_id: str, at: float = 0.0) -> None:
    """Bring every pod of the live attempt to running."""
    attempt = of.live_attempt(job_id)
    assert attempt is not None
    for pod in attempt.pods:
        where = (job_id, attempt.number, pod.name)
        of.handle(ev.PodSeen(*where, f"uid-{pod.name}"), at)
        of.handle(ev.PodReady(*where), at)
    for pod in attempt.pods:
        of.handle(ev.PodStarted(job_id, attempt.number, pod.name), at)


def end_pod(of: State, job_id: str, rank: int, exit_code: int | None, at: float = 0.0, reason: str = "") -> list[Instruction]:
    attempt = of.live_attempt(job_id)
    assert attempt is not None
    pod = next(pod for pod in attempt.pods if pod.rank == rank)
    return of.handle(ev.PodEnded(job_id, attempt.number, pod.name, exit_code, reason), at)


def end_all(of: State, job_id: str, exit_code: int | None, at: float = 0.0, reason: str = "") -> list[Instruction]:
    attempt = of.live_attempt(job_id)
    assert attempt is not None
    instructions: list[Instruction] = []
    for pod in sorted(attempt.pods, key=lambda pod: pod.rank, reverse=True):
        instructions += of.handle(ev.PodEnded(job_id, attempt.number, pod.name, exit_code, reason), at)
    return instructions
