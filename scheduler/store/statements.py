"""Statements and transactions that every database runs alike, and the driver's errors as ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, Executable, Select, Table, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError

from tuttilab.scheduler.errors import CommitUnknown, StoreError
from tuttilab.scheduler.store.base import JobQuery
from tuttilab.scheduler.store.rows import Row
from tuttilab.scheduler.store.tables import COUNTERS, JOBS, JOURNAL, KEYS, META

T = TypeVar("T")

REMEDIES: Final = {
    "SQLITE_FULL": "the disk is full; make room, nothing was written",
    "SQLITE_READONLY": "the file or its disk is read-only; make it writable, nothing was written",
    "SQLITE_BUSY": "another process holds the write lock; end it, nothing was written",
    "SQLITE_CORRUPT": "the file is damaged; stop the service and put back a backup",
    "SQLITE_NOTADB": "the file is damaged; stop the service and put back a backup",
    "SQLITE_IOERR": "the disk does not answer as it should; see the kernel's log",
    "SQLITE_CANTOPEN": "the file cannot be opened; see that it is there and that not too many files are open",
}
"""By the beginning of SQLite's error name, in words of what to do."""

UNCERTAIN: Final = ("SQLITE_IOERR",)
"""Errors of COMMIT itself after which a restart may find the transaction in the log. All others have rolled it back."""


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction. Raises StoreError, and CommitUnknown when only the commit itself failed."""
    try:
        with engine.connect() as connection:
            transaction = connection.begin()
            try:
                answer = work(connection)
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if error.connection_invalidated or _name(error).startswith(UNCERTAIN):
                    raise CommitUnknown(f"The commit may or may not have happened: {_sentence(error)}") from error
                raise
            return answer
    except DBAPIError as error:
        raise StoreError(f"The database refused: {_sentence(error)}") from error


def _name(error: DBAPIError) -> str:
    """SQLite's own name of the error; empty for other databases."""
    return str(getattr(error.orig, "sqlite_errorname", ""))


def _sentence(error: DBAPIError) -> str:
    remedy = next((words for name, words in REMEDIES.items() if _name(error).startswith(name)), None)
    return f"{remedy} ({error.orig})." if remedy else f"{error.orig}."


# Building a statement costs more than running it, so those of every commit are built once, with their values as parameters.
EPOCH: Final = select(META.c.epoch).with_for_update(read=True)
COUNTER: Final = select(COUNTERS.c.value).where(COUNTERS.c.name == bindparam("counter"))
TAKE_NUMBERS: Final = (
    update(COUNTERS).where(COUNTERS.c.name == "seq").values(value=COUNTERS.c.value + bindparam("count")).returning(COUNTERS.c.value)
)
RAISE_ORDER: Final = (
    update(COUNTERS).where(COUNTERS.c.name == "order", COUNTERS.c.value < bindparam("top")).values(value=bindparam("top"))
)
APPEND: Final = insert(JOURNAL)
ADD_KEY: Final = insert(KEYS)
SAME_KEY: Final = select(KEYS.c.key).where(
    (KEYS.c.owner == bindparam("owner")) & (KEYS.c.key == bindparam("key")) | (KEYS.c.job_id == bindparam("job_id"))
)


def upsert(connection: Connection, table: Table, values: Sequence[Row], *, replace: bool = True) -> None:
    """Insert rows, and replace (or keep) those that are there by primary key."""
    if values:
        connection.execute(_upsert(table, connection.dialect.name, replace), list(values))


@cache
def _upsert(table: Table, dialect: str, replace: bool) -> Executable:
    # The two dialects spell it alike and SQLAlchemy has no common name for it; hence ``Any``.
    make: Any = postgresql.insert if dialect == "postgresql" else sqlite_dialect.insert
    statement = make(table)
    keys = [column.name for column in table.primary_key]
    if replace:
        others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=others)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    return cast(Executable, statement)


def select_jobs(query: JobQuery) -> Select[tuple[str]]:
    found = select(JOBS.c.body)
    equal = {"owner": query.owner, "group": query.group, "queue": query.queue, "kind": query.kind}
    for name, value in equal.items():
        if value is not None:
            found = found.where(JOBS.c[name] == value)
    if query.phases:
        found = found.where(JOBS.c.phase.in_(query.phases))
    if query.text is not None:
        found = found.where(JOBS.c.search.contains(query.text.casefold(), autoescape=True))
    if query.cursor is not None:
        found = found.where(JOBS.c.order_no < query.cursor)
    return found.order_by(JOBS.c.order_no.desc()).limit(query.limit)
