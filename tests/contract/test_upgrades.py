"""A database of an earlier release becomes ours at the next start and keeps what it holds; a later one's is left alone."""

import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from sqlalchemy import create_engine, text

from tests.builders import cluster, node
from tests.contract.building import a_job, an_attempt, submitted
from tests.postgres import Postgres
from tuttilab.scheduler.domain.errors import Conflict, StoreUnreadable
from tuttilab.scheduler.domain.events import ClusterObserved, GangAdmitted
from tuttilab.scheduler.domain.model import AttemptPhase, Cluster, Job, JobPhase, Overtaking
from tuttilab.scheduler.domain.resources import NOTHING
from tuttilab.scheduler.domain.wire import event_to_json, to_data, to_json
from tuttilab.scheduler.store import schema, sqlite
from tuttilab.scheduler.store.base import ArtifactRow, IdempotencyKey
from tuttilab.scheduler.store.schema import Schema
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.store.verify import differences, replay

FIRST = Path(__file__).with_name("schema_0001.sql").read_text(encoding="utf-8")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.requires("postgres"))])
def first_release(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that the first release left."""
    if request.param == "sqlite":
        file = tmp_path / "state.db"
        with sqlite3.connect(file) as connection:
            connection.executescript(FIRST)
            connection.execute(f"PRAGMA application_id = {sqlite.APPLICATION_ID}")
        connection.close()
        yield f"sqlite:///{file}"
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    name = server.new_database()
    server.execute(name, FIRST)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
async def upgraded(first_release: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(first_release)
    assert await store.open() == 2
    yield store
    await store.close()


async def test_the_first_release_s_rows_are_all_there(upgraded: SqlStore) -> None:
    loaded = await upgraded.load()

    assert loaded.jobs == (a_job(1), a_job(3))
    assert [queue.name for queue in loaded.queues] == ["root", "research"]
    assert (loaded.last_seq, loaded.last_at, loaded.last_order) == (6, 1011.0, 3)
    assert [profile.name for profile in loaded.profiles] == ["small"]
    assert loaded.accounts == (Overtaking(a_job(1).id, 1001.0), Overtaking(a_job(3).id, 1003.0))
    assert [one.key for one in loaded.history] == ["name/research/ana/job-2", "queue/research"]
    cancelled = await upgraded.job(a_job(2).id)
    assert cancelled is not None
    assert (cancelled.phase, cancelled.reason) == (JobPhase.CANCELLED, "cancelled by ana")
    assert await upgraded.idempotency_key("ana", "k1") == IdempotencyKey("ana", "k1", "d1", a_job(1).id)
    assert await upgraded.artifact("f" * 64) == ArtifactRow("f" * 64, "ana", 5, "f" * 64, 1000.0, {"of": "x"})


async def test_replay_begins_behind_the_journal_of_the_version_before(upgraded: SqlStore) -> None:
    checkpoint = await upgraded.last_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.seq, len(checkpoint.jobs)) == (6, 3)
    before = await upgraded.load()
    assert (checkpoint.profiles, checkpoint.accounts, checkpoint.history) == (before.profiles, before.accounts, before.history)
    await upgraded.commit(submitted(a_job(4), epoch=2, accounts=(Overtaking(a_job(4).id, a_job(4).submitted_at),)))

    replayed = await replay(upgraded)

    assert (replayed.events, sorted(job.order for job in replayed.jobs.values())) == (1, [1, 2, 3, 4])
    assert [sentence async for sentence in differences(upgraded, replayed)] == []


def execute(url: str, statement: str, **values: object) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


def observed(url: str, seq: int, seen: Cluster) -> None:
    execute(
        url,
        "INSERT INTO journal VALUES (:seq, 1012.0, 1, 'ClusterObserved', :name, '', 1, :body)",
        seq=seq,
        name=seen.name,
        body=event_to_json(ClusterObserved(seen)),
    )


def attempted(url: str, job: Job, number: int, phase: AttemptPhase, on: str) -> None:
    """As releases before 0003 wrote it."""
    body = {key: value for key, value in to_data(an_attempt(job, number, phase, cluster=on)).items() if key != "cluster_total"}
    statement = "INSERT INTO attempts VALUES (:job_id, :number, :phase, :body)"
    execute(url, statement, job_id=job.id, number=number, phase=phase.value, body=to_json(body).decode())


async def test_what_runs_is_measured_against_its_cluster_as_it_was_seen_last(first_release: str) -> None:
    """By the part of its cluster that it uses a gang overtakes others, whether or not its cluster is seen again before it ends."""
    observed(first_release, 7, cluster(node("a", gpus=8), node("b")))
    observed(first_release, 8, cluster(node("a", gpus=2), replace(node("b"), is_ready=False), node("c", gpus=4)))
    attempted(first_release, a_job(1), 1, AttemptPhase.FAILED, "here")
    attempted(first_release, a_job(1), 2, AttemptPhase.RUNNING, "here")
    attempted(first_release, a_job(3), 1, AttemptPhase.LAUNCHING, "never seen")
    store = SqlStore(first_release)
    await store.open()

    read = {(one.job_id, one.number): one.cluster_total for one in await store.attempts_of([a_job(1).id, a_job(3).id])}
    await store.close()

    assert read == {
        (a_job(1).id, 1): NOTHING,
        (a_job(1).id, 2): node("a", gpus=2).allocatable + node("c", gpus=4).allocatable,
        (a_job(3).id, 1): NOTHING,
    }


async def test_a_later_checkpoint_says_how_large_the_clusters_are(first_release: str, tmp_path: Path) -> None:
    """The journal's lines before it may be gone."""
    attempted(first_release, a_job(1), 1, AttemptPhase.STOPPING, "here")
    before = SqlStore(first_release, ours=up_to("0002", tmp_path / "migrations"))
    await before.open()
    await before.checkpoint(2, (cluster(node("a", gpus=2)),))
    await before.close()
    store = SqlStore(first_release)
    await store.open()

    assert [one.cluster_total for one in await store.attempts(a_job(1).id)] == [node("a", gpus=2).allocatable]
    await store.close()


def up_to(version: str, folder: Path) -> Schema:
    """The schema as it was."""
    copytree(schema.OURS.migrations, folder, ignore=ignore_patterns("__pycache__"))
    for step in (folder / "versions").glob("v*.py"):
        if step.name[1:5] > version:
            step.unlink()
    return Schema(version, folder)


async def test_who_was_exempt_from_higher_classes_still_is_after_the_upgrade(first_release: str) -> None:
    """Both in the row and in the journal, where the key had another name."""
    admitted = GangAdmitted(a_job(1).id, 1, "here", (), 1, is_class_exempt=True)
    attempted(first_release, a_job(1), 1, AttemptPhase.RUNNING, "here")
    now, before = '"is_class_exempt":false', '"is_lifted":true'
    execute(first_release, "UPDATE attempts SET body = replace(body, :now, :before)", now=now, before=before)
    execute(
        first_release,
        "INSERT INTO journal VALUES (7, 1012.0, 1, 'GangAdmitted', :job_id, '', 1, :body)",
        job_id=a_job(1).id,
        body=event_to_json(admitted).replace("is_class_exempt", "is_lifted"),
    )
    store = SqlStore(first_release)
    await store.open()

    assert [one.is_class_exempt for one in await store.attempts(a_job(1).id)] == [True]
    assert [event for _, _, event in await store.journal(6)] == [admitted]
    await store.close()


async def test_a_run_may_have_several_keys_after_the_upgrade(upgraded: SqlStore) -> None:
    again = IdempotencyKey("ana", "k2", "d2", a_job(1).id)
    await upgraded.commit(submitted(a_job(4), epoch=2, keys=(again,)))

    assert await upgraded.idempotency_keys("ana", ["k1", "k2"]) == [IdempotencyKey("ana", "k1", "d1", a_job(1).id), again]
    with pytest.raises(Conflict, match="'k1' was used before"):
        await upgraded.commit(submitted(a_job(5), epoch=2, keys=(IdempotencyKey("ana", "k1", "d", a_job(5).id),)))


async def test_a_second_start_upgrades_nothing(upgraded: SqlStore, first_release: str) -> None:
    await upgraded.commit(submitted(a_job(4), epoch=2))
    again = SqlStore(first_release)
    assert await again.open() == 3
    checkpoint = await again.last_checkpoint()
    assert checkpoint is not None
    assert checkpoint.seq == 6
    await again.close()


async def test_a_later_release_s_database_is_refused_and_left_alone(upgraded: SqlStore, first_release: str) -> None:
    engine = create_engine(first_release)
    with engine.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version_num = '0042'"))
    engine.dispose()

    for use in (SqlStore(first_release).open, SqlStore(first_release).attach):
        with pytest.raises(StoreUnreadable, match=re.escape("has schema 0042, and this version of tuttilab knows up to 0006")):
            await use()

    assert (await upgraded.leader()).epoch == 2


@pytest.mark.requires("postgres")
async def test_another_program_s_database_is_refused(postgres_server: Postgres) -> None:
    name = postgres_server.new_database()
    postgres_server.execute(name, "CREATE TABLE theirs (x int)")

    with pytest.raises(StoreUnreadable, match=r"has tables of another program \(theirs\)\. Nothing was changed"):
        await SqlStore(postgres_server.url(name)).open()

    postgres_server.drop(name)
