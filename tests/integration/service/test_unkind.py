"""The service with a fake cluster and a store in memory, in moments that are hard to meet with processes: each was a hole once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import ADMIN, node, queue, request
from tuttilab.scheduler.clusters.base import LaunchPlan
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.errors import AboveMax, BadInput, CommitUnknown, Conflict, NotFound, StoreError, Unauthenticated
from tuttilab.scheduler.domain.events import ClusterObserved
from tuttilab.scheduler.domain.model import Job, JobPhase
from tuttilab.scheduler.domain.wire import MemberReport, PodReport
from tuttilab.scheduler.service import performer
from tuttilab.scheduler.service.clock import Clock, World
from tuttilab.scheduler.service.heartbeats import Heartbeats
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.base import Batch
from tuttilab.scheduler.store.memory import MemoryStore
from tuttilab.scheduler.store.verify import Replay
from tuttilab.scheduler.usecases import pod_reports
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.sidecar.protocol import pod_token

NODES = (node("a", cpus=8, gpus=2),)


class Store(MemoryStore):
    """Fails the next commit that holds an event of that kind, before or after the effect."""

    fails_on: str = ""
    is_made: bool = False
    error: type[StoreError] = CommitUnknown

    async def commit(self, batch: Batch) -> int:
        kinds = {type(entry.event).__name__ for entry in batch.entries}
        if self.fails_on not in kinds:
            return await super().commit(batch)
        self.fails_on = ""
        if self.is_made:
            await super().commit(batch)
        raise self.error("The connection broke.")


class Refusing(FakeCluster):
    """Finds fault with the first launch."""

    error: Exception | None = None

    async def launch(self, plan: LaunchPlan) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        await super().launch(plan)


def service_in(folder: Path, store: MemoryStore, cluster: FakeCluster | None = None) -> Service:
    config = replace(default_config(folder), clusters=(ClusterConfig("here", "fake", NODES),))
    return Service(config, store, {"here": cluster or FakeCluster("here", NODES)}, state_dir=folder)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def service(tmp_path: Path, store: Store) -> AsyncIterator[Service]:
    one = service_in(tmp_path, store)
    await one.start()
    yield one
    await one.stop()


async def until(service: Service, holds: Callable[[], bool], limit_s: float = 150.0) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():
            await service.wait_change(service.last_seq, 0.05)


async def ended(service: Service, job: Job) -> Job:
    # One that has ended is out of memory after the rows were loaded again.
    await until(service, lambda: job.id not in service.state.jobs or service.state.jobs[job.id].phase.is_terminal)
    return (await Jobs(service).find(job.id, ADMIN))[0]


async def test_a_submit_whose_commit_nobody_confirmed_is_acknowledged_when_it_was_made(service: Service, store: Store) -> None:
    store.fails_on, store.is_made = "JobSubmitted", True
    job = await Jobs(service).submit(request(), ADMIN, "key")
    assert (await Jobs(service).submit(request(), ADMIN, "key")).id == job.id
    assert list(service.state.jobs) == [job.id]
    assert (await ended(service, job)).phase is JobPhase.SUCCEEDED


async def test_a_submit_whose_commit_was_not_made_is_told_so_and_its_key_is_free(service: Service, store: Store) -> None:
    store.fails_on, store.is_made = "JobSubmitted", False
    with pytest.raises(CommitUnknown):
        await Jobs(service).submit(request(), ADMIN, "key")
    assert service.state.jobs == {}
    job = await Jobs(service).submit(request(), ADMIN, "key")
    assert (await ended(service, job)).phase is JobPhase.SUCCEEDED


@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("event", ["GangAdmitted", "PodEnded"])
async def test_a_launch_or_an_end_is_not_lost_with_its_commit(service: Service, store: Store, event: str, is_made: bool) -> None:
    store.fails_on, store.is_made = event, is_made
    job = await Jobs(service).submit(request(), ADMIN)
    assert (await ended(service, job)).phase is JobPhase.SUCCEEDED
    assert store.fails_on == ""


async def test_nodes_whose_commit_failed_are_known_only_when_the_journal_has_them(tmp_path: Path) -> None:
    store = Store()
    store.fails_on, store.error = "ClusterObserved", StoreError
    service = service_in(tmp_path, store)
    await service.start()
    job = await Jobs(service).submit(request(), ADMIN)
    await ended(service, job)
    events = [event for _, _, event in await store.journal(0)]
    assert sum(isinstance(event, ClusterObserved) for event in events) == 1
    replayed = Replay()
    for _, at, event in await store.journal(0):
        replayed.take(event, at)
    assert replayed.jobs[job.id] == await store.job(job.id)
    await service.stop()


async def test_a_launch_that_the_cluster_cannot_read_ends_the_job_with_its_words(tmp_path: Path) -> None:
    cluster = Refusing("here", NODES)
    cluster.error = BadInput("pod name 'x y': expected letters.")
    service = service_in(tmp_path, Store(), cluster)
    await service.start()
    done = await ended(service, await Jobs(service).submit(request(), ADMIN))
    assert (done.phase, done.reason) == (JobPhase.FAILED, "could not be launched: pod name 'x y': expected letters.")
    await service.stop()


async def test_a_cluster_that_breaks_is_asked_again(tmp_path: Path) -> None:
    cluster = Refusing("here", NODES)
    cluster.error = RuntimeError("a driver's own bug")
    service = service_in(tmp_path, Store(), cluster)
    await service.start()
    assert (await ended(service, await Jobs(service).submit(request(), ADMIN))).phase is JobPhase.SUCCEEDED
    await service.stop()


async def test_a_job_may_come_after_one_that_ended_before_a_restart(tmp_path: Path) -> None:
    store = Store()
    service = service_in(tmp_path, store)
    await service.start()
    first = await ended(service, await Jobs(service).submit(request(), ADMIN))
    await service.stop()
    service = service_in(tmp_path, store)
    await service.start()
    second = await Jobs(service).submit(request(after=(first.id,)), ADMIN)
    assert (await ended(service, second)).phase is JobPhase.SUCCEEDED
    await service.stop()


async def test_a_job_that_another_comes_after_is_not_deleted(service: Service) -> None:
    first = await ended(service, await Jobs(service).submit(request(), ADMIN))
    second = await Jobs(service).submit(request(after=(first.id,), command=("sleep", "60")), ADMIN)
    with pytest.raises(
        Conflict, match=rf"Job 'job' \({second.id[:8]}\) comes after job 'job' \({first.id[:8]}\) and has not ended"
    ):
        await Jobs(service).delete(first.id, ADMIN)
    await Jobs(service).cancel(second.id, ADMIN)
    await ended(service, second)
    await Jobs(service).delete(first.id, ADMIN)
    with pytest.raises(NotFound):
        await Jobs(service).find(first.id, ADMIN)


async def test_a_report_is_heard_once_and_in_order_and_of_its_epoch(service: Service) -> None:
    job = await Jobs(service).submit(request(command=("sleep", "60")), ADMIN)
    await until(service, lambda: service.state.live_attempt(job.id) is not None)
    await until(service, lambda: service.state.attempts[job.id, 1].pods[0].uid is not None)
    pod = service.state.attempts[job.id, 1].pods[0]
    token, elsewhere = (pod_token(service.secrets.attempt_key(job.id, 1, epoch), pod.rank, pod.name) for epoch in (1, 7))

    def told(seq: int, address: str, epoch: int = 1) -> PodReport:
        member = MemberReport(pod.name, 0, "Running", pod.uid or "", endpoints={"web": address})
        return PodReport(job.id, 1, epoch, seq, (member,))

    await pod_reports.handle_report(service, told(2, "new"), token)
    assert await pod_reports.handle_report(service, told(1, "old"), token) == {"stop": None, "next_s": 5.0}
    assert service.state.attempts[job.id, 1].pods[0].endpoints == {"web": "new"}
    with pytest.raises(NotFound, match="is of epoch 1, not 7"):
        await pod_reports.handle_report(service, told(3, "stranger", epoch=7), elsewhere)
    for epoch, other in ((7, token), (1, elsewhere)):
        with pytest.raises(Unauthenticated, match="does not belong to that attempt"):
            await pod_reports.handle_report(service, told(3, "stranger", epoch), other)
    await Jobs(service).cancel(job.id, ADMIN)
    await ended(service, job)


def test_service_time_goes_on_from_the_last_entry_and_does_not_follow_the_wall_clock() -> None:
    times = {"wall": 1000.0, "monotonic": 5.0}
    clock = Clock(World(wall=lambda: times["wall"], monotonic=lambda: times["monotonic"]))
    assert clock.now() == 1000.0
    clock.advance_to(1500.0)
    assert clock.now() == 1500.0
    times.update(wall=9000.0, monotonic=7.0)
    clock.advance_to(1400.0)
    assert clock.now() == 1502.0


async def test_a_launch_that_an_outage_left_undone_is_tried_at_once_when_the_cluster_answers_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long outage its next try would be half a minute away, here ten."""
    monkeypatch.setattr(performer, "FIRST_PAUSE_S", 600.0)
    cluster = FakeCluster("here", NODES)
    service = service_in(tmp_path, store, cluster)
    await service.start()
    cluster.is_unreachable = True
    job = await Jobs(service).submit(request(), ADMIN)
    await until(service, lambda: bool(service.performer._pausing))
    for observer in cluster._observers:
        observer.set()
    await until(service, lambda: service.state.clusters["here"].unreachable_since is not None)

    cluster.is_unreachable = False

    assert (await ended(service, job)).phase is JobPhase.SUCCEEDED
    await service.stop()


async def test_a_max_is_checked_before_any_cluster_is_known(tmp_path: Path) -> None:
    cluster = FakeCluster("here", NODES)
    cluster.is_unreachable = True
    config = replace(
        default_config(tmp_path), clusters=(ClusterConfig("here", "fake", NODES),), queues=(queue("default", max={"cpu": 2}),)
    )
    service = Service(config, Store(), {"here": cluster}, state_dir=tmp_path)
    await service.start()
    with pytest.raises(AboveMax):
        await Jobs(service).submit(request(cpus=3), ADMIN)
    await service.stop()


@pytest.mark.feature("S15", "C02")
async def test_a_member_counts_as_lost_only_when_it_is_gone_and_was_silent_for_long(service: Service) -> None:
    job = await Jobs(service).submit(request(command=("sleep", "60")), ADMIN)
    await until(service, lambda: job.id in service.state._live and service.state.attempts[job.id, 1].pods[0].uid is not None)
    state: State = service.state
    (pod,) = state.attempts[job.id, 1].pods
    beats = Heartbeats(since=100.0)
    assert beats.missed(state, 1000.0, 60.0) == ([], None)
    beats.record_alive([pod.name], 970.0)
    beats.record_observation(state, [pod.name], [], 1000.0)
    assert beats.missed(state, 1000.0, 60.0) == ([], 1030.0)
    missed, _ = beats.missed(state, 1030.0, 60.0)
    assert [(event.job_id, event.attempt, event.pod) for event in missed] == [(job.id, 1, pod.name)]
    beats.record_alive([pod.name], 1031.0)
    assert beats.missed(state, 1031.0, 60.0) == ([], None)
    await Jobs(service).cancel(job.id, ADMIN)
    await ended(service, job)


async def test_a_report_of_a_master_says_that_the_master_lives_and_nothing_of_its_members(service: Service) -> None:
    job = await Jobs(service).submit(request(workers=2, command=("sleep", "60")), ADMIN)
    await until(service, lambda: job.id in service.state._live and service.state.attempts[job.id, 1].started_at is not None)
    attempt = service.state.attempts[job.id, 1]
    members = tuple(MemberReport(pod.name, pod.rank, "Running", pod.uid or "") for pod in attempt.members)
    master = attempt.pods[0]
    token = pod_token(service.secrets.attempt_key(job.id, 1, 1), master.rank, master.name)
    await pod_reports.handle_report(service, PodReport(job.id, 1, 1, 1, members), token)
    assert set(service.heartbeats._last_seen) == {f"{job.id}-1-master"}
    await Jobs(service).cancel(job.id, ADMIN)
    await ended(service, job)
