"""The `Store` protocol and the values that it takes and returns. Implementations pass `tests/contract/test_stores.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tuttilab.scheduler.domain.events import Event
from tuttilab.scheduler.domain.instructions import DropJob
from tuttilab.scheduler.domain.model import Attempt, Cluster, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to append. ``key`` is the id of what it is about (job id, cluster or queue name)."""

    event: Event
    at: float
    key: str


@dataclass(frozen=True, slots=True)
class Change:
    """One journal line as readers of `/changes` see it: without its body, which may be private."""

    seq: int
    at: float
    kind: str
    key: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An idempotency key of an owner and the result of its first use.

    ``digest`` is of the request body, ``made_id`` the id of the job that was submitted, or of the run that was started or retried.
    """

    owner: str
    key: str
    digest: str
    made_id: str


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    id: str
    owner: str
    size: int
    sha256: str
    created_at: float
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction: the events of a turn, the rows that they changed, and the idempotency keys of its requests."""

    epoch: int
    entries: tuple[Entry, ...] = ()
    jobs: tuple[Job, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    queues: tuple[Queue, ...] | None = None
    """All queues, when they changed."""
    deleted_jobs: tuple[str, ...] = ()
    keys: tuple[IdempotencyKey, ...] = ()
    runs: tuple[Run, ...] = ()
    dags: tuple[Dag, ...] = ()
    """New versions of named DAGs."""
    profiles: tuple[Profile, ...] = ()
    deleted_profiles: tuple[str, ...] = ()
    accounts: tuple[Overtaking, ...] = ()
    """Changed overtaking accounts of waiting jobs, one row per job id."""
    ended_accounts: tuple[str, ...] = ()
    """Jobs that no longer wait: their account rows are deleted."""
    history: tuple[RunHistory, ...] = ()
    """Changed run-time history, one row per key. Rows are loaded in the order of their last change."""
    dropped_history: tuple[str, ...] = ()
    """Keys whose history rows are deleted."""
    pending_cleanups: tuple[DropJob, ...] = ()
    """Pods and files of deleted jobs still to be removed from clusters; kept until `Store.mark_cleaned_up`."""
    artifacts: tuple[ArtifactRow, ...] = ()
    """New ones; a row of an artifact that its owner already has stays as it is."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the service starts from: all live rows, and the counters."""

    jobs: tuple[Job, ...]
    """Jobs that have not ended, and the ended ones that a live job waits for."""
    attempts: tuple[Attempt, ...]
    """Live attempts, and every attempt of the jobs above."""
    queues: tuple[Queue, ...]
    last_seq: int
    last_at: float
    last_order: int
    runs: tuple[Run, ...] = ()
    """Runs that have not ended."""
    dags: tuple[Dag, ...] = ()
    """The newest version of each."""
    profiles: tuple[Profile, ...] = ()
    accounts: tuple[Overtaking, ...] = ()
    history: tuple[RunHistory, ...] = ()
    """In the order in which they last changed, oldest first."""
    pending_cleanups: tuple[DropJob, ...] = ()
    """Of deleted jobs, still to be carried out on clusters."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All rows as they were after journal line ``seq``, where a replay begins."""

    seq: int
    at: float
    jobs: tuple[Job, ...]
    attempts: tuple[Attempt, ...]
    queues: tuple[Queue, ...]
    runs: tuple[Run, ...]
    dags: tuple[Dag, ...]
    """The newest version of each."""
    clusters: tuple[Cluster, ...]
    profiles: tuple[Profile, ...] = ()
    accounts: tuple[Overtaking, ...] = ()
    history: tuple[RunHistory, ...] = ()
    """In the order in which they last changed, oldest first."""


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A page of jobs, newest first. None means any. ``cursor`` is the order of the last job of the page before."""

    owner: str | None = None
    group: str | None = None
    queue: str | None = None
    phases: tuple[str, ...] = ()
    kind: str | None = None
    text: str | None = None
    cursor: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Note:
    """What a cluster notes of an attempt, in its own JSON. ``is_over``: its pods are forgotten."""

    cluster: str
    job_id: str
    attempt: int
    body: str
    is_over: bool = False


class NoteStore(Protocol):
    """Keeps the notes of clusters. They are no part of the journal: a replay knows nothing of them."""

    async def put_notes(self, epoch: int, notes: Sequence[Note]) -> None:
        """Add or replace. Raises StaleEpoch: a former leader notes nothing."""
        ...

    async def drop_note(self, epoch: int, cluster: str, job_id: str, attempt: int) -> None:
        """Delete it, if it is there. Raises StaleEpoch."""
        ...

    async def notes(self, cluster: str) -> Sequence[Note]:
        """Those that are not over."""
        ...

    async def note(self, cluster: str, job_id: str, attempt: int) -> Note | None: ...


class Store(Protocol):
    """The database. Every method is a coroutine; blocking drivers run in a thread.

    Raises StoreError, and CommitUnknown when a commit may or may not have happened.
    """

    async def open(self) -> int:
        """Create or check the schema, take over leadership, and return the new epoch.

        Raises StoreUnreadable for a file that is not our database, for a newer schema, and for NFS, CephFS and FUSE.
        """
        ...

    async def load(self) -> Loaded: ...

    async def commit(self, batch: Batch) -> int:
        """Commit all or nothing; return the last sequence number. Raises StaleEpoch when another leader took over."""
        ...

    async def committed(self, batch: Batch, after: int) -> int | None:
        """After CommitUnknown: the last sequence number of ``batch``, or None when it did not happen and never will.

        ``after`` is the last number before it. Only for the batch that this leader tried last.
        """
        ...

    async def job(self, job_id: str) -> Job | None: ...

    async def find_job(self, prefix: str, owner: str | None) -> Sequence[str]:
        """Ids that start with ``prefix``, at most ten."""
        ...

    async def attempts(self, job_id: str) -> Sequence[Attempt]: ...

    async def jobs(self, query: JobQuery) -> Sequence[Job]: ...

    async def run(self, run_id: str) -> Run | None: ...

    async def runs(self, owner: str | None, limit: int = 100) -> Sequence[Run]:
        """Newest first; of everybody when ``owner`` is None."""
        ...

    async def idempotency_key(self, owner: str, key: str) -> IdempotencyKey | None: ...

    async def idempotency_keys(self, owner: str, keys: Sequence[str]) -> Sequence[IdempotencyKey]:
        """The owner's ``keys`` that were used before, in any order."""
        ...

    async def changes(self, since: int, limit: int = 1000) -> Sequence[Change]:
        """Journal lines after ``since``, in order. Raises NotFound when ``since`` is older than what is kept."""
        ...

    async def journal(self, since: int, limit: int = 1000) -> Sequence[tuple[int, float, Event]]:
        """Journal lines with their bodies, for `tuttilab scheduler verify`."""
        ...

    async def ended_before(self, at: float, limit: int) -> Sequence[str]:
        """Ids of jobs that ended before ``at``, oldest first, except predecessors of jobs that have not ended."""
        ...

    async def checkpoint(self, epoch: int, clusters: Sequence[Cluster]) -> int:
        """Store the current rows and ``clusters`` as the start of a replay; return the sequence number.

        Nothing may be committed between the last change of ``clusters`` and the end of this call. Raises StaleEpoch.
        """
        ...

    async def last_checkpoint(self) -> Checkpoint | None: ...

    async def oldest_line_at(self) -> float | None:
        """Service time of the oldest journal line that is kept."""
        ...

    async def trim(self, epoch: int, before: float, limit: int = 5000) -> int:
        """Delete up to ``limit`` journal lines older than ``before``, oldest first; never the newest or one after the checkpoint.

        Also deletes runs that ended before that time, and keys whose job or run no longer has a row or a line. Returns the number
        of deleted lines. Raises StaleEpoch.
        """
        ...

    async def mark_cleaned_up(self, epoch: int, job_id: str) -> None:
        """Record that no cluster has pods or files of that deleted job any more; its notes go. Raises StaleEpoch."""
        ...

    async def artifact(self, artifact_id: str) -> ArtifactRow | None: ...

    async def close(self) -> None: ...
