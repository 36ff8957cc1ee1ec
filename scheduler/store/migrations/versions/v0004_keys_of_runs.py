"""Idempotency keys stand for runs too, which have one for each time that they were started over: what they made is not unique."""

from alembic import op

revision = "0004"
down_revision = "0003"

NAMES = {"uq": "%(table_name)s_%(column_0_name)s_key"}
"""By which Postgres knows the constraint; SQLite, where the table is made anew, knows it by none."""


def upgrade() -> None:
    with op.batch_alter_table("keys", naming_convention=NAMES) as keys:
        keys.drop_constraint("keys_job_id_key", type_="unique")
        keys.alter_column("job_id", new_column_name="made_id")
