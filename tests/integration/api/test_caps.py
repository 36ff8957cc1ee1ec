"""Caps a user: unfinished jobs, decided in the turn that submits them, and the rate of writes, decided before the route."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.integration.api.conftest import Site, Tokens, served
from tuttilab.scheduler.client import AsyncClient, transport
from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.core.rows.unfinished import Unfinished
from tuttilab.scheduler.domain.errors import TooFast, TooManyJobs
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, NodeRequest, PodRequest, RunRequest, SparkRequest, Who

USERS = {"ann": Who("ann"), "eve": Who("eve"), "root": Who("root", is_admin=True)}
WAITS = JobRequest(name="waits", pods=(PodRequest(count=2, cpus=3),), command=("sleep", "600"))
"""One of them fills the queue."""
SMALL = JobRequest(name="small", pods=(PodRequest(cpus="10m", memory="8Mi"),), command=("sleep", "600"))


def chain(*names: str) -> RunRequest:
    nodes = tuple(NodeRequest(name=name, job=SMALL, after=names[:at][-1:]) for at, name in enumerate(names))
    return RunRequest(dag=DagRequest(name="chain", nodes=nodes))


@pytest.fixture
async def capped(tmp_path: Path) -> AsyncIterator[Callable[[Limits], Awaitable[Site]]]:
    sites: list[Site] = []

    async def start(limits: Limits) -> Site:
        site = Site(tmp_path, Tokens(USERS), limits=limits)
        await site.start()
        sites.append(site)
        return site

    yield start
    for site in sites:
        await site.stop()


Capped = Callable[[Limits], Awaitable[Site]]


async def outcomes(work: list[Awaitable[object]]) -> Counter[str]:
    return Counter(type(answer).__name__ for answer in await asyncio.gather(*work, return_exceptions=True))


async def test_of_64_submits_at_once_exactly_as_many_are_taken_as_the_cap_has_left(capped: Capped) -> None:
    site = await capped(Limits(user_live_jobs=17))
    async with AsyncClient(site.url, "ann") as ann, AsyncClient(site.url, "eve") as eve:
        await ann.submit(SMALL)

        found = await outcomes([ann.submit(SMALL) for _ in range(64)])

        assert found == {"JobView": 16, "TooManyJobs": 48}
        assert len((await ann.jobs()).jobs) == 17
        with pytest.raises(TooManyJobs, match=r"ann has 17 unfinished jobs, and 1 more would pass the limit of 17"):
            await ann.submit(SMALL)
        await eve.submit(SMALL)


async def test_jobs_batches_runs_sessions_and_retries_count_together_and_exactly_the_cap_is_taken(capped: Capped) -> None:
    site = await capped(Limits(user_live_jobs=40))
    async with AsyncClient(site.url, "ann") as ann:
        old = await ann.submit(SMALL)
        await ann.cancel(old.id)
        await ann.wait(old.id, timeout_s=150)
        work: list[Awaitable[object]] = [ann.submit(SMALL) for _ in range(20)]
        work += [ann.submit_many([SMALL] * 3) for _ in range(10)]
        work += [ann.run_dag(chain("a", "b", "c")) for _ in range(10)]
        work += [ann.retry(old.id) for _ in range(10)]
        work += [ann.spark_start(SparkRequest(name=f"s{n}")) for n in range(10)]

        answers = await asyncio.gather(*work, return_exceptions=True)

        assert {type(one) for one in answers if isinstance(one, BaseException)} == {TooManyJobs}
        # What is left is less than a batch or a run needs, and single jobs take it.
        await outcomes([ann.submit(SMALL) for _ in range(5)])
        assert site.service.state.unfinished.live("ann") == 40
        with pytest.raises(TooManyJobs):
            await ann.submit(SMALL)


async def test_the_cap_of_waiting_jobs_leaves_those_that_run_alone(capped: Capped) -> None:
    site = await capped(Limits(user_waiting_jobs=2))
    async with AsyncClient(site.url, "ann") as ann:
        first = await ann.submit(WAITS)
        async with asyncio.timeout(30):
            while not site.service.state.live_attempt(first.id):  # noqa: ASYNC110  the state has no event to wait for
                await asyncio.sleep(0.02)
        for _ in range(2):
            await ann.submit(WAITS)

        with pytest.raises(TooManyJobs) as said:
            await ann.submit(WAITS)
        refused = await ann.dry_run(WAITS)

        assert str(said.value) == (
            "ann has 2 waiting jobs, and 1 more would pass the limit of 2 (limits.user_waiting_jobs); wait until "
            "some have started, or cancel some with `tuttilab cancel`. Nothing was submitted."
        )
        assert (said.value.status, said.value.exit_code) == (409, 3)
        assert (refused.verdict, refused.sentence) == ("refused", str(said.value))
        await ann.cancel((await ann.jobs(state="Waiting")).jobs[0].id)
        await ann.submit(WAITS)


async def test_a_batch_and_a_run_above_the_cap_leave_nothing_behind(capped: Capped) -> None:
    site = await capped(Limits(user_waiting_jobs=3))
    async with AsyncClient(site.url, "ann") as ann:
        with pytest.raises(TooManyJobs, match="ann has 0 waiting jobs, and 4 more would pass the limit of 3"):
            await ann.submit_many([SMALL] * 4)
        with pytest.raises(TooManyJobs, match="and 4 more would pass"):
            await ann.run_dag(chain("a", "b", "c", "d"))

        assert (await ann.jobs()).jobs == ()
        run = await ann.run_dag(chain("a", "b", "c"))
        with pytest.raises(TooManyJobs):
            await ann.run_dag(chain("a", "b", "c"))
        await ann.cancel_run(run.id)
        await ann.wait_run(run.id)
        assert site.service.state.unfinished == Unfinished()
        with pytest.raises(TooManyJobs):
            await ann.submit_many([SMALL] * 4)
        await ann.retry_run(run.id)
        assert site.service.state.unfinished.live("ann") == 3


async def test_an_admin_counts_too_and_retries_on_the_owners_account(capped: Capped) -> None:
    site = await capped(Limits(user_live_jobs=1))
    async with AsyncClient(site.url, "ann") as ann, AsyncClient(site.url, "root") as root:
        old = await ann.submit(SMALL)
        await ann.cancel(old.id)
        await ann.wait(old.id, timeout_s=150)
        await ann.submit(SMALL)

        with pytest.raises(TooManyJobs, match="ann has 1 unfinished job, and 1 more"):
            await root.retry(old.id)
        await root.submit(SMALL)
        with pytest.raises(TooManyJobs, match="root has 1 unfinished job"):
            await root.submit(SMALL)


async def test_a_repeated_submit_is_the_same_job_also_at_the_cap(capped: Capped) -> None:
    site = await capped(Limits(user_live_jobs=1))
    async with AsyncClient(site.url, "ann") as ann:
        first = await ann.submit(SMALL, key="k")

        assert (await ann.submit(SMALL, key="k")).id == first.id


async def test_caps_hold_over_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path, Tokens(USERS), limits=Limits(user_live_jobs=4))
    async with served(site), AsyncClient(site.url, "ann") as ann:
        await ann.submit(SMALL)
        await ann.run_dag(chain("a", "b", "c"))
    async with served(site), AsyncClient(site.url, "ann") as ann:
        with pytest.raises(TooManyJobs, match="ann has 4 unfinished jobs"):
            await ann.submit(SMALL)


# --- rate ----------------------------------------------------------------------------------------------------------------


async def test_who_writes_too_fast_is_told_when_to_go_on_and_others_are_not_held_up(capped: Capped) -> None:
    site = await capped(Limits(user_writes_per_s=1, user_writes_at_once=5))
    async with httpx.AsyncClient(base_url=site.url, timeout=150) as http:

        async def post(token: str, path: str) -> httpx.Response:
            return await http.post(f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"}, json={})

        answers = [await post("eve", "/jobs:dryrun") for _ in range(20)]
        honest = await post("ann", "/jobs:dryrun")
        read = await http.get("/api/v1/jobs", headers={"Authorization": "Bearer eve"})

    refused = [answer for answer in answers if answer.status_code == 429]
    assert 5 <= len(answers) - len(refused) < 20
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["type"] == "too-fast"
    assert refused[0].json()["detail"] == (
        "eve has sent 5 writes at once, and 1 a second are allowed (limits.user_writes_per_s); send them slower, "
        "or many jobs in one batch. Nothing was changed."
    )
    assert (honest.status_code, read.status_code) != (429, 429)
    assert read.status_code == 200


async def test_the_client_waits_as_long_as_it_is_told_and_says_so_when_that_is_too_long(
    capped: Capped, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await capped(Limits(user_writes_per_s=4, user_writes_at_once=1))
    async with AsyncClient(site.url, "ann") as ann:
        made = [await ann.submit(SMALL) for _ in range(4)]
        assert len({job.id for job in made}) == 4

        monkeypatch.setattr(transport, "LONGEST_SLOWING_S", 0.0)
        found = await outcomes([ann.submit(SMALL) for _ in range(8)])

    assert found["TooFast"] >= 1
    assert found.keys() <= {"JobView", "TooFast"}
    assert TooFast.status == 429
