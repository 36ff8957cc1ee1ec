"""Retention: writes the checkpoint where a replay begins, and deletes old journal lines, runs and idempotency keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    String,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
)

from tuttilab.scheduler import __version__
from tuttilab.scheduler.domain.model import Attempt, Cluster, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory, RunPhase
from tuttilab.scheduler.domain.wire import from_json, to_json
from tuttilab.scheduler.store import postgres, rows, statements
from tuttilab.scheduler.store.base import Checkpoint
from tuttilab.scheduler.store.leadership import check_epoch
from tuttilab.scheduler.store.tables import (
    ACCOUNTS,
    ATTEMPTS,
    CHECKPOINT,
    CHECKPOINT_ROWS,
    COUNTERS,
    DAGS,
    HISTORY,
    JOBS,
    JOURNAL,
    KEYS,
    PROFILES,
    QUEUES,
    RUNS,
)

LONGEST_S: Final = 120
"""Timeout. A checkpoint of a million rows takes some seconds; commits wait meanwhile."""


def _zero_padded(place: ColumnElement[int], above: int) -> ColumnElement[str]:
    """``place`` with leading zeros, for sorting as text. ``above`` is a power of ten above every place."""
    return func.substr(cast(place + literal(above, BigInteger), String), 2)


SOURCES: Final[Sequence[tuple[str, Select[Any]]]] = (
    ("job", select(literal("job"), JOBS.c.id, JOBS.c.body)),
    ("attempt", select(literal("attempt"), ATTEMPTS.c.job_id + "/" + cast(ATTEMPTS.c.number, String), ATTEMPTS.c.body)),
    ("queue", select(literal("queue"), _zero_padded(QUEUES.c.place, 10**6) + "/" + QUEUES.c.name, QUEUES.c.body)),
    ("run", select(literal("run"), RUNS.c.id, RUNS.c.body)),
    ("dag", select(literal("dag"), DAGS.c.name + "/" + cast(DAGS.c.version, String), DAGS.c.body)),
    ("profile", select(literal("profile"), PROFILES.c.name, PROFILES.c.body)),
    ("account", select(literal("account"), ACCOUNTS.c.job_id, ACCOUNTS.c.body)),
    ("history", select(literal("history"), _zero_padded(HISTORY.c.place, 10**18) + "/" + HISTORY.c.key, HISTORY.c.body)),
)
"""Keys of queues and history begin with their place, so that the order of keys is the order of the rows."""


def write_checkpoint(connection: Connection, clusters: Iterable[Cluster]) -> int:
    """Copy the rows inside the database, without reading them into this process; return the sequence number."""
    postgres.extend_timeouts(connection, LONGEST_S)
    # Every commit takes the lock of the counter, so holding it keeps the rows unchanged.
    locked = select(COUNTERS.c.value).where(COUNTERS.c.name == "seq").with_for_update()
    seq = int(connection.execute(locked).scalar_one())
    at = connection.execute(select(JOURNAL.c.at).where(JOURNAL.c.seq <= seq).order_by(JOURNAL.c.seq.desc()).limit(1)).scalar()
    connection.execute(delete(CHECKPOINT_ROWS))
    connection.execute(delete(CHECKPOINT))
    for _, source in SOURCES:
        connection.execute(insert(CHECKPOINT_ROWS).from_select(["kind", "key", "body"], source))
    seen = [{"kind": "cluster", "key": cluster.name, "body": to_json(cluster).decode()} for cluster in clusters]
    if seen:
        connection.execute(insert(CHECKPOINT_ROWS), seen)
    connection.execute(insert(CHECKPOINT).values(id=1, seq=seq, at=at or 0.0, product=__version__))
    return seq


def read_checkpoint(connection: Connection) -> Checkpoint | None:
    found = connection.execute(select(CHECKPOINT)).mappings().first()
    if found is None:
        return None
    bodies: dict[str, list[str]] = {}
    query = select(CHECKPOINT_ROWS.c.kind, CHECKPOINT_ROWS.c.key, CHECKPOINT_ROWS.c.body)
    # Sorted here: databases do not agree on the order of text.
    for kind, _, body in sorted(tuple(row) for row in connection.execute(query)):
        bodies.setdefault(kind, []).append(body)
    jobs = [from_json(Job, body) for body in bodies.get("job", ())]
    attempts = [from_json(Attempt, body) for body in bodies.get("attempt", ())]
    return Checkpoint(
        seq=found["seq"],
        at=found["at"],
        jobs=tuple(sorted(jobs, key=lambda job: job.order)),
        attempts=tuple(sorted(attempts, key=lambda attempt: (attempt.job_id, attempt.number))),
        queues=tuple(from_json(Queue, body) for body in bodies.get("queue", ())),
        runs=tuple(from_json(Run, body) for body in bodies.get("run", ())),
        dags=newest_versions(from_json(Dag, body) for body in bodies.get("dag", ())),
        clusters=tuple(from_json(Cluster, body) for body in bodies.get("cluster", ())),
        profiles=tuple(from_json(Profile, body) for body in bodies.get("profile", ())),
        accounts=tuple(from_json(Overtaking, body) for body in bodies.get("account", ())),
        history=tuple(from_json(RunHistory, body) for body in bodies.get("history", ())),
    )


def newest_versions(dags: Iterable[Dag]) -> tuple[Dag, ...]:
    by_name: dict[str, Dag] = {}
    for dag in sorted(dags, key=lambda dag: dag.version):
        by_name[dag.name] = dag
    return tuple(by_name[name] for name in sorted(by_name))


def ended_before(connection: Connection, at: float, limit: int) -> list[str]:
    is_live = JOBS.c.phase.in_([phase.value for phase in rows.LIVE_PHASES])
    # Predecessors of running jobs too: a job may be queued again.
    wanted = {
        id_ for body in connection.execute(select(JOBS.c.body).where(is_live)).scalars() for id_ in from_json(Job, body).after
    }
    ended = select(JOBS.c.id).where(JOBS.c.ended_at < at, not_(is_live)).order_by(JOBS.c.ended_at, JOBS.c.id)
    return [job_id for job_id in connection.execute(ended.limit(limit + len(wanted))).scalars() if job_id not in wanted][:limit]


def trim(connection: Connection, epoch: int, before: float, limit: int) -> int:
    check_epoch(connection, epoch)
    postgres.extend_timeouts(connection, LONGEST_S)
    safe = connection.execute(select(CHECKPOINT.c.seq)).scalar()
    newest_seq = connection.execute(select(func.max(JOURNAL.c.seq))).scalar()
    first_kept = connection.execute(select(JOURNAL.c.seq).where(JOURNAL.c.at >= before).order_by(JOURNAL.c.seq).limit(1)).scalar()
    if safe is None or newest_seq is None:
        return 0
    last = min(safe, newest_seq - 1, newest_seq if first_kept is None else first_kept - 1)
    oldest = select(JOURNAL.c.seq).where(JOURNAL.c.seq <= last).order_by(JOURNAL.c.seq).limit(limit)
    trimmed = connection.execute(delete(JOURNAL).where(JOURNAL.c.seq.in_(oldest))).rowcount
    _drop_runs(connection, before)
    known = (exists().where(column == KEYS.c.made_id) for column in (JOBS.c.id, RUNS.c.id, JOURNAL.c.key))
    connection.execute(delete(KEYS).where(not_(or_(*known))))
    return int(trimmed)


def _drop_runs(connection: Connection, before: float) -> None:
    """Delete runs that ended before that time, from the checkpoint too: a replay that began with them would miss their rows."""
    # A run ends after its creation, so the condition on created_at leaves few rows to parse.
    old = select(RUNS.c.body).where(RUNS.c.created_at < before, RUNS.c.phase != RunPhase.RUNNING.value)
    runs = [from_json(Run, body) for body in connection.execute(old).scalars()]
    ended = [run.id for run in runs if rows.has_ended_before(run, before)]
    for start in range(0, len(ended), statements.MOST_VALUES):
        ids = ended[start : start + statements.MOST_VALUES]
        connection.execute(delete(RUNS).where(RUNS.c.id.in_(ids)))
        connection.execute(delete(CHECKPOINT_ROWS).where(CHECKPOINT_ROWS.c.kind == "run", CHECKPOINT_ROWS.c.key.in_(ids)))
