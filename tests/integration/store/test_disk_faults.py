"""A disk that is full, broken or read-only at any write: no acknowledgement, nothing half done, and on again when it is mended."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from tests.builders import ADMIN, node, request
from tests.contract.building import a_job, an_attempt, submitted
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain.errors import CommitUnknown, StoreError
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store import schema
from tuttilab.scheduler.store.base import Batch, IdempotencyKey
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.store.verify import differences, replay
from tuttilab.scheduler.usecases.jobs import Jobs

NODES = (node("a", cpus=4),)
ASKED = request(command=("sleep", "3600"))
BIG = b"\0" * 65536


# --- at every write --------------------------------------------------------------------------------------------------


class BrokenDisk:
    """Refuses the statement of one number, counted from the next transaction's first, by SQLite's own error."""

    def __init__(self, store: SqlStore) -> None:
        assert store._writer is not None
        self.seen: list[str] = []
        self._fails_at: int | None = None
        self._error = ""
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            event.listen(store._writer, name, self._before)
        dialect: Any = store._writer.dialect  # a method of one object is replaced
        commit = dialect.do_commit

        def do_commit(connection: Any) -> None:
            self._count("COMMIT")
            commit(connection)

        dialect.do_commit = do_commit

    def arm(self, fails_at: int | None, error: str = "") -> None:
        self.seen, self._fails_at, self._error = [], fails_at, error

    def _before(self, _cursor: Any, statement: str, *_: Any) -> None:  # as SQLAlchemy calls it
        self._count(statement)

    def _count(self, statement: str) -> None:
        self.seen.append(statement)
        if self._fails_at == len(self.seen) - 1:
            failure = sqlite3.OperationalError(f"made to fail: {self._error}")
            failure.sqlite_errorname = self._error
            raise failure


def everything(epoch: int) -> Batch:
    """A commit that writes every table it can."""
    job = a_job(1)
    keys = (IdempotencyKey("ana", "k", "d", job.id),)
    return submitted(job, epoch=epoch, attempts=(an_attempt(job),), keys=keys, queues=(), deleted_jobs=("x" * 32,))


async def statements_of_a_commit(folder: Path) -> list[str]:
    store = SqlStore(f"sqlite:///{folder / 'count.db'}")
    epoch = await store.open()
    disk = BrokenDisk(store)
    await store.commit(everything(epoch))
    await store.close()
    return disk.seen


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("SQLITE_FULL", "the disk is full; make room, nothing was written"),
        ("SQLITE_IOERR_WRITE", "the disk does not answer as it should"),
        ("SQLITE_READONLY", "read-only; make it writable, nothing was written"),
    ],
)
async def test_a_commit_that_fails_at_any_of_its_statements_leaves_nothing(tmp_path: Path, error: str, says: str) -> None:
    points = await statements_of_a_commit(tmp_path)
    assert len(points) >= 9, points
    store = SqlStore(f"sqlite:///{tmp_path / 'state.db'}")
    epoch = await store.open()
    disk = BrokenDisk(store)
    for fails_at in range(len(points)):
        disk.arm(fails_at, error)
        with pytest.raises(StoreError, match=says) as refused:
            await store.commit(everything(epoch))
        disk.arm(None)
        # Of a commit itself that met an input/output error nobody can tell; of all else it is known that nothing happened.
        is_unknown = points[fails_at] == "COMMIT" and error == "SQLITE_IOERR_WRITE"
        assert isinstance(refused.value, CommitUnknown) == is_unknown
        assert refused.value.status == (503 if is_unknown else 507)
        assert (await store.load()).last_seq == 0
        assert await store.committed(everything(epoch), 0) is None

    assert await store.commit(everything(epoch)) == 1
    await store.close()


async def test_a_database_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        failure = sqlite3.OperationalError("database or disk is full")
        failure.sqlite_errorname = "SQLITE_FULL"
        raise OperationalError("CREATE TABLE", {}, failure)

    monkeypatch.setattr(schema, "upgrade", full)
    with pytest.raises(StoreError, match="The database refused: the disk is full; make room, nothing was written") as refused:
        await SqlStore(f"sqlite:///{tmp_path / 'state.db'}").open()

    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


# --- a disk that is really full --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def create_tables(folder: Path) -> Path:
    """A file that takes all room there is."""
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as file:
        for piece in (BIG, BIG[:4096], BIG[:1]):
            try:
                while True:
                    file.write(piece)
            except OSError:
                continue
    return filler


@asynccontextmanager
async def service_in(folder: Path) -> AsyncIterator[Service]:
    config = replace(default_config(folder), clusters=(ClusterConfig("here", "fake", NODES),))
    service = Service(config, SqlStore(config.store.url), {"here": FakeCluster("here", NODES)}, state_dir=folder)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def accepted_soon(service: Service, key: str) -> float:
    """Seconds until a submit is accepted."""
    began = time.monotonic()
    async with asyncio.timeout(60):
        while True:
            try:
                await Jobs(service).submit(ASKED, ADMIN, key)
                return time.monotonic() - began
            except StoreError:
                await asyncio.sleep(0.02)


@pytest.mark.requires("mounts")
async def test_a_full_disk_refuses_submits_and_accepts_them_soon_after_there_is_room(
    small_disk: Path, tell: Callable[[str], None]
) -> None:
    accepted: list[str] = []
    back: list[float] = []
    async with service_in(small_disk) as service:
        for round_ in range(3):
            accepted.append((await Jobs(service).submit(ASKED, ADMIN, f"before-{round_}")).id)
            filler = create_tables(small_disk)
            # The log has some room left in its last blocks: a few more may be accepted, and then none.
            refused: StoreError | None = None
            for number in range(200):
                try:
                    accepted.append((await Jobs(service).submit(ASKED, ADMIN, f"{round_}-{number}")).id)
                except StoreError as error:
                    refused = error
                    break
            assert refused is not None
            assert refused.status in (503, 507)
            filler.unlink()
            back.append(await accepted_soon(service, f"after-{round_}"))
            accepted.append((await Jobs(service).submit(ASKED, ADMIN, f"after-{round_}")).id)
    # Of most: the machine may stand still for a moment.
    assert statistics.median(back) <= 5.0
    tell(f"3 times a full disk: accepting again {max(back):.2f} s after there was room, at most")

    store = SqlStore(f"sqlite:///{small_disk / 'state.db'}")
    await store.open()
    loaded = await store.load()
    assert {job.id for job in loaded.jobs} == set(accepted), "what was acknowledged, and nothing else"
    assert [sentence async for sentence in differences(store, await replay(store))] == []
    await store.close()


@pytest.mark.requires("mounts")
async def test_a_database_on_a_full_disk_is_not_made_and_leaves_nothing_behind(small_disk: Path) -> None:
    filler = create_tables(small_disk)
    with pytest.raises(StoreError, match="make room"):
        await SqlStore(f"sqlite:///{small_disk / 'state.db'}").open()
    assert [path.name for path in small_disk.iterdir()] == ["filler"]

    filler.unlink()
    store = SqlStore(f"sqlite:///{small_disk / 'state.db'}")
    assert await store.open() == 1
    await store.close()
