"""Idempotency: a run, a retry of a run and a retry of a job start once under one key, however often the request is sent."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.integration.api.conftest import TOKEN, Losing, Site, Tokens, served
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.errors import BadInput, Conflict, Unavailable
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, NodeRequest, RunRequest, Who
from tuttilab.scheduler.domain.wire import JobView, RunView

FAILS = JobRequest(name="fails", command=("exit", "3"))
LONG = JobRequest(name="long", command=("sleep", "600"))


def graph(job: JobRequest, name: str = "nightly") -> RunRequest:
    return RunRequest(dag=DagRequest(name=name, nodes=(NodeRequest(name="first", job=job),)))


Send = Callable[[AsyncClient, str | None], Awaitable[JobView | RunView]]


@dataclass(frozen=True)
class Start:
    """One kind of request. ``prepare`` makes what it needs; ``other`` is a different request, refused under the same key."""

    prepare: Callable[[AsyncClient], Awaitable[Send]]
    other: Callable[[AsyncClient], Awaitable[Send]]


async def a_run(client: AsyncClient) -> Send:
    return lambda client, key: client.run_dag(graph(LONG), key=key)


async def another_run(client: AsyncClient) -> Send:
    return lambda client, key: client.run_dag(graph(LONG, name="weekly"), key=key)


async def a_runs_retry(client: AsyncClient) -> Send:
    run = await client.wait_run((await client.run_dag(graph(FAILS))).id)
    return lambda client, key: client.retry_run(run.id, key=key)


async def a_jobs_retry(client: AsyncClient) -> Send:
    job = await client.wait((await client.submit(FAILS)).id, timeout_s=150)
    return lambda client, key: client.retry(job.id, key=key)


STARTS = {
    "run": Start(a_run, another_run),
    "retry of a run": Start(a_runs_retry, a_runs_retry),
    "retry of a job": Start(a_jobs_retry, a_jobs_retry),
    "a run after a retry of a job": Start(a_jobs_retry, a_run),
}


@pytest.fixture(params=list(STARTS))
def start(request: pytest.FixtureRequest) -> Start:
    return STARTS[request.param]


async def started(site: Site) -> list[str]:
    """The events of the journal that start a run or a job."""
    lines = await site.service.store.changes(0)
    return [line.kind for line in lines if line.kind in ("RunSubmitted", "RunRetried", "JobSubmitted")]


@pytest.mark.parametrize("losses", [1, 3])
async def test_lost_responses_start_it_once(site: Site, client: AsyncClient, start: Start, losses: int) -> None:
    ask = await start.prepare(client)
    before = await started(site)
    lossy = Losing(losses)
    lossy.carry(client)

    made = await ask(client, None)

    assert lossy.delivered == losses + 1
    assert len(await started(site)) == len(before) + 1
    assert made.id in {job.id for job in (await client.jobs(all=True)).jobs} | {run.id for run in await client.runs()}


async def test_a_request_without_any_response_is_found_by_its_key_later(site: Site, client: AsyncClient, start: Start) -> None:
    ask = await start.prepare(client)
    before = await started(site)
    Losing(4).carry(client)
    with pytest.raises(Unavailable):
        await ask(client, "k")

    found = [await ask(client, "k") for _ in range(3)]

    assert len({one.id for one in found}) == 1
    assert len(await started(site)) == len(before) + 1


async def test_eight_concurrent_requests_start_one(site: Site, client: AsyncClient, start: Start) -> None:
    ask = await start.prepare(client)
    before = await started(site)

    made = await asyncio.gather(*[ask(client, "k") for _ in range(8)])

    assert len({one.id for one in made}) == 1
    assert len(await started(site)) == len(before) + 1


async def test_two_concurrent_keys_retry_a_run_once(site: Site, client: AsyncClient) -> None:
    ask = await a_runs_retry(client)

    told = await asyncio.gather(ask(client, "k1"), ask(client, "k2"), return_exceptions=True)

    assert [type(one) for one in told].count(Conflict) == 1
    assert (await started(site)).count("RunRetried") == 1


async def test_another_request_under_the_key_is_refused(site: Site, client: AsyncClient, start: Start) -> None:
    first = await (await start.prepare(client))(client, "k")
    other = await start.other(client)
    before = await started(site)

    with pytest.raises(Conflict, match="The idempotency key 'k' was used for another submit; use a new key"):
        await other(client, "k")
    with pytest.raises(Conflict, match="was used for another submit"):
        await client.submit(replace(LONG, name="else"), key="k")

    assert await started(site) == before
    assert (await other(client, "k2")).id != "" != first.id


async def test_a_key_of_a_job_is_refused_for_other_requests(client: AsyncClient) -> None:
    ask = await a_jobs_retry(client)
    await client.submit(LONG, key="k")

    for other in (ask, await a_run(client), await a_runs_retry(client)):
        with pytest.raises(Conflict, match="was used for another submit"):
            await other(client, "k")


async def test_a_key_is_known_after_a_restart_and_after_the_end_of_its_run(tmp_path: Path, start: Start) -> None:
    site = Site(tmp_path)
    await site.start()
    async with AsyncClient(site.url, TOKEN) as client:
        ask = await start.prepare(client)
        made = await ask(client, "k")
        before = await started(site)
    await site.stop()
    again = Site(tmp_path)
    async with served(again), AsyncClient(again.url, TOKEN) as client:
        found = [await ask(client, "k") for _ in range(3)]

        assert {one.id for one in found} == {made.id}
        assert await started(again) == before


async def test_a_delayed_retry_does_not_rerun_what_failed_since(site: Site, client: AsyncClient) -> None:
    ask = await a_runs_retry(client)
    await client.wait_run((await ask(client, "k1")).id)
    await client.wait_run((await ask(client, "k2")).id)

    late = await ask(client, "k1")

    assert isinstance(late, RunView)
    assert late.is_ended
    assert (await started(site)).count("RunRetried") == 2


async def test_keys_belong_to_their_users(tmp_path: Path) -> None:
    users = {"a": Who("ann", ()), "b": Who("bob", ())}
    async with served(Site(tmp_path, Tokens(users))) as site, AsyncClient(site.url, "a") as ann, AsyncClient(site.url, "b") as bob:
        runs = [await client.run_dag(graph(LONG), key="k") for client in (ann, bob)]

        assert len({run.id for run in runs}) == 2
        assert [run.id for run in await bob.runs()] == [runs[1].id]


async def test_an_empty_or_too_long_key_is_refused(client: AsyncClient, start: Start) -> None:
    ask = await start.prepare(client)

    with pytest.raises(BadInput, match="idempotency-key"):
        await ask(client, "k" * 201)


async def test_a_request_through_a_proxy_has_its_effect_once(site: Site, client: AsyncClient) -> None:
    job = await client.wait((await client.submit(FAILS)).id, timeout_s=150)
    lossy = Losing(3)
    lossy.carry(client)

    await client.send("POST", f"/jobs/{job.id}/retry", may_repeat=True, key="k")

    assert lossy.delivered == 4
    assert len(await started(site)) == 2
