"""Backup and restore. A backup is a SQLite file with our schema, whichever database it comes from, and restores into either one.

A backup is taken while the service runs and is one consistent snapshot. It does not contain the bytes of artifacts: they are in a
folder whose files never change, so a copy of that folder made after the backup has everything that the backup refers to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Table, delete, func, insert, make_url, select
from sqlalchemy.exc import DBAPIError

from tuttilab.scheduler.domain.errors import Conflict, NotFound, StoreError, StoreUnreadable
from tuttilab.scheduler.store import postgres, retention, schema, single_writer, sqlite
from tuttilab.scheduler.store.leadership import raise_epoch, reset_leader
from tuttilab.scheduler.store.statements import store_error
from tuttilab.scheduler.store.tables import COUNTERS, JOBS, JOURNAL, LEADER, META, METADATA

PAGE = 1000
COPIED_TABLES = tuple(table for table in METADATA.sorted_tables if table not in (META, LEADER))
"""In an order that satisfies foreign keys. `META` and `LEADER` are not copied: leadership belongs to the database itself."""


@dataclass(frozen=True, slots=True)
class Content:
    jobs: int
    last_seq: int
    last_at: float


def backup(url: str, file: Path) -> Content:
    """Write a backup of the database to ``file``. Raises Conflict when ``file`` exists, NotFound without a database, StoreError."""
    place = make_url(url)
    if file.exists():
        raise Conflict(f"{file} is there already; name another file, or move it away.")
    if not file.parent.is_dir():
        raise NotFound(f"There is no folder {file.parent}; make it, or name another file. No backup was written.")
    with _driver_errors_translated(), sqlite.created_atomically(file) as fresh:
        if place.get_backend_name() == "sqlite":
            _copy_file(Path(place.database or ""), fresh)
        else:
            _copy_out(place, fresh)
    with _engine(file) as engine, engine.connect() as connection:
        return _content(connection)


def restore(file: Path, url: str, *, force: bool) -> Content:
    """Restore a backup into a new or empty database; with ``force``, replace what the database holds.

    An existing SQLite file is kept beside it as ``….old``; its service must not run. A leader on Postgres is deposed.
    Raises Conflict, StoreError, and StoreUnreadable for a file that is no backup or has a newer schema.
    """
    if not file.exists():
        raise NotFound(f"There is no file {file}; `tuttilab scheduler backup FILE` makes one.")
    sqlite.check(file, schema.OURS)
    place = make_url(url)
    with _driver_errors_translated(), _upgraded_copy(file) as copy:
        if place.get_backend_name() == "sqlite":
            path = Path(place.database or "")
            with _exclusive(path):
                with _engine(copy) as engine, engine.begin() as connection:
                    raise_epoch(connection, _epoch_above(_epoch_in(path)))
                _put_file(copy, path, force)
        else:
            _copy_in(copy, place, force)
        with _engine(copy) as engine, engine.connect() as connection:
            return _content(connection)


@contextlib.contextmanager
def _driver_errors_translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise store_error(error) from error
    except sqlite3.Error as error:
        raise StoreError(f"The backup failed: {error}; nothing was changed.") from error


@contextlib.contextmanager
def _engine(file: Path) -> Iterator[Engine]:
    engine = sqlite.engine_of(file, is_writer=True)
    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def _connected(place: URL, *, is_writer: bool) -> Iterator[Connection]:
    engine = postgres.engine_of(place, postgres.Use.WRITING if is_writer else postgres.Use.READING)
    try:
        with engine.begin() as connection:
            postgres.extend_timeouts(connection, retention.LONGEST_S)
            yield connection
    finally:
        engine.dispose()


@contextlib.contextmanager
def _upgraded_copy(file: Path) -> Iterator[Path]:
    """A copy of the backup with our schema. The backup file itself is not changed."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".restore-") as folder:
        copy = Path(folder) / "copy.db"
        shutil.copyfile(file, copy)
        copy.chmod(0o600)
        with _engine(copy) as engine, engine.begin() as connection:
            if schema.version_of(connection) != schema.OURS.version:
                schema.upgrade(connection, schema.OURS)
                retention.write_checkpoint(connection, ())
            reset_leader(connection)
        yield copy


def _epoch_above(epoch: int) -> int:
    """An epoch above ``epoch`` and above all epochs since the backup, even when the database that recorded them is lost.

    Attempts admitted after the restore reuse numbers that were given before; only the epoch distinguishes them from older attempts
    whose pods may still run. Leaders change less often than once a second, so no epoch exceeds the Unix time.
    """
    return max(epoch, int(time.time()))


def _content(connection: Connection) -> Content:
    seq = connection.execute(select(COUNTERS.c.value).where(COUNTERS.c.name == "seq")).scalar_one()
    jobs = connection.execute(select(func.count()).select_from(JOBS)).scalar_one()
    return Content(int(jobs), int(seq), connection.execute(select(func.max(JOURNAL.c.at))).scalar() or 0.0)


# --- SQLite ------------------------------------------------------------------------------------------------------------


def _copy_file(source: Path, fresh: Path) -> None:
    if not source.exists():
        raise NotFound(f"There is no database {source} yet; the first start makes it.")
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(source))}?mode=rw", uri=True, timeout=sqlite.BUSY_S)) as live:
        live.execute("PRAGMA query_only = ON")
        with contextlib.closing(sqlite3.connect(fresh)) as copy:
            # In one step, inside one read transaction, while the service keeps writing.
            live.backup(copy)
            # The result is one file without a write-ahead log.
            copy.execute("PRAGMA journal_mode = DELETE")
    # The pages were copied without being checked.
    problem, _ = sqlite.examine(fresh)
    if problem:
        raise StoreUnreadable(
            f"{source} is damaged ({problem}), so that a backup of it could not be put back; none was made. "
            "Keep the backups that there are, and put back the newest of them."
        )


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of the database: a running control plane would keep writing into the file that is moved away.

    Raises EnvironmentProblem while one runs.
    """
    lock = single_writer.acquire(path)
    try:
        yield
    finally:
        os.close(lock)


def _epoch_in(path: Path) -> int:
    """Epoch of the database to be replaced; 0 when the file does not exist or cannot be read."""
    if not path.exists():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=sqlite.BUSY_S)) as there:
            return int(there.execute("SELECT epoch FROM meta").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return 0


def _put_file(copy: Path, path: Path, force: bool) -> None:
    if path.exists():
        if not force:
            raise Conflict(f"There is a database {path} already; with --force it is moved to {path.name}.old first.")
        for end in ("-wal", "-shm", ""):
            there = path.with_name(path.name + end)
            if there.exists():
                os.replace(there, path.with_name(f"{path.name}.old{end}"))
    with sqlite.created_atomically(path) as fresh, open(fresh, "wb") as file:
        with open(copy, "rb") as source:
            shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())


# --- Postgres ----------------------------------------------------------------------------------------------------------


def _copy_out(place: URL, fresh: Path) -> None:
    sqlite.create_tables(fresh, schema.OURS)
    with _connected(place, is_writer=False) as source:
        version = postgres.check(source, schema.OURS)
        if version is None:
            raise NotFound(f"The database {place.render_as_string()} has no tables yet; the first start makes them.")
        if version != schema.OURS.version:
            raise StoreUnreadable(
                f"The database has schema {version}, this version of tuttilab writes {schema.OURS.version}; start it once."
            )
        with _engine(fresh) as engine, engine.begin() as target:
            _copy_rows(source, target)
            raise_epoch(target, int(source.execute(select(META.c.epoch)).scalar_one()) - 1)


def _copy_in(copy: Path, place: URL, force: bool) -> None:
    with _connected(place, is_writer=True) as target:
        postgres.lock_for_upgrade(target)
        version = postgres.check(target, schema.OURS)
        if version != schema.OURS.version:
            schema.upgrade(target, schema.OURS)
        with _engine(copy) as engine, engine.connect() as source:
            # First, so that the next commit of a leader waits for this transaction and is then refused.
            raise_epoch(target, _epoch_above(int(source.execute(select(META.c.epoch)).scalar_one())))
            held = _content(target)
            if held.last_seq and not force:
                raise Conflict(
                    f"The database {place.render_as_string()} holds {held.jobs} jobs already; with --force they are removed first."
                )
            _copy_rows(source, target)


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in reversed(COPIED_TABLES):
        target.execute(delete(table))
    for table in COPIED_TABLES:
        for page in source.execution_options(yield_per=PAGE).execute(select(table)).mappings().partitions():
            target.execute(insert(table), [_row_values(table, row) for row in page])


def _row_values(table: Table, row: object) -> dict[str, object]:
    values: dict[str, object] = dict(row)  # type: ignore[call-overload]  # a mapping of columns, which has no type of its own
    return {column.key: values[column.key] for column in table.c}
