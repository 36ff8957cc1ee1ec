"""What goes wrong with pods has a state, and a sentence in the job's history that people read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from tests.integration.api.conftest import TOKEN, Site, served
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.clusters.base import LaunchPlan
from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

T = TypeVar("T")
LIMIT_S = 150.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path, limits=Limits(observe_every_s=0.1, back_off_s=0.2, lost_after_s=1.0, barrier_s=1.0))) as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(site.url, TOKEN) as client:
        yield client


def request(*command: str, workers: int = 1, **env: str) -> JobRequest:
    return JobRequest(command=command, pods=(PodRequest(count=workers, cpus=1, memory="1Gi"),), env=env)


async def until(find: Callable[[], Awaitable[T]]) -> T:
    """What is found, once it is something."""
    for _ in range(int(LIMIT_S / 0.05)):
        if found := await find():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"not so after {LIMIT_S} s")


async def history(client: AsyncClient, job: JobView) -> list[tuple[str, str]]:
    return [(event.kind, event.text) for event in await client.events(job.id)]


async def until_told(client: AsyncClient, job: JobView, kind: str) -> str:
    async def told() -> list[str]:
        return [text for each, text in await history(client, job) if each == kind]

    return (await until(told))[0]


async def until_job(client: AsyncClient, job: JobView, holds: Callable[[JobView], bool]) -> JobView:
    async def shown() -> JobView | None:
        view = await client.job(job.id)
        return view if holds(view) else None

    found = await until(shown)
    assert found is not None
    return found


@pytest.mark.feature("S15")
async def test_a_pod_without_a_heartbeat_costs_its_attempt_and_the_history_says_so(site: Site, client: AsyncClient) -> None:
    job = await client.submit(request("sleep", "600"))
    running = await until_job(client, job, lambda shown: shown.phase == "Running")
    node = running.attempts[0].pods[0].node
    site.cluster.nodes = tuple(replace(each, is_ready=each.name != node) for each in site.cluster.nodes)
    site.cluster.tick()

    assert await until_told(client, job, "HeartbeatMissed") == "attempt 1: no heartbeat from worker 0"
    again = await until_job(client, job, lambda shown: len(shown.attempts) == 2)
    assert again.attempts[0].phase == "Lost"
    assert again.attempts[1].pods[0].node != node


@pytest.mark.feature("S15")
async def test_a_gang_that_stays_pending_gives_its_room_back_and_the_history_says_so(client: AsyncClient) -> None:
    job = await client.submit(request("true", workers=2, FAKE_READY_S="600"))

    assert await until_told(client, job, "BarrierTimedOut") == "attempt 1: its pods did not all become ready in time"
    given_back = await until_job(client, job, lambda shown: bool(shown.attempts) and shown.attempts[0].phase == "Failed")
    assert "not all pods were ready after" in (given_back.reason or "")


@pytest.mark.feature("S15")
async def test_a_pod_that_outlives_its_attempt_is_stopped_and_the_history_says_so_once(site: Site, client: AsyncClient) -> None:
    plans: list[LaunchPlan] = []
    launch = site.cluster.launch

    async def remembering(plan: LaunchPlan) -> None:
        plans.append(plan)
        await launch(plan)

    site.cluster.launch = remembering  # type: ignore[method-assign]
    job = await client.wait((await client.submit(request("true"))).id)
    assert [kind for kind, _ in await history(client, job)][-1] == "PodEnded"
    number = plans[-1].attempt + 1  # on a slow machine the limits above may have cost it an attempt
    late = replace(
        plans[-1], attempt=number, pods=tuple(replace(pod, name=f"{job.id}-{number}-worker-0") for pod in plans[-1].pods)
    )
    late = replace(late, work=replace(late.work, command=("stubborn", "sleep", "600")))

    await launch(late)  # as one that a former leader had decided and sent late
    told = await until_told(client, job, "PodsOutlived")

    async def is_gone() -> bool:
        return not any(state.attempt == number for state in site.cluster._states().values())

    assert await until(is_gone)
    assert told == f"attempt {number}: worker 0 still ran after its end, and is stopped"
    assert [kind for kind, _ in await history(client, job)].count("PodsOutlived") == 1
    assert (await client.job(job.id)).phase == "Succeeded"
