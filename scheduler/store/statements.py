"""Statements and transactions that both databases share, and the translation of driver errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, Executable, Select, Table, bindparam, case, column, func, select, text, true, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError, OperationalError

from tuttilab.scheduler.domain.errors import CommitUnknown, StoreError, StoreUnreachable
from tuttilab.scheduler.domain.wire import to_json
from tuttilab.scheduler.store.base import IdempotencyKey, JobQuery
from tuttilab.scheduler.store.queries import MOST_SCANNED, JournalQuery
from tuttilab.scheduler.store.rows import Row
from tuttilab.scheduler.store.tables import ATTEMPTS, COUNTERS, JOBS, JOURNAL, KEYS, META

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
"""What to do, by the beginning of SQLite's error name."""

UNCERTAIN: Final = ("SQLITE_IOERR",)
"""Errors of COMMIT after which the transaction may still be in the log. All other errors rolled it back."""


RETRIED: Final = ("40001", "40P01")
"""SQLSTATE of Postgres: serialization failure and deadlock. The transaction was rolled back and can be retried."""

GONE: Final = ("08", "57P")
"""Prefixes of SQLSTATE of Postgres: the connection broke, the server shuts down or starts."""

PAUSES_S: Final = (0.0, 0.05, 0.2)
"""Before each retry of a transaction. The first is for a connection whose loss was not noticed."""


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction, with retries when it was rolled back through no fault of its own.

    Raises StoreError; StoreUnreachable when the database does not answer; CommitUnknown when the commit may have happened.
    """
    for pause in (*PAUSES_S, None):
        try:
            return _transact_once(engine, work)
        except DBAPIError as error:
            if pause is None or not _may_run_again(error):
                raise store_error(error) from error
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _transact_once(engine: Engine, work: Callable[[Connection], T]) -> T:
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
            # The transaction may still be open although SQLAlchemy considers it ended: the next one must not share its connection.
            connection.invalidate()
            if _is_gone(error) or _name(error).startswith(UNCERTAIN):
                raise CommitUnknown(f"The commit may or may not have happened: {_sentence(error)}") from error
            raise
        return answer


def run_in(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in the open transaction of ``connection``. Raises StoreError."""
    try:
        return work(connection)
    except DBAPIError as error:
        raise store_error(error) from error


def store_error(error: DBAPIError) -> StoreError:
    """Translate an error of the driver."""
    if _is_gone(error) and not _name(error):
        return StoreUnreachable(f"The database does not answer, try again in a moment: {_sentence(error)}")
    return StoreError(f"The database refused: {_sentence(error)}")


def _may_run_again(error: DBAPIError) -> bool:
    # A transaction whose connection broke before the commit was rolled back, so it can be retried.
    return _state(error) in RETRIED or error.connection_invalidated


def _is_gone(error: DBAPIError) -> bool:
    """Whether the connection broke or could not be made. Postgres then gives no SQLSTATE; SQLite has none, but names its errors."""
    state = _state(error)
    is_nameless = isinstance(error, OperationalError) and not state and not _name(error)
    return error.connection_invalidated or state.startswith(GONE) or is_nameless


def _name(error: DBAPIError) -> str:
    """SQLite's name of the error; empty for other databases."""
    return str(getattr(error.orig, "sqlite_errorname", ""))


def _state(error: DBAPIError) -> str:
    """SQLSTATE of Postgres; empty for other databases, and when the server did not answer."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _sentence(error: DBAPIError) -> str:
    if _state(error) == "53100":
        return f"the server's disk is full; make room, nothing was written ({_first_line(error)})."
    remedy = next((words for name, words in REMEDIES.items() if _name(error).startswith(name)), None)
    return f"{remedy} ({error.orig})." if remedy else f"{_first_line(error)}."


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).splitlines() or ["no reason given"])[0].rstrip(".")


# Building a statement costs more than running it, so the statements of every submit are built once and take parameters.
EPOCH: Final = select(META.c.epoch).with_for_update(read=True)
COUNTER: Final = select(COUNTERS.c.value).where(COUNTERS.c.name == bindparam("counter"))
LOCK_NUMBERS: Final = select(COUNTERS.c.value).where(COUNTERS.c.name == "seq").with_for_update()
TAKE_NUMBERS: Final = (
    update(COUNTERS)
    .where(COUNTERS.c.name.in_(("seq", "order")))
    .values(
        value=case(
            (COUNTERS.c.name == "seq", COUNTERS.c.value + bindparam("count")),
            (COUNTERS.c.value < bindparam("top"), bindparam("top")),
            else_=COUNTERS.c.value,
        )
    )
    .returning(COUNTERS.c.name, COUNTERS.c.value)
)
"""Takes ``count`` journal numbers and raises the highest order to ``top``; returns both counters."""
KEYED: Final = select(KEYS).where(KEYS.c.owner == bindparam("owner"), KEYS.c.key.in_(bindparam("keys", expanding=True)))
"""For SQLite, which looks each key up in the index, with at most `MOST_VALUES` parameters per statement."""
MOST_VALUES: Final = 500


def _keyed_one_each() -> Select[Any]:
    """`KEYED` for Postgres, whose planner would read all keys that the owner ever used and compare each with all given ones. The
    limit forces one index lookup per given key."""
    columns = [column(name, KEYS.c[name].type) for name in ("owner", "key")]
    pairs = func.json_to_recordset(text("CAST(:keys AS json)")).table_valued(*columns, name="given")
    given = pairs.render_derived(with_types=True)
    found = select(KEYS).where(KEYS.c.owner == given.c.owner, KEYS.c.key == given.c.key).limit(1).lateral("found")
    return select(found).select_from(given).join(found, true())


KEYED_ONE_EACH: Final = _keyed_one_each()


def idempotency_keys(connection: Connection, keys: Sequence[tuple[str, str]]) -> list[IdempotencyKey]:
    """The ``keys``, as pairs of owner and key, that were used before."""
    if connection.dialect.name == "postgresql":
        given = to_json([{"owner": owner, "key": key} for owner, key in keys], list[Row]).decode()
        return [IdempotencyKey(**row) for row in connection.execute(KEYED_ONE_EACH, {"keys": given}).mappings()]
    by_owner: dict[str, list[str]] = {}
    for owner, key in keys:
        by_owner.setdefault(owner, []).append(key)
    slices = (
        {"owner": owner, "keys": some[start : start + MOST_VALUES]}
        for owner, some in by_owner.items()
        for start in range(0, len(some), MOST_VALUES)
    )
    return [IdempotencyKey(**row) for given in slices for row in connection.execute(KEYED, given).mappings()]


class OnConflict(StrEnum):
    """What to do with a row whose primary key exists."""

    REFUSE = "refused"
    KEEP = "kept"
    REPLACE = "replaced"


def insert_rows(connection: Connection, table: Table, values: Sequence[Row], on_conflict: OnConflict = OnConflict.REPLACE) -> None:
    """Insert rows that all have the same columns. Raises IntegrityError for a refused row."""
    if not values:
        return
    dialect = connection.dialect.name
    statement = _insert_statement(table, tuple(values[0]), dialect, on_conflict)
    if dialect == "postgresql":
        connection.execute(statement, {"rows": to_json(values, list[Row]).decode()})
    else:
        connection.execute(statement, list(values))


@cache
def _insert_statement(table: Table, names: tuple[str, ...], dialect: str, on_conflict: OnConflict) -> Executable:
    # ``Any``: the inserts of the two dialects have the same methods but no common type.
    make: Any = postgresql.insert if dialect == "postgresql" else sqlite_dialect.insert
    statement = make(table)
    if dialect == "postgresql":
        # All rows in one JSON value: one statement per row costs the server several times as much, and arrays cost this process.
        columns = [column(name, table.c[name].type) for name in names]
        given = func.json_to_recordset(text("CAST(:rows AS json)")).table_valued(*columns, name="given")
        statement = statement.from_select(names, select(given.render_derived(with_types=True)))
    keys = [column.name for column in table.primary_key]
    if on_conflict is OnConflict.REPLACE:
        others = {name: statement.excluded[name] for name in names if name not in keys}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=others)
    elif on_conflict is OnConflict.KEEP:
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


def newest_lines(connection: Connection, query: JournalQuery) -> Sequence[Any]:
    """Journal rows as mappings, newest first (``Any``: of any column)."""
    last = connection.execute(select(func.max(JOURNAL.c.seq))).scalar() or 0
    wanted = select(JOURNAL).where(JOURNAL.c.kind.in_(query.kinds), JOURNAL.c.seq > last - MOST_SCANNED)
    if query.owner is not None:
        wanted = wanted.where(JOURNAL.c.owner == query.owner)
    if query.key is not None:
        wanted = wanted.where(JOURNAL.c.key.startswith(query.key, autoescape=True))
    if query.before is not None:
        wanted = wanted.where(JOURNAL.c.seq < query.before)
    return connection.execute(wanted.order_by(JOURNAL.c.seq.desc()).limit(query.limit)).mappings().all()


def epoch_if_unused(connection: Connection) -> int | None:
    """The epoch of a database without any attempt, 0 before it has tables; None of another one."""
    if not connection.dialect.has_table(connection, ATTEMPTS.name):
        return 0
    has_some = connection.execute(select(ATTEMPTS.c.job_id).limit(1)).first() is not None
    return None if has_some else int(connection.execute(select(META.c.epoch)).scalar() or 0)
