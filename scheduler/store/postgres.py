"""Postgres specifics: whether a database may be used, how its tables are created, how a connection is set up.

Every wait has a timeout: a leader that was stopped in the middle of a commit holds its locks for `PATIENCE_S` at most, and a
machine that disappears counts as gone after the same time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text

from tuttilab.scheduler.domain.errors import StoreUnreadable
from tuttilab.scheduler.store import schema
from tuttilab.scheduler.store.schema import Schema

DRIVER: Final = "postgresql+psycopg"
PATIENCE_S: Final = 5
UPGRADE_LOCK: Final = int.from_bytes(b"TUTT")
"""Advisory lock: two replicas that start together create or upgrade the tables one after the other."""

UNCHANGED: Final = "Nothing was changed."


class Use(StrEnum):
    """What a connection is used for, by its isolation level. Only writers can change anything."""

    WRITING = "READ COMMITTED"
    READING = "REPEATABLE READ"
    """One snapshot per transaction."""
    SINGLE_STATEMENT = "AUTOCOMMIT"
    """One snapshot per statement: one round trip to the server instead of three."""


def engine_of(url: URL, use: Use) -> Engine:
    engine = create_engine(
        url,
        pool_size=1 if use is Use.WRITING else 2,
        max_overflow=0,
        isolation_level=use.value,
        connect_args={
            "connect_timeout": PATIENCE_S,
            "application_name": "tuttilab",
            "keepalives_idle": PATIENCE_S,
            "keepalives_interval": 2,
            "keepalives_count": 2,
            "tcp_user_timeout": PATIENCE_S * 1000,
        },
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:  # the driver's and the pool's objects have no common type
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"SET {name} = '{PATIENCE_S}s'")
        if use is not Use.WRITING:
            connection.execute("SET default_transaction_read_only = on")
            # A cached plan from when a table was small would still scan all of it when it is large.
            connection.execute("SET plan_cache_mode = force_custom_plan")
        connection.commit()

    return engine


def extend_timeouts(connection: Connection, seconds: int) -> None:
    """Raise the timeouts for this transaction only, which does more than a commit."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL statement_timeout = '{seconds}s'"))
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{seconds}s'"))


def check(connection: Connection, ours: Schema) -> str | None:
    """The schema's version, None for an empty database. Raises StoreUnreadable when it is not ours or is newer. Writes nothing."""
    version = schema.version_of(connection)
    where = f"The database {connection.engine.url.render_as_string(hide_password=True)}"
    if version is None and (found := inspect(connection).get_table_names()):
        raise StoreUnreadable(
            f"{where} has tables of another program ({', '.join(sorted(found)[:3])}). {UNCHANGED} "
            "Give tuttilab a database of its own in store.url."
        )
    if version is not None and version > ours.version:
        raise StoreUnreadable(
            f"{where} has schema {version}, and this version of tuttilab knows up to {ours.version}. "
            f"{UNCHANGED} Install the version of tuttilab that wrote it, or a newer one."
        )
    return version


def lock_for_upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
