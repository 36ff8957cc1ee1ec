"""Old ended jobs and old events go, a checkpoint stays in their place, and the replay is true all the while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import ADMIN, node, request
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.events import PodEnded
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Job, RunPhase
from tuttilab.scheduler.domain.requests import DagRequest, NodeRequest, RunRequest
from tuttilab.scheduler.service import retention
from tuttilab.scheduler.service.clock import Clock, World
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.store.verify import differences, replay
from tuttilab.scheduler.usecases.dags import Dags
from tuttilab.scheduler.usecases.jobs import Jobs

DAY = 86400.0
NODES = (node("a", cpus=4),)


class MovedClock(Clock):
    """The service's clock, some days on."""

    def __init__(self, clock: Clock, days: float) -> None:
        self._clock, self._more = clock, days * DAY

    def now(self) -> float:
        return self._clock.now() + self._more


@asynccontextmanager
async def service_in(folder: Path, world: World | None = None) -> AsyncIterator[Service]:
    config = default_config(folder)
    limits = replace(config.limits, keep_jobs_s=10 * DAY, keep_journal_s=5 * DAY)
    config = replace(config, clusters=(ClusterConfig("here", "fake", NODES, grows=True),), limits=limits)
    service = Service(config, SqlStore(config.store.url), {"here": FakeCluster("here", NODES)}, state_dir=folder, world=world)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def ended(service: Service, key: str | None = None) -> Job:
    job = await Jobs(service).submit(request(command=("exit", "0")), ADMIN, key)
    for _ in range(600):
        if service.state.jobs[job.id].phase.is_terminal:
            return service.state.jobs[job.id]
        await service.wait_change(service.last_seq, 0.1)
    raise AssertionError(service.state.jobs[job.id])


def move_on(service: Service, days: float) -> None:
    service._clock = MovedClock(service._clock, days)


async def found_wrong(service: Service) -> list[str]:
    return [sentence async for sentence in differences(service.store, await replay(service.store))]


async def test_old_jobs_and_events_go_and_what_is_left_replays(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        old = [await ended(service, f"old-{n}") for n in range(3)]
        waiting = await Jobs(service).submit(request(workers=2, cpus=4, after=(old[0].id,)), ADMIN)
        assert await service.retention.purge() == (0, 0)
        move_on(service, 8)
        recent = await ended(service)
        lines = service.last_seq

        deleted, trimmed = await service.retention.purge()
        assert (deleted, await found_wrong(service)) == (0, [])
        assert trimmed == lines - len(await service.store.changes(trimmed))
        with pytest.raises(NotFound, match="are not kept any more; expected at least"):
            await service.store.changes(0)

        move_on(service, 4)
        assert (await service.retention.purge())[0] == 2, "the third is waited for"
        again = await ended(service)
        assert await found_wrong(service) == []
        for job in old[1:]:
            with pytest.raises(NotFound):
                await Jobs(service).find(job.id, ADMIN)
        assert {job.id for job in (old[0], waiting, recent, again)} <= service.state.jobs.keys()

        move_on(service, 6)
        await service.retention.purge()
        assert await service.store.idempotency_key("root", "old-0") is not None
        assert await service.store.idempotency_key("root", "old-1") is None
        last_at = service.now()
    async with service_in(tmp_path) as service:
        assert service.now() >= last_at - 6 * DAY - 60
        newest = await Jobs(service).submit(request(workers=2, cpus=4), ADMIN)
        assert newest.order == again.order + 1
        assert waiting.id in service.state.jobs
        assert await found_wrong(service) == []
        lines_left = await service.store.journal(service.last_seq - 1)
        assert [type(event).__name__ for _, _, event in lines_left] == ["JobSubmitted"]


async def running(service: Service, job_id: str) -> Attempt:
    for _ in range(600):
        attempt = service.state.live_attempt(job_id)
        if attempt is not None and attempt.phase is AttemptPhase.RUNNING:
            return attempt
        await service.wait_change(service.last_seq, 0.1)
    raise AssertionError(service.state.jobs[job_id])


async def fail(service: Service, job_id: str) -> None:
    attempt = await running(service, job_id)
    await service.ask(lambda turn: turn.apply(PodEnded(job_id, attempt.number, attempt.pods[0].name, 1, "Error"), job_id))


async def test_what_a_running_job_comes_after_stays_so_that_it_can_be_queued_again(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        first = await ended(service)
        second = await Jobs(service).submit(request(command=("sleep", "3600"), after=(first.id,), retries=3), ADMIN)
        await running(service, second.id)
        move_on(service, 11)

        assert (await service.retention.purge())[0] == 0
        await fail(service, second.id)
        move_on(service, 1)
        again = await running(service, second.id)

        assert again.number == 2
        assert await service.store.job(first.id) is not None
        assert await found_wrong(service) == []


async def test_a_run_that_has_just_ended_is_kept_however_long_it_took(tmp_path: Path) -> None:
    job = request(command=("sleep", "7200"), timeout="20d")
    async with service_in(tmp_path) as service:
        asked = RunRequest(dag=DagRequest(name="long", nodes=(NodeRequest(name="n", job=job),)))
        run = await Dags(service).run(asked, ADMIN)
        await running(service, run.nodes[0].job.id)
        move_on(service, 6)
        await fail(service, run.nodes[0].job.id)
        await service.retention.purge()
        kept = await service.store.run(run.id)
        assert kept is not None
        assert (kept.phase, await found_wrong(service)) == (RunPhase.FAILED, [])
    async with service_in(tmp_path) as service:
        move_on(service, 6)
        retried = await Dags(service).retry(run.id, ADMIN)
        await fail(service, retried.nodes[0].job.id)
        move_on(service, 6)
        await ended(service)
        await service.retention.purge()

        assert await service.store.run(run.id) is None
        with pytest.raises(NotFound):
            await Dags(service).retry(run.id, ADMIN)
        assert await found_wrong(service) == []


async def test_a_control_plane_that_never_lives_an_hour_lets_go_of_what_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_config(tmp_path).limits.idle_stop_s / 10 >= retention.FIRST_PURGE_S
    monkeypatch.setattr(retention, "FIRST_PURGE_S", 0.3)
    async with service_in(tmp_path) as service:
        old = await ended(service)
        move_on(service, 11)
        for _ in range(600):
            if await service.store.job(old.id) is None:
                return
            await asyncio.sleep(0.1)
    raise AssertionError("still there")


async def test_service_time_does_not_go_back_when_the_wall_clock_does(tmp_path: Path) -> None:
    async with service_in(tmp_path) as service:
        before = (await ended(service)).submitted_at
    async with service_in(tmp_path, World(wall=lambda: before - 1000 * DAY)) as service:
        after = await ended(service)
        times = [at for _, at, _ in await service.store.journal(0)]

    assert before <= after.submitted_at < before + DAY
    assert times == sorted(times)
