"""A gang that grows and shrinks under the real service, on a cluster in memory that refuses, is slow, and over failing commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import ADMIN, node, request
from tuttilab.scheduler.api.event_text import sentence
from tuttilab.scheduler.clusters.base import LaunchPlan
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig, Limits
from tuttilab.scheduler.domain.errors import CommitUnknown
from tuttilab.scheduler.domain.events import GangGrown, GangShrunk, GrowthFailed
from tuttilab.scheduler.domain.model import Attempt, Job, JobPhase
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.base import Batch
from tuttilab.scheduler.store.memory import MemoryStore
from tuttilab.scheduler.store.verify import Replay
from tuttilab.scheduler.usecases.jobs import Jobs

NODES = (node("a", cpus=2), node("b", cpus=1))


class Store(MemoryStore):
    """Does not say whether the first commit with an event of kind ``fails_on`` was made; ``is_made`` is the truth."""

    fails_on = ""
    is_made = True

    async def commit(self, batch: Batch) -> int:
        if self.fails_on not in {type(entry.event).__name__ for entry in batch.entries}:
            return await super().commit(batch)
        self.fails_on = ""
        if self.is_made:
            await super().commit(batch)
        raise CommitUnknown("The connection broke.")


class Cluster(FakeCluster):
    """``launches`` counts; pods that join need ``joins_after_s`` until they are ready."""

    launches = 0
    joins_after_s = 0.0

    async def launch(self, plan: LaunchPlan) -> None:
        self.launches += 1
        slow = {"FAKE_READY_S": str(self.joins_after_s)}
        pods = tuple(replace(pod, env={**pod.env, **slow}) if pod.joins else pod for pod in plan.pods)
        await super().launch(replace(plan, pods=pods))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster("here", NODES)


@pytest.fixture
async def service(tmp_path: Path, store: Store, cluster: Cluster) -> AsyncIterator[Service]:
    config = replace(default_config(tmp_path), clusters=(ClusterConfig("here", "fake", NODES),), limits=Limits(barrier_s=5.0))
    one = Service(config, store, {"here": cluster}, state_dir=tmp_path)
    await one.start()
    yield one
    one.state.check_invariants()
    replayed = Replay()
    for _, at, event in await store.journal(0):
        replayed.take(event, at)
        assert not isinstance(event, (GangGrown, GangShrunk, GrowthFailed)) or sentence(event)
    for (job_id, number), attempt in replayed.attempts.items():
        assert (await store.attempts(job_id))[number - 1] == attempt
    await one.stop()


async def until(service: Service, holds: Callable[[], object], limit_s: float = 150.0) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():
            await service.wait_change(service.last_seq, 0.05)


def live(service: Service, job: Job) -> Attempt:
    attempt = service.state.live_attempt(job.id)
    assert attempt is not None
    return attempt


def running(service: Service, job: Job) -> dict[int, str | None]:
    """Rank to uid of the members that run."""
    attempt = service.state.live_attempt(job.id)
    return {pod.rank: pod.uid for pod in attempt.members if pod.phase == "Running"} if attempt is not None else {}


async def started(service: Service, *, cpus: int, steps: str, least: int | None = None, count: int = 1) -> Job:
    pods = (PodRequest(role="worker", count=count, min_count=least, cpus=cpus),)
    job = await Jobs(service).submit(request(pods=pods, command=tuple(steps.split())), ADMIN)
    await until(service, lambda: running(service, job))
    return job


async def grown(service: Service) -> tuple[Job, Job]:
    """One worker runs beside a job on node a that is told to leave, and two more would like to come."""
    other = await started(service, cpus=2, steps="sleep 600")
    gang = await started(service, cpus=1, steps="sleep 600", count=3, least=1)
    assert list(running(service, gang)) == [0]
    await Jobs(service).cancel(other.id, ADMIN)
    return other, gang


@pytest.mark.feature("S16")
@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("event", ["", "GangGrown", "GangShrunk", "PodSeen"])
async def test_a_gang_grows_gives_back_and_grows_again(service: Service, store: Store, event: str, is_made: bool) -> None:
    _, gang = await grown(service)
    store.fails_on, store.is_made = event, is_made
    (first,) = running(service, gang).values()
    await until(service, lambda: len(running(service, gang)) == 3)
    wide = await started(service, cpus=2, steps="sleep 600")
    assert running(service, gang) == {0: first}
    assert live(service, gang).charge["cpu"] == 1000
    await Jobs(service).cancel(wide.id, ADMIN)
    await until(service, lambda: service.state.jobs[wide.id].phase is JobPhase.CANCELLED)
    await until(service, lambda: len(running(service, gang)) == 3)
    assert (running(service, gang)[0], live(service, gang).number, store.fails_on) == (first, 1, "")
    assert {pod.name.rsplit("-", 1)[1] for pod in live(service, gang).members[1:]} == {"g2"}
    await Jobs(service).cancel(gang.id, ADMIN)
    await until(service, service.is_idle)


@pytest.mark.parametrize("event", ["", "GrowthFailed"])
async def test_a_node_that_refuses_costs_the_gang_nothing_and_is_not_asked_in_every_cycle(
    service: Service, store: Store, cluster: Cluster, event: str
) -> None:
    store.fails_on = event
    _, gang = await grown(service)
    cluster.refusals["a"] = "the disk is full"
    before = cluster.launches
    await until(service, lambda: live(service, gang).left)
    await asyncio.sleep(0.5)
    attempt = live(service, gang)
    assert (len(attempt.members), attempt.charge["cpu"], cluster.launches - before) == (1, 1000, 1)
    assert {pod.given_back_why for pod in attempt.left} == {"the disk is full"}
    assert service.state.jobs[gang.id].avoid_nodes == ("a",)
    assert attempt.grows_at > service.now()
    await Jobs(service).cancel(gang.id, ADMIN)
    await until(service, service.is_idle)


async def test_pods_that_are_not_ready_in_time_are_given_back(service: Service, cluster: Cluster) -> None:
    cluster.joins_after_s = 600.0
    _, gang = await grown(service)
    await until(service, lambda: len(live(service, gang).members) == 3)
    await until(service, lambda: len(live(service, gang).left) == 2)
    attempt = live(service, gang)
    assert (attempt.phase, len(attempt.members), attempt.charge["cpu"]) == ("Running", 1, 1000)
    assert {(pod.reason, pod.given_back_why) for pod in attempt.left} == {("NeverStarted", "it was not ready after 5s")}
    await Jobs(service).cancel(gang.id, ADMIN)
    await until(service, service.is_idle)


async def test_the_job_succeeds_with_those_who_came_later_and_their_logs_are_found(service: Service) -> None:
    other = await started(service, cpus=2, steps="sleep 0.3")
    gang = await started(service, cpus=1, steps="print on sleep 10", count=3, least=1)
    await until(service, lambda: len(running(service, gang)) == 3)
    pod, chunk = await Jobs(service).logs(gang.id, ADMIN, None, 2, 0, 10)
    assert pod is not None
    assert (pod.name, chunk.lines) == (f"{gang.id}-1-worker-2-g1", ("on",))
    await until(service, lambda: service.state.jobs[gang.id].phase.is_terminal)
    done = service.state.jobs[gang.id]
    assert (done.phase, done.exit_code, done.attempts) == (JobPhase.SUCCEEDED, 0, 1)
    assert service.state.jobs[other.id].phase is JobPhase.SUCCEEDED
