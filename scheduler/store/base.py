"""What every store can do. Implementations pass `tests/contract/test_stores.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tuttilab.scheduler.events import Event
from tuttilab.scheduler.instructions import DropJob
from tuttilab.scheduler.model import Attempt, Cluster, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to append. ``key`` is the id of what it is about (job id, cluster or queue name)."""

    event: Event
    at: float
    key: str


@dataclass(frozen=True, slots=True)
class Change:
    """One journal line as readers of `/changes` see it: no body, so that nothing private leaves."""

    seq: int
    at: float
    kind: str
    key: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Keyed:
    """An idempotency key with what it was first used for: the same key and owner gives the same job or run.

    ``digest`` is of what was asked, ``made_id`` the id of the job that it made, or of the run that it made or started over.
    """

    owner: str
    key: str
    digest: str
    made_id: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction: the events of a loop turn, the rows they changed, the keys that came with them."""

    epoch: int
    entries: tuple[Entry, ...] = ()
    jobs: tuple[Job, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    queues: tuple[Queue, ...] | None = None
    """All queues, when they changed."""
    deleted_jobs: tuple[str, ...] = ()
    keys: tuple[Keyed, ...] = ()
    runs: tuple[Run, ...] = ()
    dags: tuple[Dag, ...] = ()
    """New versions of named DAGs."""
    profiles: tuple[Profile, ...] = ()
    deleted_profiles: tuple[str, ...] = ()
    accounts: tuple[Overtaking, ...] = ()
    """Overtaking accounts of waiting jobs that changed, to be written by job id."""
    ended_accounts: tuple[str, ...] = ()
    """Jobs that wait no more: their account rows are deleted."""
    history: tuple[RunHistory, ...] = ()
    """Run-time history that changed, to be written by key; the order of the last change is the order of loading."""
    dropped_history: tuple[str, ...] = ()
    """Keys whose history rows are deleted."""
    leavings: tuple[DropJob, ...] = ()
    """What deleted jobs left on their clusters, kept until `Store.let_go`."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the service starts from: every live row, and counters."""

    jobs: tuple[Job, ...]
    """Jobs that have not ended, and the ended ones that a live job waits for."""
    attempts: tuple[Attempt, ...]
    """Live attempts, and every attempt of the jobs above."""
    queues: tuple[Queue, ...]
    last_seq: int
    last_at: float
    last_order: int
    runs: tuple[Run, ...] = ()
    """Runs that are not over."""
    dags: tuple[Dag, ...] = ()
    """The newest version of each."""
    profiles: tuple[Profile, ...] = ()
    accounts: tuple[Overtaking, ...] = ()
    history: tuple[RunHistory, ...] = ()
    """In the order in which they last changed, oldest first."""
    leavings: tuple[DropJob, ...] = ()
    """Of deleted jobs, still to be removed from their clusters."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything as it was after journal line ``seq``, from where a replay begins."""

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
class ArtifactRow:
    id: str
    owner: str
    size: int
    sha256: str
    created_at: float
    labels: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """The database. Every method is a coroutine that does its work in a thread where the driver blocks.

    Raises StoreError, and CommitUnknown when a commit may or may not have happened.
    """

    async def open(self) -> int:
        """Create or check the schema, take over leadership, and answer the new epoch.

        Raises StoreUnreadable for a file that is no database of ours, for another version's schema, and for NFS, CephFS and FUSE.
        """
        ...

    async def load(self) -> Loaded: ...

    async def commit(self, batch: Batch) -> int:
        """All or nothing; answers the last sequence number. Raises StaleEpoch when another leader took over."""
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

    async def keyed(self, owner: str, key: str) -> Keyed | None: ...

    async def keyed_among(self, owner: str, keys: Sequence[str]) -> Sequence[Keyed]:
        """Those of the owner's ``keys`` that were used, in any order."""
        ...

    async def changes(self, since: int, limit: int = 1000) -> Sequence[Change]:
        """Journal lines after ``since``, in order. Raises NotFound when ``since`` is older than what is kept."""
        ...

    async def journal(self, since: int, limit: int = 1000) -> Sequence[tuple[int, float, Event]]:
        """Journal lines with their bodies, for `tuttilab scheduler verify`."""
        ...

    async def ended_before(self, at: float, limit: int) -> Sequence[str]:
        """Ids of jobs that ended before ``at``, the oldest first, without those that an unended job comes after."""
        ...

    async def checkpoint(self, epoch: int, clusters: Sequence[Cluster]) -> int:
        """Keep the rows as they are now, and ``clusters``, as the place where a replay begins; answers its sequence number.

        Nothing may be committed between the last change of ``clusters`` and the end of this call. Raises StaleEpoch.
        """
        ...

    async def last_checkpoint(self) -> Checkpoint | None: ...

    async def oldest_line_at(self) -> float | None:
        """Service time of the oldest journal line that is kept."""
        ...

    async def trim(self, epoch: int, before: float, limit: int = 5000) -> int:
        """Drop at most ``limit`` of the oldest journal lines from before that time, but none after the checkpoint, nor the newest.

        Also runs that ended before it, and keys of jobs and runs that nothing is known of any more. Answers how many lines went.
        Raises StaleEpoch.
        """
        ...

    async def let_go(self, epoch: int, job_id: str) -> None:
        """Nothing is left of that deleted job on any cluster. Raises StaleEpoch."""
        ...

    async def add_artifact(self, epoch: int, row: ArtifactRow) -> None:
        """One that the owner has already stays as it was. Raises StaleEpoch."""
        ...

    async def artifact(self, artifact_id: str) -> ArtifactRow | None: ...

    async def close(self) -> None: ...
