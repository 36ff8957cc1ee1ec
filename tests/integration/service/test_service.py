"""The service with a real local cluster and a real SQLite file: acknowledged is committed, and a restart takes over what runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.builders import ADMIN, node, request
from tuttilab.scheduler.clusters.local.cluster import LocalCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import AboveMax, Conflict, NeverFits, NotFound, StoreError, Unauthenticated
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Job, JobPhase
from tuttilab.scheduler.domain.requests import PodRequest, SparkRequest, Who
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.scheduler.domain.wire import MemberReport, PodReport
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.base import Batch
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.usecases import pod_reports
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.scheduler.usecases.spark_sessions import SparkSessions

NODES = (node("A", cpus=8, gpus=4), node("B", cpus=64))
Start = Callable[[], "contextlib.AbstractAsyncContextManager[Service]"]


def service_in(folder: Path, store: SqlStore | None = None) -> Service:
    config = default_config(folder)
    config = replace(config, clusters=(ClusterConfig("here", "local", NODES),))
    cluster = LocalCluster("here", NODES, folder, dict(os.environ), sys.executable)
    return Service(config, store or SqlStore(config.store.url), {"here": cluster}, state_dir=folder)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    one = service_in(tmp_path)
    await one.start()
    yield one
    for job in one.state.queued() + [job for job, _ in one.state.live()]:
        await Jobs(one).cancel(job.id, ADMIN)
    await until(one, one.is_idle)
    await one.stop()


async def until(service: Service, holds: Callable[[], bool], limit_s: float = 150.0) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():
            await service.wait_change(service.last_seq, 0.2)


async def ended(service: Service, job: Job) -> Job:
    await until(service, lambda: service.state.jobs[job.id].phase.is_terminal)
    return service.state.jobs[job.id]


def processes_of(job_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if job_id in " ".join(process.cmdline()) or process.environ().get("TUTTILAB_JOB_ID") == job_id:
                found.append(process)
    return found


async def gone(is_there: Callable[[], bool]) -> None:
    """What is not told as an event, such as the last process of a pod, is asked for until it is gone."""
    async with asyncio.timeout(60):
        while is_there():  # noqa: ASYNC110  as said
            await asyncio.sleep(0.05)


@pytest.mark.feature("J01")
async def test_a_command_becomes_a_process_and_its_exit_code_the_jobs(service: Service) -> None:
    good = await Jobs(service).submit(request(command=("sh", "-c", "echo hello from $TUTTILAB_JOB_ID")), ADMIN)
    bad = await Jobs(service).submit(request(command=("sh", "-c", "exit 3")), ADMIN)
    assert ((await ended(service, good)).phase, (await ended(service, good)).exit_code) == (JobPhase.SUCCEEDED, 0)
    failed = await ended(service, bad)
    assert (failed.phase, failed.exit_code, failed.reason) == (JobPhase.FAILED, 3, "it exited with code 3")
    _, chunk = await Jobs(service).logs(good.id, ADMIN, None, 0, 0, 10)
    assert chunk.lines == (f"hello from {good.id}",)


@pytest.mark.feature("S05")
async def test_a_gang_that_no_nodes_can_hold_is_refused_and_says_why(service: Service) -> None:
    pods = (PodRequest(role="worker", count=2, cpus=8, gpus=2),)
    why = "2 are asked for, and cluster .* has room for at most 1 worker pod .* even when it is empty; ask for at most 1"
    with pytest.raises(NeverFits, match=why):
        await Jobs(service).submit(request(pods=pods), ADMIN)
    dry = await Jobs(service).dry_run(request(pods=pods), ADMIN)
    assert dry.verdict == "refused"
    assert re.search(why, dry.sentence)


async def test_a_retry_of_what_does_not_fit_any_more_is_refused(service: Service) -> None:
    jobs = Jobs(service)
    done = await jobs.submit(request(command=("true",), cpus=2), ADMIN)
    await ended(service, done)
    (cluster,) = service.state.clusters.values()
    smaller = tuple(replace(node, allocatable=Resources.parse({"cpu": 1, "memory": "8Gi"})) for node in cluster.nodes)
    await service.ask(lambda turn: turn.apply(ev.ClusterObserved(replace(cluster, nodes=smaller)), cluster.name))
    with pytest.raises(NeverFits):
        await jobs.retry(done.id, ADMIN)


async def test_a_dry_run_says_of_what_a_job_comes_after_what_a_submit_would(service: Service) -> None:
    jobs = Jobs(service)
    good, bad = await jobs.submit(request(), ADMIN), await jobs.submit(request(command=("false",)), ADMIN)
    live = await jobs.submit(request(command=("sleep", "600")), ADMIN)
    assert (await ended(service, good)).phase is JobPhase.SUCCEEDED
    assert (await ended(service, bad)).phase is JobPhase.FAILED

    with pytest.raises(NotFound, match="nosuchjob"):
        await jobs.dry_run(request(after=("nosuchjob",)), ADMIN)
    assert (await jobs.dry_run(request(after=(good.id[:12],)), ADMIN)).verdict == "starts"
    waits = await jobs.dry_run(request(after=(good.id, live.id[:12])), ADMIN)
    assert (waits.verdict, waits.sentence) == ("waits", f"would wait: waits for job 'job' ({live.id[:8]}) to succeed")
    refused = await jobs.dry_run(request(after=(live.id, bad.id)), ADMIN)
    submitted = await jobs.submit(request(after=(live.id, bad.id)), ADMIN)
    assert (refused.verdict, refused.sentence) == ("refused", f"would be cancelled at once: {submitted.reason}")
    assert submitted.phase is JobPhase.CANCELLED
    await jobs.cancel(live.id, ADMIN)
    await ended(service, live)


@pytest.mark.feature("S04", "S03")
async def test_two_gangs_that_each_fit_alone_run_one_after_the_other(service: Service) -> None:
    # Each member waits for the other.
    meet = 'touch "$DATA_DIR/$TUTTILAB_RANK"; while [ ! -e "$DATA_DIR/$((1 - TUTTILAB_RANK))" ]; do sleep 0.05; done'
    script = f"date +%s.%N > begin.$TUTTILAB_RANK; {meet}; sleep 0.5; date +%s.%N; cat begin.$TUTTILAB_RANK"
    pods = (PodRequest(role="worker", count=2, gpus=2),)
    gangs = [await Jobs(service).submit(request(pods=pods, command=("sh", "-c", script)), ADMIN) for _ in range(2)]
    spans = []
    for gang in gangs:
        assert (await ended(service, gang)).phase is JobPhase.SUCCEEDED
        lines = [(await Jobs(service).logs(gang.id, ADMIN, None, rank, 0, 10))[1].lines for rank in (0, 1)]
        spans.append((min(float(line[1]) for line in lines), max(float(line[0]) for line in lines)))
    assert spans[0][1] <= spans[1][0], "the second gang starts after the first has ended"


async def test_the_same_key_gives_the_same_job_and_another_body_is_refused(service: Service) -> None:
    asked = request(command=("true",))
    answers = await asyncio.gather(*[Jobs(service).submit(asked, ADMIN, "key-1") for _ in range(8)])
    assert len({job.id for job in answers}) == 1
    with pytest.raises(Conflict, match="was used for another submit; use a new key"):
        await Jobs(service).submit(request(command=("false",)), ADMIN, "key-1")
    other = await Jobs(service).submit(asked, Who("eve", (), is_admin=True), "key-1")
    assert other.id != answers[0].id


async def test_the_key_is_known_after_a_restart(tmp_path: Path) -> None:
    first = service_in(tmp_path)
    await first.start()
    job = await Jobs(first).submit(request(command=("true",)), ADMIN, "key-1")
    await ended(first, job)
    await first.stop()
    second = service_in(tmp_path)
    await second.start()
    assert (await Jobs(second).submit(request(command=("true",)), ADMIN, "key-1")).id == job.id
    await second.stop()


@pytest.mark.feature("J09")
async def test_a_job_that_runs_through_a_restart_has_one_attempt_and_one_success(tmp_path: Path) -> None:
    first = service_in(tmp_path)
    await first.start()
    script = "echo begin; sleep 1.5; echo end"
    job = await Jobs(first).submit(request(workers=2, command=("sh", "-c", script)), ADMIN)
    await until(first, lambda: any(a.phase is AttemptPhase.RUNNING for _, a in first.state.live()))
    await first.stop()
    second = service_in(tmp_path)
    await second.start()
    done = await ended(second, job)
    _, attempts = await Jobs(second).find(job.id, ADMIN)
    assert (done.phase, len(attempts), attempts[0].phase) == (JobPhase.SUCCEEDED, 1, AttemptPhase.SUCCEEDED)
    assert (await Jobs(second).logs(job.id, ADMIN, None, 1, 0, 10))[1].lines == ("begin", "end")
    await second.stop()
    await gone(lambda: bool(processes_of(job.id)))


@pytest.mark.feature("J09", "S17")
async def test_a_job_that_ended_while_nobody_watched_is_not_run_again(tmp_path: Path) -> None:
    first = service_in(tmp_path)
    await first.start()
    job = await Jobs(first).submit(request(command=("sh", "-c", f"sleep 0.7; echo x >> {tmp_path}/runs")), ADMIN)
    await until(first, lambda: any(a.phase is AttemptPhase.RUNNING for _, a in first.state.live()))
    await first.stop()
    await asyncio.sleep(1.5)
    second = service_in(tmp_path)
    await second.start()
    assert (await ended(second, job)).phase is JobPhase.SUCCEEDED
    assert (tmp_path / "runs").read_text() == "x\n"
    await second.stop()


@pytest.mark.feature("J11")
async def test_cancel_ends_every_process_of_the_gang(service: Service) -> None:
    script = "(setsid sleep 1000 &) ; sleep 1000"
    job = await Jobs(service).submit(request(workers=2, command=("sh", "-c", script), grace="1s"), ADMIN)
    await until(service, lambda: any(a.phase is AttemptPhase.RUNNING for _, a in service.state.live()))
    await Jobs(service).cancel(job.id, ADMIN)
    assert (await ended(service, job)).phase is JobPhase.CANCELLED
    await gone(lambda: bool(processes_of(job.id)))


async def test_a_job_past_its_limit_fails_and_says_so(service: Service) -> None:
    job = await Jobs(service).submit(request(command=("sleep", "1000"), timeout="1s", grace="1s"), ADMIN)
    done = await ended(service, job)
    assert (done.phase, done.reason) == (JobPhase.FAILED, "ran past its limit of 1s; raise --timeout or do less")


async def test_delete_removes_what_an_ended_job_left_and_refuses_a_live_one(service: Service, tmp_path: Path) -> None:
    job = await Jobs(service).submit(request(command=("sleep", "1000"), grace="1s"), ADMIN)
    with pytest.raises(Conflict, match="cancel it first"):
        await Jobs(service).delete(job.id, ADMIN)
    await Jobs(service).cancel(job.id, ADMIN)
    await ended(service, job)
    await Jobs(service).delete(job.id, ADMIN)
    with pytest.raises(NotFound):
        await Jobs(service).find(job.id, ADMIN)
    await gone((tmp_path / "pods" / job.id).exists)


async def test_another_users_job_is_not_found(service: Service) -> None:
    job = await Jobs(service).submit(request(command=("true",)), Who("ann", (), is_admin=False, in_every_group=True))
    with pytest.raises(NotFound, match="There is no job"):
        await Jobs(service).find(job.id, Who("eve"))
    assert (await Jobs(service).find(job.id[:8], Who("ann")))[0].id == job.id


async def test_a_report_needs_the_token_of_its_own_attempt(service: Service) -> None:
    job = await Jobs(service).submit(request(command=("sleep", "600"), grace="1s"), ADMIN)
    await until(service, lambda: service.state.live_attempt(job.id) is not None)
    report = PodReport(job.id, 1, 1, 1, (MemberReport(f"{job.id}-1-worker-0", 0, "Ended", exit_code=0),))
    with pytest.raises(Unauthenticated, match="does not belong to that attempt"):
        await pod_reports.handle_report(service, report, "0" * 64)
    assert not service.state.jobs[job.id].phase.is_terminal


async def test_a_batch_is_accepted_whole_or_not_at_all(service: Service) -> None:
    with pytest.raises(NeverFits):
        await Jobs(service).submit_many([request(command=("true",)), request(cpus=1000)], ADMIN)
    assert service.state.jobs == {}
    jobs = await Jobs(service).submit_many([request(command=("true",)) for _ in range(20)], ADMIN)
    assert len({job.id for job in jobs}) == 20
    for job in jobs:
        assert (await ended(service, job)).phase is JobPhase.SUCCEEDED


async def test_what_was_found_to_fit_is_checked_again_when_nodes_or_queues_have_changed(service: Service) -> None:
    jobs = Jobs(service)
    await jobs.submit(request(command=("true",), cpus=2), ADMIN)
    (cluster,) = service.state.clusters.values()
    smaller = tuple(replace(node, allocatable=Resources.parse({"cpu": 1, "memory": "8Gi"})) for node in cluster.nodes)
    await service.ask(lambda turn: turn.apply(ev.ClusterObserved(replace(cluster, nodes=smaller)), cluster.name))
    with pytest.raises(NeverFits):
        await jobs.submit(request(command=("true",), cpus=2), ADMIN)
    job = await jobs.submit(request(command=("true",), cpus=1), ADMIN)
    limit = Resources.parse_limits({"cpu": "500m"})
    tight = tuple(replace(q, max=limit) if q.name == job.queue else q for q in service.state.queues.values())
    await service.ask(lambda turn: turn.apply(ev.QueuesConfigured(tight), "queues"))
    with pytest.raises(AboveMax):
        await jobs.submit(request(command=("true",), cpus=1), ADMIN)


@pytest.mark.parametrize("ask", ["submit", "delete"])
async def test_a_job_that_is_deleted_after_it_was_looked_up_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    first = service_in(tmp_path)
    await first.start()
    job = await Jobs(first).submit(request(command=("true",)), ADMIN)
    async with asyncio.timeout(150):
        while not ((kept := await first.store.job(job.id)) and kept.phase.is_terminal):
            await first.wait_change(first.last_seq, 0.2)
    await first.stop()

    # Another process knows the job from the database alone.
    second = service_in(tmp_path)
    await second.start()
    assert job.id not in second.state.jobs
    look_up = second.store.attempts

    async def attempts(job_id: str) -> Sequence[Attempt]:
        found = await look_up(job_id)
        monkeypatch.setattr(second.store, "attempts", look_up)
        await Jobs(second).delete(job_id, ADMIN)
        return found

    monkeypatch.setattr(second.store, "attempts", attempts)
    jobs, later = Jobs(second), request(command=("true",), after=(job.id,))
    with pytest.raises(NotFound, match=job.id):
        await (jobs.submit(later, ADMIN) if ask == "submit" else jobs.delete(job.id, ADMIN))
    assert second.state.jobs == {}
    assert await second.store.job(job.id) is None
    await second.stop()


class FailingOnce(SqlStore):
    """Refuses one commit, as a full disk does."""

    fail = False

    async def commit(self, batch: Batch) -> int:
        if self.fail:
            self.fail = False
            raise StoreError("The disk is full.")
        return await super().commit(batch)


async def test_what_is_not_committed_is_not_accepted_and_leaves_no_trace(tmp_path: Path) -> None:
    store = FailingOnce(default_config(tmp_path).store.url)
    service = service_in(tmp_path, store)
    await service.start()
    store.fail = True
    with pytest.raises(StoreError, match="The disk is full"):
        await Jobs(service).submit(request(command=("true",)), ADMIN, "key")
    assert service.state.jobs == {}
    job = await Jobs(service).submit(request(command=("true",)), ADMIN, "key")
    assert (await ended(service, job)).phase is JobPhase.SUCCEEDED
    await service.stop()


async def test_a_spark_session_is_one_live_job_by_owner_and_name(service: Service) -> None:
    asked = SparkRequest(name="s", cpus=1, memory="1Gi", interpreter="/bin/true")
    first, second = await asyncio.gather(SparkSessions(service).start(asked, ADMIN), SparkSessions(service).start(asked, ADMIN))
    assert first.id == second.id
    assert service.state.use("default")["cpu"] in (0, 1000)
    with pytest.raises(Conflict, match="Spark session 's' is not ready yet"):
        SparkSessions(service).endpoint("s", ADMIN)
    with pytest.raises(NotFound, match="`%spark start other` starts one"):
        SparkSessions(service).endpoint("other", ADMIN)
