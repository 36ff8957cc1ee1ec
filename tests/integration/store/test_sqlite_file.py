"""What happens to a database file: made whole, kept private, refused when it is not ours, never overwritten."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from tests.contract.building import a_job, submitted
from tuttilab.scheduler.domain.errors import CommitUnknown, StoreError, StoreUnreadable
from tuttilab.scheduler.store import schema
from tuttilab.scheduler.store.base import Batch
from tuttilab.scheduler.store.schema import Schema
from tuttilab.scheduler.store.sql import SqlStore


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def store_at(file: Path, **options: object) -> SqlStore:
    return SqlStore(f"sqlite:///{file}", **options)  # type: ignore[arg-type]  # each test passes what it is about


async def create_tables(file: Path) -> None:
    """A database with one job, closed as it should be."""
    store = store_at(file)
    epoch = await store.open()
    await store.commit(submitted(a_job(), epoch=epoch))
    await store.close()


@pytest.fixture
async def filled(file: Path) -> Path:
    await create_tables(file)
    return file


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


async def refusal(file: Path, **options: object) -> str:
    """Why the file is refused; that nothing around it was changed is asserted for every refusal."""
    before = content(file.parent) if file.parent.exists() else None
    with pytest.raises(StoreUnreadable) as refused:
        await store_at(file, **options).open()
    assert (content(file.parent) if file.parent.exists() else None) == before
    assert str(file) in str(refused.value)
    assert "Nothing was changed." in str(refused.value)
    return str(refused.value)


# --- made ------------------------------------------------------------------------------------------------------------


async def test_new_file_and_its_log_are_private_and_nothing_else_is_left(file: Path) -> None:
    store = store_at(file)
    epoch = await store.open()
    await store.commit(submitted(a_job(), epoch=epoch))

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    await store.close()
    assert [path.name for path in file.parent.iterdir()] == ["state.db"]


async def test_commits_wait_for_the_disk(file: Path) -> None:
    store = store_at(file)
    await store.open()
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")

    values = await store._write(lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas])

    assert values == ["wal", 2, 1, 5000]
    await store.close()


def run_with_store(file: Path, body: str) -> subprocess.CompletedProcess[str]:
    """``body`` in a process of its own, inside a coroutine that has `store` open under `epoch`."""
    program = f"""
import asyncio, os, resource
from tests.contract.building import a_job, submitted
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.store.sql import SqlStore

async def main():
    store = SqlStore("sqlite:///{file}")
    epoch = await store.open()
{textwrap.indent(textwrap.dedent(body), "    ")}

asyncio.run(main())
"""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env={"PYTHONPATH": "."}, timeout=150, text=True, capture_output=True)


@pytest.mark.feature("O08")
async def test_committed_work_survives_a_kill(file: Path) -> None:
    """The process ends without closing anything, so that the jobs are in the write-ahead log alone."""
    body = """
        await store.commit(submitted(*(a_job(n) for n in range(1, 51)), epoch=epoch))
        os.kill(os.getpid(), 9)
    """
    done = await asyncio.to_thread(run_with_store, file, body)
    assert done.returncode == -9, done.stderr
    assert file.with_name("state.db-wal").stat().st_size > 0

    store = store_at(file)
    assert await store.open() == 2
    assert len((await store.load()).jobs) == 50
    await store.close()


async def test_input_output_error_in_the_commit_itself_is_told_apart_and_passes(file: Path) -> None:
    """The process may not write files beyond 4 KiB for a while, which the operating system answers with an error."""
    body = """
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        await store.commit(submitted(a_job(1), epoch=epoch))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            await store.commit(submitted(a_job(2), epoch=epoch))
        except TuttiError as error:
            print(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        print(await store.commit(submitted(a_job(3), epoch=epoch)))
        print([job.order for job in (await store.load()).jobs])
        await store.close()
    """
    done = await asyncio.to_thread(run_with_store, file, body)

    assert done.stdout.split("\n") == ["CommitUnknown", "2", "[1, 3]", ""], done.stderr


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda old: b"", "is empty"),
        (lambda old: b"hello: world\n" * 100, "is not a SQLite database"),
        (lambda old: old[:50], "is not a SQLite database"),
        (lambda old: old[: len(old) - 4096], "is truncated"),
        (lambda old: old[:16] + b"\0" * 2 + old[18:], "is damaged"),
        (lambda old: old[:4096] + b"\xff" * 8192 + old[12288:], "is damaged"),
        (lambda old: old[:100] + b"\xff" * 200 + old[300:], "is damaged"),
    ],
)
async def test_damaged_file_is_refused(filled: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    filled.write_bytes(damage(filled.read_bytes()))

    assert reason in await refusal(filled)


async def test_another_programs_database_is_refused(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()

    assert "is a SQLite database of another program (application id 0, expected 1414878292)" in await refusal(file)


async def test_our_file_without_our_tables_is_refused(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA application_id = 1414878292")
        connection.execute("CREATE TABLE t (x)")
    connection.close()

    assert "has none of our tables" in await refusal(file)


async def test_newer_schema_is_refused_with_both_versions(filled: Path) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute("UPDATE schema_version SET version_num = '0042'")
    connection.close()

    assert "has schema 0042, and this version of tuttilab knows up to 0006" in await refusal(filled)


async def test_damage_under_a_log_is_refused_and_the_log_kept(filled: Path) -> None:
    """A crash left a write-ahead log; folding it into a damaged file would spoil both."""
    open_one = sqlite3.connect(filled)
    open_one.execute("UPDATE meta SET product = 'x'")
    open_one.commit()
    copies = content(filled.parent)
    open_one.close()
    for name, data in copies.items():
        if name != "state.db-shm":
            (filled.parent / name).write_bytes(data)
    data = filled.read_bytes()
    filled.write_bytes(data[:16] + b"\0\0" + data[18:])
    before = filled.read_bytes(), (filled.parent / "state.db-wal").read_bytes()

    with pytest.raises(StoreUnreadable, match="is damaged"):
        await store_at(filled).open()

    assert (filled.read_bytes(), (filled.parent / "state.db-wal").read_bytes()) == before


async def test_log_without_its_file_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.with_name("state.db-wal").write_bytes(b"frames")

    assert "its write-ahead log state.db-wal is, and may hold committed work" in await refusal(file)


@pytest.mark.parametrize("kind", ["nfs4", "ceph", "fuse.sshfs", "9p"])
async def test_shared_file_system_is_refused_before_anything_is_made(file: Path, kind: str) -> None:
    assert f"lies on a file system of type {kind}" in await refusal(file, detect=lambda path: kind)
    assert not file.parent.exists()


@pytest.mark.feature("O08")
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://db/x", "mysql://db/x"])
async def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(StoreUnreadable, match="expected a file such as sqlite:"):
        await SqlStore(url).open()


async def test_password_of_a_refused_url_is_not_shown() -> None:
    with pytest.raises(StoreUnreadable) as refused:
        await SqlStore("mysql://me:secret-word@db/x").open()

    assert "secret-word" not in str(refused.value)


# --- upgraded --------------------------------------------------------------------------------------------------------

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("colour", sa.Text, server_default="blue"))
    {last}
"""


def next_schema(folder: Path, last: str) -> Schema:
    copytree(schema.OURS.migrations, folder, ignore=ignore_patterns("__pycache__"))
    (folder / "versions" / "v0007_next.py").write_text(NEXT.format(last=last))
    return Schema("0007", folder)


async def test_older_schema_is_upgraded_and_keeps_its_rows(filled: Path, tmp_path: Path) -> None:
    store = store_at(filled, ours=next_schema(tmp_path / "migrations", ""))

    assert await store.open() == 2
    assert (await store.load()).jobs == (a_job(),)
    await store.close()

    with sqlite3.connect(filled) as connection:
        assert connection.execute("SELECT version_num FROM schema_version").fetchall() == [("0007",)]
        assert connection.execute("SELECT colour FROM jobs").fetchall() == [("blue",)]
    connection.close()
    assert "has schema 0007, and this version of tuttilab knows up to 0006" in await refusal(filled)


async def test_upgrade_that_fails_leaves_the_old_schema(filled: Path, tmp_path: Path) -> None:
    broken = next_schema(tmp_path / "migrations", 'op.execute("SELECT * FROM nowhere")')

    with pytest.raises(StoreError, match="no such table: nowhere"):
        await store_at(filled, ours=broken).open()

    store = store_at(filled)
    assert await store.open() == 2
    assert (await store.load()).jobs == (a_job(),)
    await store.close()


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_full_disk_refuses_the_commit_and_passes_when_there_is_room(file: Path) -> None:
    store = store_at(file)
    epoch = await store.open()
    await store._write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 30").scalar())
    many = submitted(*(a_job(n) for n in range(1, 400)), epoch=epoch)

    with pytest.raises(StoreError, match="the disk is full; make room, nothing was written"):
        await store.commit(many)
    assert (await store.load()).last_seq == 0

    await store._write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000").scalar())
    assert await store.commit(many) == 399
    await store.close()


async def test_read_only_database_refuses_the_commit(file: Path) -> None:
    store = store_at(file)
    epoch = await store.open()
    await store._write(lambda c: c.exec_driver_sql("PRAGMA query_only = ON"))

    with pytest.raises(StoreError, match="read-only; make it writable") as refused:
        await store.commit(submitted(a_job(), epoch=epoch))

    assert not isinstance(refused.value, CommitUnknown)
    await store.close()


async def test_reads_go_on_while_a_write_is_under_way(file: Path) -> None:
    store = store_at(file)
    epoch = await store.open()
    await store.commit(submitted(a_job(), epoch=epoch))
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(store.commit(submitted(a_job(2), epoch=epoch)))

    assert await store.job(a_job().id) == a_job()
    assert not waiting.done()
    blocker.execute("ROLLBACK")
    blocker.close()

    assert await waiting == 2
    await store.close()


async def test_a_closed_store_says_so(file: Path) -> None:
    with pytest.raises(StoreUnreadable, match="is not open"):
        await store_at(file).commit(Batch(1))
