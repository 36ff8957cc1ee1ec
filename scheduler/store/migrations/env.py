"""Run by Alembic: upgrades the schema on the connection and in the transaction of the caller."""

from alembic import context

from tuttilab.scheduler.store.tables import METADATA, SCHEMA_TABLE

# `store.schema.upgrade` passes the connection. There is no alembic.ini and no offline mode.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=SCHEMA_TABLE,
    # All steps and the new version number become visible together, or not at all.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
