"""The schema version of a database, and its upgrade to ours (with Alembic, run by the store itself)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from tuttilab.scheduler.store.tables import SCHEMA, SCHEMA_TABLE


@dataclass(frozen=True, slots=True)
class Schema:
    """A version and the folder of the migrations that lead to it. Versions are four digits, so that text order is age."""

    version: str
    migrations: Path


OURS: Final = Schema(SCHEMA, Path(__file__).parent / "migrations")


def version_of(connection: Connection) -> str | None:
    """None for a database without tables of ours."""
    if not connection.dialect.has_table(connection, SCHEMA_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {SCHEMA_TABLE}")).scalar()  # noqa: S608  a constant
    return None if found is None else str(found)


def upgrade(connection: Connection, to: Schema) -> None:
    """Create or upgrade the tables inside the caller's transaction."""
    # Imported late: Alembic is slow to import, and most starts find the schema up to date.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(to.migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to.version)
