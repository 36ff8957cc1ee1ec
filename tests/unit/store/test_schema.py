"""The steps of the migrations lead to the tables that the code uses."""

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from tuttilab.scheduler.store import schema
from tuttilab.scheduler.store.tables import METADATA, SCHEMA_TABLE


def test_migrations_make_exactly_the_tables() -> None:
    with create_engine("sqlite://").begin() as connection:
        schema.upgrade(connection, schema.OURS)
        context = MigrationContext.configure(connection, opts={"version_table": SCHEMA_TABLE, "compare_type": True})

        assert compare_metadata(context, METADATA) == []


def test_our_schema_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.OURS.migrations))
    config.set_main_option("path_separator", "os")

    assert ScriptDirectory.from_config(config).get_heads() == [schema.OURS.version]


def test_versions_are_four_digits_so_that_later_ones_compare_higher() -> None:
    assert schema.OURS.version.isdigit()
    assert len(schema.OURS.version) == 4
