"""What a job's page fetches beside the job: what was sent along and kept with sizes, what pods used, why the job waited."""

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.api.conftest import Site, Tokens, served
from tuttilab.magics.submission.bundle import build_bundle
from tuttilab.magics.submission.capture import Captured
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.errors import BadInput, NotFound
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, PodRequest, Who
from tuttilab.scheduler.domain.wire import JobView

QUICK = JobRequest(name="quick", command=("print", "hello"))


async def until_waiting(client: AsyncClient, job_id: str) -> str:
    async with asyncio.timeout(60):
        while (wait := await client.explain(job_id)) is None:  # noqa: ASYNC110  a wait has no event
            await asyncio.sleep(0.01)
    return wait.sentence


@pytest.mark.feature("B24")
async def test_cell_names_and_files_that_were_sent(client: AsyncClient) -> None:
    captured = Captured({"table": 3_000_000, "x": 12}, (), b"pickled", {"<In[3]>": {1: "def f(): pass"}})
    bundle = build_bundle("f(table, x)\n", "<%%submit In[5]>", captured, files={"lib/a.py": b"1234"})
    code = await client.put_artifact(bundle)
    asked = replace(
        QUICK, code=code, env={"KEY": "secret"}, retries=2, inputs=(InputRequest(path="/data/a"),), image="registry.example/a:1"
    )
    job = await client.submit(asked)

    found = await client.details(job.id)

    assert found.sent is not None
    assert (found.sent.cell, found.sent.cell_name) == ("# %%submit\nf(table, x)\n", "<%%submit In[5]>")
    assert dict(found.sent.names) == {"table": 3_000_000, "x": 12}
    assert dict(found.sent.files) == {"lib/a.py": 4}
    assert dict(found.sent.functions) == {"<In[3]>": "def f(): pass"}
    assert (found.sent.size, found.sent.is_cut, found.sent.more) == (len(bundle), False, 0)
    assert (found.image, found.env, found.retries, found.inputs) == ("registry.example/a:1", ("KEY",), 2, ("/data/a",))


async def test_a_command_has_no_cell_and_code_that_is_no_bundle_is_none(client: AsyncClient) -> None:
    command = await client.submit(QUICK)
    other = await client.submit(replace(QUICK, code=await client.put_artifact(b"some zip")))
    gone = await client.submit(replace(QUICK, code=hashlib.sha256(b"never sent").hexdigest()))

    assert [(await client.details(job.id)).sent for job in (command, other, gone)] == [None, None, None]


@pytest.mark.feature("B24")
async def test_cpu_and_memory_of_each_pod_over_time(client: AsyncClient) -> None:
    pods = (PodRequest(count=3, cpus="500m", memory="64Mi"),)
    job = await client.submit(replace(QUICK, command=("use", "0.25", "1000", "use", "0.75", "3000"), pods=pods))
    await client.wait(job.id, timeout_s=150)

    whole, second = await client.usage(job.id), await client.usage(job.id, first=1, limit=1)

    assert (whole.attempt, whole.total, [pod.rank for pod in whole.pods]) == (1, 3, [0, 1, 2])
    pod = whole.pods[0]
    assert (pod.seconds, pod.cpus, pod.memory, pod.cpu_s, pod.peak_memory) == ((1.0, 2.0), (0.25, 0.75), (1000, 3000), 1.0, 3000)
    assert (pod.role, pod.asked_cpus, pod.asked_memory) == ("worker", 0.5, 64 * 2**20)
    assert (second.total, [pod.rank for pod in second.pods]) == (3, [1])
    with pytest.raises(NotFound, match="has no attempt 2; it has 1"):
        await client.usage(job.id, attempt=2)
    with pytest.raises(BadInput):
        await client.usage(job.id, limit=1000)


async def test_job_that_waits_or_was_not_measured_has_no_usage(client: AsyncClient) -> None:
    quick = await client.wait((await client.submit(QUICK)).id, timeout_s=150)
    held = await client.submit(replace(QUICK, after=((await client.submit(replace(QUICK, command=("sleep", "600")))).id,)))

    assert [(view.attempt, view.total, view.pods) for view in [await client.usage(quick.id), await client.usage(held.id)]] == [
        (1, 1, ()),
        (0, 0, ()),
    ]


@pytest.mark.feature("B24", "B02")
async def test_started_job_still_says_why_it_waited(client: AsyncClient) -> None:
    big = (PodRequest(cpus=4),)
    first = await client.submit(replace(QUICK, command=("sleep", "600"), pods=big))
    second = await client.submit(replace(QUICK, pods=big))
    reason = await until_waiting(client, second.id)
    await client.cancel(first.id)

    ended: JobView = await client.wait(second.id, timeout_s=150)

    assert ended.wait is None
    assert [attempt.waited_for for attempt in ended.attempts] == [reason]
    assert (await client.job(first.id)).attempts[0].waited_for == ""


async def test_nobody_elses_details_and_usage(tmp_path: Path) -> None:
    users = Tokens({"a": Who("ana", ("research",)), "b": Who("bob", ("research",))})
    async with served(Site(tmp_path, users)) as site, AsyncClient(site.url, "a") as ana, AsyncClient(site.url, "b") as bob:
        job = await ana.submit(QUICK)
        with pytest.raises(NotFound):
            await bob.details(job.id)
        with pytest.raises(NotFound):
            await bob.usage(job.id)
