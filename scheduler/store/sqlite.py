"""SQLite specifics: whether a file may be used, how it is created, how a connection is set up.

A file that is not ours, is damaged, or has a newer schema is refused before anything is written and stays unchanged: the checks
read it without SQLite, or with SQLite opened read-only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError

from tuttilab.scheduler.domain.errors import StoreError, StoreUnreadable
from tuttilab.scheduler.store import filesystems, schema
from tuttilab.scheduler.store.schema import Schema
from tuttilab.scheduler.store.statements import store_error

APPLICATION_ID: Final = int.from_bytes(b"TUTT")
"""In the header of each of our files, so that a SQLite file of another program is never mistaken for one."""

MAGIC: Final = b"SQLite format 3\0"
BUSY_S: Final = 5.0
"""How long a write waits for the write of another process; longer means that something is stuck."""

UNCHANGED: Final = "Nothing was changed."
ADVICE: Final = "Move it away to begin anew, put back a copy of it from a backup, or set store.url to another file."


def refuse_shared(path: Path, detect: filesystems.Detector) -> None:
    kind = detect(path.parent)
    if filesystems.is_shared(kind):
        raise StoreUnreadable(
            f"{path} lies on a file system of type {kind}, where SQLite's locks do not protect it; expected a local disk. "
            f"{UNCHANGED} Set store.url (or TUTTILAB_STATE_DIR) to a path on a local disk, or use Postgres."
        )


def check(path: Path, ours: Schema) -> None:
    """Raises StoreUnreadable unless the file can be used as it is or after an upgrade. Writes nothing."""
    _check_header(path)
    problem, version = examine(path)
    if problem:
        raise StoreUnreadable(f"{path} is damaged ({problem}). {UNCHANGED} {ADVICE}")
    if version is None:
        raise StoreUnreadable(f"{path} has none of our tables. {UNCHANGED} {ADVICE}")
    if version > ours.version:
        raise StoreUnreadable(
            f"{path} has schema {version}, and this version of tuttilab knows up to {ours.version}. "
            f"{UNCHANGED} Install the version of tuttilab that wrote it, or a newer one."
        )


def examine(path: Path) -> tuple[str, str | None]:
    """Damage found in the file, empty when it is sound; and its schema version. Writes nothing."""
    # With a write-ahead log the file alone is not the database; without one not even a lock is needed.
    mode = "mode=ro" if _has_log(path) else "immutable=1"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True))
    try:
        with engine.connect() as connection:
            problem = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
            return ("", schema.version_of(connection)) if problem == "ok" else (problem, None)
    except DatabaseError as error:
        return str(error.orig), None
    finally:
        engine.dispose()


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _check_header(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            header = file.read(100)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StoreUnreadable(f"{path} cannot be read ({error.strerror}). {UNCHANGED} Mend its owner or mode.") from error
    if not header.startswith(MAGIC) or len(header) < 100:
        found = "is empty" if not header else "is not a SQLite database"
        raise StoreUnreadable(f"{path} {found}; expected the database of tuttilab. {UNCHANGED} {ADVICE}")
    if int.from_bytes(header[68:72]) != APPLICATION_ID:
        raise StoreUnreadable(
            f"{path} is a SQLite database of another program (application id {int.from_bytes(header[68:72])}, "
            f"expected {APPLICATION_ID}). {UNCHANGED} Set store.url to a file of tuttilab's own."
        )
    page = int.from_bytes(header[16:18])
    expected = (65536 if page == 1 else page) * int.from_bytes(header[28:32])
    if size < expected and not _has_log(path):
        raise StoreUnreadable(f"{path} is truncated: {size} bytes, expected {expected}. {UNCHANGED} {ADVICE}")


def create(path: Path, ours: Schema) -> None:
    """Create a database. It gets its name only when it is complete, so that a crash leaves no partial file."""
    leftover = path.with_name(path.name + "-wal")
    if leftover.exists():
        raise StoreUnreadable(
            f"{path} is not there, but its write-ahead log {leftover.name} is, and may hold committed work. "
            f"{UNCHANGED} Put {path.name} back beside it, or move {leftover.name} away to begin anew."
        )
    with created_atomically(path) as fresh:
        create_tables(fresh, ours)


@contextlib.contextmanager
def created_atomically(path: Path) -> Iterator[Path]:
    """An empty private file beside ``path`` that is renamed to it when the block ends without an error. Raises StoreError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield fresh
        # link, unlike rename, does not replace a file that another process created meanwhile.
        os.link(fresh, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except FileExistsError:
        raise StoreUnreadable(f"{path} was made by another process just now. {UNCHANGED} Start again.") from None
    except DBAPIError as error:
        raise store_error(error) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}; make room or mend the mode of its folder.") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def create_tables(fresh: Path, ours: Schema) -> None:
    """Create our tables in an empty file."""
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(fresh))
    try:
        _begin_by_hand(engine)
        with engine.begin() as connection:
            schema.upgrade(connection, ours)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    finally:
        engine.dispose()


def _begin_by_hand(engine: Engine, statement: str = "BEGIN IMMEDIATE") -> None:
    """Begin transactions ourselves: Python's driver begins late, and not at all before DDL."""

    @event.listens_for(engine, "connect")
    def no_implicit_begin(connection: Any, _record: Any) -> None:  # the driver's and the pool's objects have no common type
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)


def engine_of(path: Path, *, is_writer: bool) -> Engine:
    """Connections to an existing file. Transactions of the writer take the write lock at once, so that they never fail half-way."""
    pool = {"pool_size": 1, "max_overflow": 0} if is_writer else {"pool_size": 2, "max_overflow": 0}

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_S, check_same_thread=False)

    # The path in the URL only selects the pool for files. `connect` above opens the file and never creates one.
    engine = create_engine(f"sqlite:///{quote(str(path))}", creator=connect, **pool)
    _begin_by_hand(engine, "BEGIN IMMEDIATE" if is_writer else "BEGIN")

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:  # as above
        connection.execute("PRAGMA journal_mode = WAL")
        # Every commit reaches the disk before it is acknowledged.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if not is_writer:
            connection.execute("PRAGMA query_only = ON")

    return engine
