"""Every write has its author in the journal, also where an admin acts on what is a user's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.api.conftest import Site, served
from tests.integration.api.conftest import Tokens as Users
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, NodeRequest, PodRequest, ProfileRequest, RunRequest, Who

USERS = {"ann": Who("ann", ("quant",)), "root": Who("root", is_admin=True)}
JOB = JobRequest(name="one", pods=(PodRequest(memory="64Mi"),), command=("sleep", "3600"))


@pytest.fixture
async def users(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path, Users(USERS))) as site:
        yield site


async def authors(site: Site, key: str) -> list[tuple[str, str]]:
    """Kind and author of each event under the key that names one."""
    lines = await site.service.store.journal(0, 1000)
    named = [(type(event).__name__, event) for _, _, event in lines if _concerns(event, key)]
    return [(kind, getattr(event, "by")) for kind, event in named if hasattr(event, "by")]  # noqa: B009  of any event


def _concerns(event: ev.Event, key: str) -> bool:
    match event:
        case ev.JobSubmitted(job):
            return job.id == key
        case ev.JobCancelRequested(job_id) | ev.JobDeleted(job_id):
            return job_id == key
        case ev.ProfileDeleted(name):
            return name == key
        case ev.DagApplied(dag):
            return dag.name == key
        case ev.RunCancelRequested(run_id) | ev.RunRetried(run_id):
            return run_id == key
        case _:
            return False


async def test_who_cancelled_retried_and_deleted_a_job_is_in_the_journal(users: Site) -> None:
    async with AsyncClient(users.url, "ann") as ann, AsyncClient(users.url, "root") as root:
        job = await ann.submit(JOB)
        await root.cancel(job.id)
        again = await root.retry(job.id)
        (submitted, *_) = await ann.events(again.id)
        await root.delete(job.id)
        await ann.cancel(again.id)
        await ann.delete(again.id)

    assert await authors(users, job.id) == [("JobSubmitted", ""), ("JobCancelRequested", "root"), ("JobDeleted", "root")]
    assert submitted.text == f"submitted to queue research, as a retry of {job.id[:8]} by root"
    assert (again.owner, await authors(users, again.id)) == (
        "ann",
        [("JobSubmitted", "root"), ("JobCancelRequested", "ann"), ("JobDeleted", "ann")],
    )


async def test_who_deleted_a_profile_is_in_the_journal(users: Site) -> None:
    async with AsyncClient(users.url, "root") as root:
        await root.apply_profile(ProfileRequest(name="cpu"))
        await root.delete_profile("cpu")

    assert await authors(users, "cpu") == [("ProfileDeleted", "root")]


async def test_who_changed_a_graph_and_retried_its_run_is_in_the_journal(users: Site) -> None:
    graph = DagRequest(name="nightly", nodes=(NodeRequest(name="a", job=JOB),))
    async with AsyncClient(users.url, "ann") as ann, AsyncClient(users.url, "root") as root:
        await ann.apply_dag(graph)
        run = await ann.run_dag(RunRequest(name="nightly"))
        await root.apply_dag(DagRequest(name="nightly", nodes=(*graph.nodes, NodeRequest(name="b", job=JOB))))
        await root.cancel_run(run.id)
        await root.retry_run(run.id)

    assert await authors(users, "nightly") == [("DagApplied", "ann"), ("DagApplied", "root")]
    assert await authors(users, run.id) == [("RunCancelRequested", "root"), ("RunRetried", "root")]


async def test_the_audit_lists_every_write_with_its_author_an_admin_all_and_a_user_what_is_theirs(users: Site) -> None:
    graph = DagRequest(name="nightly", nodes=(NodeRequest(name="a", job=JOB),))
    async with AsyncClient(users.url, "ann") as ann, AsyncClient(users.url, "root") as root:
        job = await ann.submit(JOB)
        await root.cancel(job.id)
        again = await root.retry(job.id)
        await root.delete(job.id)
        await root.apply_profile(ProfileRequest(name="cpu"))
        await root.delete_profile("cpu")
        await ann.apply_dag(graph)
        run = await ann.run_dag(RunRequest(name="nightly"))
        await root.cancel_run(run.id)
        await ann.retry_run(run.id)

        everything = await root.audit()
        hers = await ann.audit()
        of_the_job = await ann.audit(key=job.id[:10])
        pages = [await root.audit(limit=5)]
        pages.append(await root.audit(limit=5, cursor=pages[0].next))

    short, nights = f"'one' ({job.id[:8]})", f"'nightly' ({run.id[:8]})"
    mine = [
        ("ann", f"retried run {nights}: a"),
        ("root", f"cancelled run {nights}"),
        ("ann", f"started run {nights}"),
        ("ann", "applied DAG nightly, version 1"),
    ]
    of_job = [("root", f"deleted job {short}")]
    retried = [("root", f"submitted job 'one' ({again.id[:8]}) to queue research, as a retry of {job.id[:8]}")]
    before = [("root", f"cancelled job {short}"), ("ann", f"submitted job {short} to queue research")]
    theirs = [("root", "deleted profile cpu"), ("root", "applied profile cpu")]
    start = [("", "a start took up the queues: root, research, quant")]
    assert [(write.by, write.text) for write in everything.writes] == [*mine, *theirs, *of_job, *retried, *before, *start]
    assert [(write.by, write.text) for write in hers.writes] == [*mine, *of_job, *retried, *before]
    assert [(write.by, write.text) for write in of_the_job.writes] == [*of_job, *before]
    assert [write for page in pages for write in page.writes] == list(everything.writes[:10])
    assert everything.next is None
