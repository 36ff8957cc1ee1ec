"""What clusters note of attempts, so that whoever leads next knows it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "notes",
        sa.Column("cluster", sa.String(256), primary_key=True),
        sa.Column("job_id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("is_over", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_notes_cluster_is_over", "notes", ["cluster", "is_over"])
    op.create_index("ix_notes_job_id", "notes", ["job_id"])
