"""The tables as SQLAlchemy Core sees them. `migrations/` makes them; a test compares the two.

Columns beside ``body`` exist to be searched or joined; what a row means is in its body, in JSON of `wire`.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

SCHEMA: Final = "0004"
"""The newest revision below `migrations/versions/`, which is the schema that this version reads and writes."""

SCHEMA_TABLE: Final = "schema_version"
"""Alembic's own table, by a name that says what it holds."""

METADATA: Final = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s"})

META: Final = Table(
    "meta",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("product", String(64), nullable=False),
)
"""One row. Apart from the counters, because a commit only reads it: on Postgres ``FOR SHARE`` must not wait for another commit."""

COUNTERS: Final = Table(
    "counters",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``seq`` of the journal and the highest ``order`` of a job. Rows, not sequences: those commit out of order and leave gaps."""

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
"""``search`` is name and id in lower case, as Python folds it: databases do not agree on letters beyond ASCII."""

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
"""What notebook servers get, as admins applied it; the journal has what was before."""

ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    Column("job_id", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)
"""By how much each waiting job was overtaken."""

HISTORY: Final = Table(
    "history",
    METADATA,
    Column("key", String(512), primary_key=True),
    Column("place", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
"""Run times of before, from which those of the next runs are predicted; ``place`` rises with each change."""

KEYS: Final = Table(
    "keys",
    METADATA,
    Column("owner", String(256), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("digest", String(128), nullable=False),
    Column("made_id", String(64), nullable=False),
)
"""A key outlives its job: a submit that comes again late must not bring a deleted job back. A run has one for each time that it was
started over."""

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

LEAVINGS: Final = Table(
    "leavings",
    METADATA,
    Column("job_id", String(64), primary_key=True),
    Column("attempts", Integer, nullable=False),
)
"""Deleted jobs whose logs and files are still to be removed from their clusters, with the number of the newest attempt."""

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
