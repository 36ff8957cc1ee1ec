"""A backup taken under load is whole, goes back into either database, and never over what is there unless it is told to."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.building import a_job, an_attempt, submitted
from tests.contract.test_upgrades import FIRST
from tests.postgres import Postgres
from tuttilab.scheduler.domain.errors import Conflict, NotFound, StaleEpoch, StoreError, StoreUnreadable
from tuttilab.scheduler.domain.model import AttemptPhase, JobPhase, Overtaking
from tuttilab.scheduler.store import backup as copying
from tuttilab.scheduler.store import sqlite
from tuttilab.scheduler.store.base import ArtifactRow, Batch, IdempotencyKey
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.store.verify import differences, replay

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.requires("postgres"))]

pytestmark = pytest.mark.feature("O08")


def url_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'state.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    name = server.new_database()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from url_of(request.param, request, tmp_path / "source")


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from url_of(request.param, request, tmp_path / "target")


async def found_wrong(store: SqlStore) -> list[str]:
    return [sentence async for sentence in differences(store, await replay(store))]


async def test_a_backup_under_load_is_one_moment_and_restores_into_either_database(
    source: str, target: str, tmp_path: Path
) -> None:
    store = SqlStore(source)
    epoch = await store.open()
    acknowledged: list[int] = []
    is_under_way, is_over = asyncio.Event(), asyncio.Event()

    async def load() -> None:
        for order in range(1, 1_000_000):
            job = a_job(order)
            keys, accounts = (IdempotencyKey("ana", f"k{order}", "d", job.id),), (Overtaking(job.id, job.submitted_at),)
            await store.commit(submitted(job, epoch=epoch, keys=keys, accounts=accounts))
            acknowledged.append(order)
            if order == 100:
                is_under_way.set()
            if is_over.is_set():
                return
            await asyncio.sleep(0)

    await store.commit(Batch(epoch, artifacts=(ArtifactRow("f" * 64, "ana", 5, "f" * 64, 1.5, {"of": "x"}),)))
    loading = asyncio.create_task(load())
    await is_under_way.wait()
    before, file = len(acknowledged), tmp_path / "backup"
    content = await asyncio.to_thread(copying.backup, source, file)
    after = len(acknowledged)
    is_over.set()
    await loading
    await store.close()

    restored = await asyncio.to_thread(lambda: copying.restore(file, target, force=False))

    assert restored == content
    back = SqlStore(target)
    assert await back.open() > epoch
    jobs = (await back.load()).jobs
    assert [job.order for job in jobs] == list(range(1, content.jobs + 1)), "a beginning of what happened, without a gap"
    assert before <= content.jobs == content.last_seq <= after + 1
    assert await back.idempotency_key("ana", "k100") == IdempotencyKey("ana", "k100", "d", a_job(100).id)
    assert await back.artifact("f" * 64) == ArtifactRow("f" * 64, "ana", 5, "f" * 64, 1.5, {"of": "x"})
    assert await found_wrong(back) == []
    assert await back.commit(submitted(a_job(content.jobs + 1), epoch=(await back.leader()).epoch)) == content.last_seq + 1
    await back.close()


async def filled(url: str, *orders: int) -> None:
    store = SqlStore(url)
    epoch = await store.open()
    job = a_job(orders[0], phase=JobPhase.ACTIVE, attempts=1)
    rest = tuple(a_job(order) for order in orders[1:])
    await store.commit(submitted(job, *rest, epoch=epoch, attempts=(an_attempt(job, phase=AttemptPhase.RUNNING),)))
    await store.checkpoint(epoch, ())
    await store.close()


async def orders_in(url: str) -> list[int]:
    store = SqlStore(url)
    assert await store.attach()
    try:
        return [job.order for job in (await store.load()).jobs]
    finally:
        await store.close()


async def test_what_is_there_is_only_replaced_by_force(target: str, tmp_path: Path) -> None:
    await filled(f"sqlite:///{tmp_path / 'other.db'}", 7, 8)
    copying.backup(f"sqlite:///{tmp_path / 'other.db'}", tmp_path / "backup")
    await filled(target, 1, 2, 3)

    with pytest.raises(Conflict, match="already; with --force"):
        copying.restore(tmp_path / "backup", target, force=False)
    assert await orders_in(target) == [1, 2, 3]
    content = copying.restore(tmp_path / "backup", target, force=True)

    assert (content.jobs, content.last_seq) == (2, 2)
    assert await orders_in(target) == [7, 8]
    if target.startswith("sqlite"):
        assert await orders_in(target + ".old") == [1, 2, 3]


@pytest.mark.requires("postgres")
async def test_a_leader_whose_database_is_restored_under_it_is_deposed(postgres_server: Postgres, tmp_path: Path) -> None:
    name = postgres_server.new_database()
    url = postgres_server.url(name)
    await filled(url, 1)
    copying.backup(url, tmp_path / "backup")
    leader = SqlStore(url)
    epoch = await leader.open()

    copying.restore(tmp_path / "backup", url, force=True)

    with pytest.raises(StaleEpoch):
        await leader.commit(submitted(a_job(2), epoch=epoch))
    await leader.close()
    assert await orders_in(url) == [1]
    postgres_server.drop(name)


async def test_a_backup_of_the_first_release_is_restored_upgraded(target: str, tmp_path: Path) -> None:
    file = tmp_path / "old-backup"
    with sqlite3.connect(file) as connection:
        connection.executescript(FIRST)
        connection.execute(f"PRAGMA application_id = {sqlite.APPLICATION_ID}")
    connection.close()
    before = file.read_bytes()

    copying.restore(file, target, force=False)

    assert await orders_in(target) == [1, 3]
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


async def test_a_file_that_is_no_backup_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n" * 100)
    with pytest.raises(StoreUnreadable, match="is not a SQLite database"):
        copying.restore(tmp_path / "text", target, force=True)
    with pytest.raises(NotFound, match="There is no file"):
        copying.restore(tmp_path / "nothing", target, force=True)


async def test_a_backup_overwrites_nothing_and_leaves_nothing_half_done(source: str, tmp_path: Path) -> None:
    await filled(source, 1)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(Conflict, match=re.escape(f"{tmp_path / 'there'} is there already")):
        copying.backup(source, tmp_path / "there")
    with pytest.raises(StoreError):
        copying.backup(source, Path("/proc/backup"))

    assert (tmp_path / "there").read_text() == "mine"
    copying.backup(source, tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["backup", "source", "there"], ["backup", "there"])


@pytest.mark.parametrize("is_live", [False, True])
async def test_a_damaged_database_is_not_taken_for_a_backup(tmp_path: Path, is_live: bool) -> None:
    database, file = tmp_path / "state.db", tmp_path / "backup"
    await filled(f"sqlite:///{database}", *range(1, 200))
    store = SqlStore(f"sqlite:///{database}")
    if is_live:
        epoch = await store.open()
        await store.commit(submitted(a_job(300), epoch=epoch))
    with open(database, "r+b") as damaged:
        damaged.seek(5 * 4096)
        damaged.write(b"\xff" * 4096)

    with pytest.raises(StoreUnreadable, match=re.escape(f"{database} is damaged (")) as refused:
        copying.backup(f"sqlite:///{database}", file)

    assert "none was made" in str(refused.value)
    assert not [path for path in tmp_path.iterdir() if "backup" in path.name]
    await store.close()


async def test_a_held_store_shows_one_moment_while_others_write(source: str) -> None:
    writer, reader = SqlStore(source), SqlStore(source)
    epoch = await writer.open()
    await writer.commit(submitted(a_job(1), epoch=epoch))
    assert await reader.attach()
    await reader.pin_snapshot()
    await writer.commit(submitted(a_job(2), epoch=epoch))

    assert [job.order for job in (await reader.load()).jobs] == [1]
    assert [change.seq for change in await reader.changes(0)] == [1]
    await reader.close()
    await writer.close()
