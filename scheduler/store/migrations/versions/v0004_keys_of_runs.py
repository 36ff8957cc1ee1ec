"""Idempotency keys are used for runs too. A run has a key for each retry, so `made_id` is not unique."""

from alembic import op

revision = "0004"
down_revision = "0003"

NAMES = {"uq": "%(table_name)s_%(column_0_name)s_key"}
"""Name of the constraint on Postgres. On SQLite, where the table is rebuilt, the constraint has no name."""


def upgrade() -> None:
    with op.batch_alter_table("keys", naming_convention=NAMES) as keys:
        keys.drop_constraint("keys_job_id_key", type_="unique")
        keys.alter_column("job_id", new_column_name="made_id")
