"""The leader of a site's replicas; the checkpoint, so that old journal lines can be deleted; an index to find old jobs; pending
cleanups of deleted jobs on clusters."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    leader = op.create_table(
        "leader",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("url", sa.String(512), nullable=False),
        sa.Column("key_digest", sa.String(64), nullable=False),
    )
    op.create_table(
        "checkpoint",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
    )
    op.create_table(
        "checkpoint_rows",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("key", sa.String(576), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "leavings",
        sa.Column("job_id", sa.String(64), primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False),
    )
    op.create_index("ix_jobs_ended_at", "jobs", ["ended_at"])
    op.bulk_insert(leader, [{"id": 1, "epoch": 0, "beat": -1, "url": "", "key_digest": ""}])
