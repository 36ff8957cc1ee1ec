"""Conversion of model values to rows, and rules that both stores share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tuttilab.scheduler.domain.errors import Conflict, NotFound
from tuttilab.scheduler.domain.events import ArtifactStored, DagApplied, JobSubmitted, RunSubmitted
from tuttilab.scheduler.domain.model import Attempt, Dag, Job, JobPhase, Overtaking, Profile, Queue, Run, RunHistory, RunPhase
from tuttilab.scheduler.domain.wire import event_kind, event_to_json, to_data, to_json
from tuttilab.scheduler.store.base import ArtifactRow, Batch, Entry, IdempotencyKey, JobQuery, Note

BODY_VERSION: Final = 1
"""Version of journal bodies, by which a reader of old journals picks its parser."""

MOST_FOUND: Final = 10
"""Ids that a prefix search returns at most."""

LIVE_PHASES: Final = (JobPhase.QUEUED, JobPhase.ACTIVE)

Row = dict[str, Any]
"""Column name to value, for SQLAlchemy. ``Any``: columns have different types."""


def search_text(job: Job) -> str:
    return f"{job.name} {job.id}".casefold()


def job_row(job: Job) -> Row:
    return {
        "id": job.id,
        "order_no": job.order,
        "owner": job.owner,
        "group": job.group,
        "queue": job.queue,
        "kind": job.kind.value,
        "phase": job.phase.value,
        "name": job.name,
        "search": search_text(job),
        "submitted_at": job.submitted_at,
        "ended_at": job.ended_at,
        "body": to_json(job).decode(),
    }


def attempt_row(attempt: Attempt) -> Row:
    return {
        "job_id": attempt.job_id,
        "number": attempt.number,
        "phase": attempt.phase.value,
        "body": to_json(attempt).decode(),
    }


def queue_rows(queues: Iterable[Queue]) -> list[Row]:
    return [{"name": queue.name, "place": place, "body": to_json(queue).decode()} for place, queue in enumerate(queues)]


def run_row(run: Run) -> Row:
    return {
        "id": run.id,
        "owner": run.owner,
        "phase": run.phase.value,
        "created_at": run.created_at,
        "body": to_json(run).decode(),
    }


def account_row(account: Overtaking) -> Row:
    return {"job_id": account.job_id, "body": to_json(account).decode()}


def history_rows(seq: int, history: Iterable[RunHistory]) -> list[Row]:
    """Rows with rising places: by ``seq`` of the commit, then by the given order."""
    return [{"key": one.key, "place": seq * 100_000 + at, "body": to_json(one).decode()} for at, one in enumerate(history)]


def dag_row(dag: Dag) -> Row:
    return {"name": dag.name, "version": dag.version, "body": to_json(dag).decode()}


def profile_row(profile: Profile) -> Row:
    return {"name": profile.name, "body": to_json(profile).decode()}


def highest_order(batch: Batch) -> int | None:
    """Highest order of the jobs in the batch, including jobs that its runs submit later; None without jobs."""
    orders = [job.order for job in batch.jobs] + [node.job.order for run in batch.runs for node in run.nodes]
    return max(orders, default=None)


def journal_row(seq: int, epoch: int, owner: str, entry: Entry) -> Row:
    return {
        "seq": seq,
        "at": entry.at,
        "epoch": epoch,
        "kind": event_kind(entry.event),
        "key": entry.key,
        "owner": owner,
        "version": BODY_VERSION,
        "body": event_to_json(entry.event),
    }


def artifact_row(row: ArtifactRow) -> Row:
    data: Row = to_data(row)
    return data | {"labels": to_json(row.labels).decode()}


def note_row(note: Note) -> Row:
    return {
        "cluster": note.cluster,
        "job_id": note.job_id,
        "attempt": note.attempt,
        "is_over": int(note.is_over),
        "body": note.body,
    }


def note_of(row: Mapping[Any, Any]) -> Note:
    return Note(row["cluster"], row["job_id"], row["attempt"], row["body"], bool(row["is_over"]))


def event_owner(entry: Entry) -> str | None:
    """The owner that the event names; empty for events without an owner, None to look the job or run up by its key."""
    if isinstance(entry.event, JobSubmitted):
        return entry.event.job.owner
    if isinstance(entry.event, RunSubmitted):
        return entry.event.run.owner
    if isinstance(entry.event, DagApplied):
        return entry.event.dag.owner
    if isinstance(entry.event, ArtifactStored):
        return entry.event.owner
    return None if hasattr(entry.event, "job_id") or hasattr(entry.event, "run_id") else ""


def has_ended_before(run: Run, before: float) -> bool:
    """Whether the run ended before that time. A run without a recorded end counts from its creation."""
    return run.phase is not RunPhase.RUNNING and (run.created_at if run.ended_at is None else run.ended_at) < before


def check_kept(since: int, oldest: int, newest: int) -> None:
    """Raises NotFound when lines after ``since`` were deleted, or ``since`` belongs to another database."""
    if since + 1 < oldest:
        raise NotFound(f"changes since {since} are not kept any more; expected at least {oldest - 1}: fetch anew.")
    if since > newest:
        raise NotFound(f"there is no change {since} yet, the newest is {newest}; expected a number from here: fetch anew.")


def key_conflict(keys: Sequence[IdempotencyKey]) -> Conflict:
    """The error when at least one of the keys was used before."""
    shown = " or ".join(repr(row.key) for row in keys[:3])
    return Conflict(f"Idempotency-Key {shown} was used before; expected a new key for something new.")


def matches(job: Job, query: JobQuery) -> bool:
    """Whether the job matches the filters and the cursor of ``query``; the limit is not considered."""
    return (
        (query.owner is None or job.owner == query.owner)
        and (query.group is None or job.group == query.group)
        and (query.queue is None or job.queue == query.queue)
        and (not query.phases or job.phase in query.phases)
        and (query.kind is None or job.kind == query.kind)
        and (query.text is None or query.text.casefold() in search_text(job))
        and (query.cursor is None or job.order < query.cursor)
    )
