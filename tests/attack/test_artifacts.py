"""Artifacts of others, asked for through a job: whoever knows an id must not get the bytes into a pod of their own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.api.conftest import Site, Tokens, served
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import (
    DagRequest,
    InputRequest,
    JobRequest,
    NodeRequest,
    RunRequest,
    VariableRequest,
    Who,
)

SECRET = b"the bundle of ana"
ID = hashlib.sha256(SECRET).hexdigest()
JOB = JobRequest(name="peek", command=("cat", "data.csv"))
GIVEN = {
    "code": replace(JOB, code=ID),
    "inputs[1].artifact": replace(JOB, inputs=(InputRequest(path="a"), InputRequest(path="data.csv", artifact=ID))),
}
COMPOSED = {
    "code": replace(JOB, code="${first}${second}"),
    "inputs[0].artifact": replace(JOB, inputs=(InputRequest(path="data.csv", artifact="${whole}"),)),
}
VARIABLES = {"first": VariableRequest(), "second": VariableRequest(), "whole": VariableRequest()}
VALUES = {"first": ID[:20], "second": ID[20:], "whole": ID}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    users = {"a": Who("ana", ("research",)), "b": Who("ben", ("quant",)), "root": Who("root", is_admin=True)}
    async with served(Site(tmp_path, Tokens(users))) as site:
        async with AsyncClient(site.url, "a") as ana:
            await ana.put_artifact(SECRET)
        yield site


@pytest.fixture
async def ben(site: Site) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(site.url, "b") as ben:
        yield ben


def dag(job: JobRequest) -> DagRequest:
    return DagRequest(name="peek", variables=VARIABLES, nodes=(NodeRequest(name="one", job=job),))


async def by_a_name(client: AsyncClient, job: JobRequest) -> object:
    await client.apply_dag(dag(job))
    return await client.run_dag(RunRequest(name="peek", variables=VALUES))


Way = Callable[[AsyncClient, JobRequest], Awaitable[object]]
WAYS: dict[str, Way] = {
    "a submit": lambda client, job: client.submit(job),
    "a batch": lambda client, job: client.submit_many([JOB, job]),
    "a dry run": lambda client, job: client.dry_run(job),
    "a run": lambda client, job: client.run_dag(RunRequest(dag=dag(job), variables=VALUES)),
    "a stored DAG": by_a_name,
}


def cases() -> list[tuple[str, JobRequest, Way]]:
    plain = [(place, job, way) for way in WAYS.values() for place, job in GIVEN.items()]
    return plain + [(place, job, WAYS[name]) for name in ("a run", "a stored DAG") for place, job in COMPOSED.items()]


@pytest.mark.parametrize(("place", "job", "way"), cases())
async def test_an_artifact_of_another_is_given_to_no_job(
    site: Site, ben: AsyncClient, place: str, job: JobRequest, way: Way
) -> None:
    with pytest.raises(BadInput, match="upload it first") as refused:
        await way(ben, job)

    assert f"{place}: you have no artifact '{ID}'" in str(refused.value)
    assert not site.service.state.jobs


async def test_the_refusal_does_not_tell_whether_there_is_such_an_artifact(ben: AsyncClient) -> None:
    said = []
    for one in (ID, "0" * 64):
        with pytest.raises(BadInput) as refused:
            await ben.submit(replace(JOB, code=one))
        said.append(str(refused.value).replace(one, "ID"))

    assert said[0] == said[1]


async def test_whoever_may_read_an_artifact_may_give_it_to_a_job(site: Site, ben: AsyncClient) -> None:
    async with AsyncClient(site.url, "a") as ana, AsyncClient(site.url, "root") as root:
        for client in (ana, root):
            for job in (*GIVEN.values(), replace(COMPOSED["code"], code=ID)):
                assert (await client.submit(replace(job, queue="research"))).name == "peek"
        run = await ana.run_dag(RunRequest(dag=replace(dag(COMPOSED["code"]), queue="research"), variables=VALUES))
        assert run.owner == "ana"
    await ben.put_artifact(SECRET)
    assert (await ben.submit(replace(GIVEN["code"], queue="quant"))).owner == "ben"


async def test_the_output_of_ones_own_job_may_be_given_to_the_next(site: Site, ben: AsyncClient) -> None:
    made = await ben.submit(replace(JOB, queue="quant", command=("sleep", "600")))
    async with asyncio.timeout(60):
        while (attempt := site.service.state.live_attempt(made.id)) is None:  # noqa: ASYNC110  the state has no event for it
            await asyncio.sleep(0.02)
    kept = hashlib.sha256(b"a result").hexdigest()
    pods = tuple(replace(pod, outputs={"result": kept}) for pod in attempt.pods)
    site.service.state.attempts[made.id, attempt.number] = replace(attempt, pods=pods)

    assert (await ben.submit(replace(JOB, queue="quant", inputs=(InputRequest(path="x", artifact=kept),)))).owner == "ben"
