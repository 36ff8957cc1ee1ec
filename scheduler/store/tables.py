"""The tables for SQLAlchemy Core. `migrations/` creates them; a test compares the two.

The content of a row is its ``body``, in JSON of `wire`. The other columns exist for searches and joins.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

SCHEMA: Final = "0006"
"""The newest revision below `migrations/versions/`, which is the schema that this version reads and writes."""

SCHEMA_TABLE: Final = "schema_version"
"""Alembic's version table."""

METADATA: Final = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s"})

META: Final = Table(
    "meta",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("product", String(64), nullable=False),
)
"""One row. Separate from the counters because commits only read it: ``FOR SHARE`` on Postgres must not wait for another commit."""

COUNTERS: Final = Table(
    "counters",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``seq`` of the journal and the highest ``order`` of a job. Rows, because sequences commit out of order and leave gaps."""

JOURNAL: Final = Table(
    "journal",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float(53), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("key", String(256), nullable=False),
    Column("owner", String(256), nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Index(None, "key", "seq"),
)

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("order_no", BigInteger, nullable=False, unique=True),
    Column("owner", String(256), nullable=False),
    Column("group", String(256), nullable=False),
    Column("queue", String(256), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("phase", String(32), nullable=False),
    Column("name", String(256), nullable=False),
    Column("search", String(512), nullable=False),
    Column("submitted_at", Float(53), nullable=False),
    Column("ended_at", Float(53), index=True),
    Column("body", Text, nullable=False),
    Index(None, "phase", "order_no"),
    Index(None, "owner", "order_no"),
)
"""``search`` is name and id case-folded by Python: databases do not agree on letters beyond ASCII."""

ATTEMPTS: Final = Table(
    "attempts",
    METADATA,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("phase", String(32), nullable=False, index=True),
    Column("body", Text, nullable=False),
)

QUEUES: Final = Table(
    "queues",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("place", Integer, nullable=False),
    Column("body", Text, nullable=False),
)
"""``place`` keeps the order in which the configuration lists them."""

RUNS: Final = Table(
    "runs",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("owner", String(256), nullable=False, index=True),
    Column("phase", String(32), nullable=False, index=True),
    Column("created_at", Float(53), nullable=False),
    Column("body", Text, nullable=False),
)
"""Executions of DAGs."""

DAGS: Final = Table(
    "dags",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)
"""Every version of every named DAG; a version never changes."""

PROFILES: Final = Table(
    "profiles",
    METADATA,
    Column("name", String(256), primary_key=True),
    Column("body", Text, nullable=False),
)
"""Profiles of notebook servers as admins applied them; older versions are in the journal."""

ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    Column("job_id", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)
"""Overtaking accounts of waiting jobs."""

HISTORY: Final = Table(
    "history",
    METADATA,
    Column("key", String(512), primary_key=True),
    Column("place", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
"""Past run times, the basis of run-time estimates; ``place`` rises with each change."""

KEYS: Final = Table(
    "keys",
    METADATA,
    Column("owner", String(256), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("digest", String(128), nullable=False),
    Column("made_id", String(64), nullable=False),
)
"""Idempotency keys. A key outlives its job: a late repetition of a submit must not bring a deleted job back. A run has one for each
retry."""

ARTIFACTS: Final = Table(
    "artifacts",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("owner", String(256), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("labels", Text, nullable=False),
)
"""A row for each owner who has shown the bytes: the same content of two people is one file and two rows."""

PENDING_CLEANUPS: Final = Table(
    "leavings",
    METADATA,
    Column("job_id", String(64), primary_key=True),
    Column("attempts", Integer, nullable=False),
)
"""Deleted jobs whose logs and files are still to be removed from their clusters, with the number of the newest attempt."""

NOTES: Final = Table(
    "notes",
    METADATA,
    Column("cluster", String(256), primary_key=True),
    Column("job_id", String(64), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("is_over", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Index(None, "cluster", "is_over"),
    Index(None, "job_id"),
)
"""What clusters note of attempts beside what they show of their pods. ``is_over``: 1 once their pods are forgotten."""

LEADER: Final = Table(
    "leader",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("url", String(512), nullable=False),
    Column("key_digest", String(64), nullable=False),
)
"""One row: where the leader of that epoch answers. Its ``beat`` counts up while it lives. A hint; `META` is the truth."""

CHECKPOINT: Final = Table(
    "checkpoint",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("product", String(64), nullable=False),
)
"""At most one row: `CHECKPOINT_ROWS` is the state after journal line ``seq``, from where a replay begins."""

CHECKPOINT_ROWS: Final = Table(
    "checkpoint_rows",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("key", String(576), primary_key=True),
    Column("body", Text, nullable=False),
)
