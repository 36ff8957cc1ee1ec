"""Compares the rows with a replay of the journal since the last checkpoint (`tuttilab scheduler verify`).

Compared are jobs with their attempts, queues, runs, the newest version of each DAG, profiles, the run-time history and the
overtaking accounts. Idempotency keys are not in the journal, and rows of artifacts
are not compared.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from tuttilab.scheduler.core.ordering.run_times import MAX_KEYS
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.events import Event, GangAdmitted, GangGrown, JobDeleted, JobSubmitted, RunRetried
from tuttilab.scheduler.domain.model import Attempt, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory
from tuttilab.scheduler.store.base import Checkpoint, JobQuery, Store

PAGE = 500
ALL = 10**9
"""More rows than there are."""


@dataclass(slots=True)
class Replay:
    """Replays events into a `State` and collects all rows as the last event left them."""

    state: State = field(default_factory=State)
    jobs: dict[str, Job] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    dags: dict[str, Dag] = field(default_factory=dict)
    """The newest version of each."""
    profiles: dict[str, Profile] = field(default_factory=dict)
    accounts: dict[str, Overtaking] = field(default_factory=dict)
    history: dict[str, RunHistory] = field(default_factory=dict)
    queues: tuple[Queue, ...] = ()
    events: int = 0

    def take(self, event: Event, at: float) -> None:
        if isinstance(event, GangAdmitted):
            self._set_leader_view(event.epoch, event.cluster)
        elif isinstance(event, GangGrown):
            attempt = self.state.live_attempt(event.job_id)
            self._set_leader_view(event.epoch, attempt.cluster if attempt is not None else "")
        elif isinstance(event, JobDeleted):
            self._adopt_ended_job(event.job_id)
        elif isinstance(event, JobSubmitted):
            for job_id in event.job.after:
                self._adopt_ended_job(job_id)
        elif isinstance(event, RunRetried) and event.run_id in self.runs:
            self.state.reload_run(self.runs[event.run_id])
        self.state.handle(event, at)
        changes = self.state.take_changes()
        self.jobs.update((job.id, job) for job in changes.jobs)
        self.attempts.update(((attempt.job_id, attempt.number), attempt) for attempt in changes.attempts)
        self.runs.update((run.id, run) for run in changes.runs)
        self.dags.update((dag.name, dag) for dag in changes.dags)
        self.profiles.update((profile.name, profile) for profile in changes.profiles)
        self.accounts.update((account.job_id, account) for account in changes.accounts)
        self.history.update((one.key, one) for one in changes.history)
        self.queues = self.queues if changes.queues is None else changes.queues
        for name in changes.deleted_profiles:
            self.profiles.pop(name, None)
        for job_id in changes.ended_accounts:
            self.accounts.pop(job_id, None)
        for key in changes.dropped_history:
            self.history.pop(key, None)
        for job_id in changes.deleted_jobs:
            for number in range(1, self.jobs.pop(job_id).attempts + 1):
                self.attempts.pop((job_id, number), None)
        self.events += 1

    def attempts_of(self, job: Job) -> tuple[Attempt, ...]:
        keys = [(job.id, number) for number in range(1, job.attempts + 1)]
        return tuple(self.attempts[key] for key in keys if key in self.attempts)

    def _set_leader_view(self, epoch: int, cluster_name: str) -> None:
        """Count the cluster as reachable, as a new leader does: it does not know that an earlier leader had lost it."""
        self.state.epoch = epoch
        cluster = self.state.clusters.get(cluster_name)
        if cluster is not None:
            self.state.clusters[cluster_name] = replace(cluster, unreachable_since=None)

    def _adopt_ended_job(self, job_id: str) -> None:
        """Put an ended job back into the state, as the service does from its row before such an event."""
        if job_id in self.jobs and job_id not in self.state.jobs:
            self.state.reload_job(self.jobs[job_id], self.attempts_of(self.jobs[job_id]))

    @classmethod
    def begin(cls, checkpoint: Checkpoint | None) -> Replay:
        """A replay from the checkpoint, or from the first event."""
        if checkpoint is None:
            return cls()
        state = State.load(
            checkpoint.jobs,
            checkpoint.attempts,
            checkpoint.queues,
            0,
            runs=checkpoint.runs,
            dags=checkpoint.dags,
            profiles=checkpoint.profiles,
            accounts=checkpoint.accounts,
            history=checkpoint.history,
        )
        state.clusters = {cluster.name: cluster for cluster in checkpoint.clusters}
        return cls(
            state,
            {job.id: job for job in checkpoint.jobs},
            {(attempt.job_id, attempt.number): attempt for attempt in checkpoint.attempts},
            {run.id: run for run in checkpoint.runs},
            {dag.name: dag for dag in checkpoint.dags},
            {profile.name: profile for profile in checkpoint.profiles},
            {account.job_id: account for account in checkpoint.accounts},
            {one.key: one for one in checkpoint.history},
            checkpoint.queues,
        )


class Reader(Protocol):
    """Receives the journal line by line."""

    def take(self, event: Event, at: float, /) -> None: ...


async def replay(store: Store) -> Replay:
    checkpoint = await store.last_checkpoint()
    result = Replay.begin(checkpoint)
    await read_since(store, checkpoint, result)
    return result


async def read_since(store: Store, checkpoint: Checkpoint | None, reader: Reader) -> None:
    """Pass every line after the checkpoint to ``reader``, in order."""
    since = checkpoint.seq if checkpoint else 0
    while lines := await store.journal(since, PAGE):
        for _, at, event in lines:
            reader.take(event, at)
        since = lines[-1][0]


async def differences(store: Store, replayed: Replay) -> AsyncIterator[str]:
    """One sentence for each object whose row differs from the journal."""
    async for sentence in _job_differences(store, replayed):
        yield sentence
    rows = await store.load()
    if rows.queues != replayed.queues:
        yield "The queues are others in their rows than by the journal."
    runs = {run.id: run for run in await store.runs(None, ALL)}
    history = {one.key: one for one in rows.history}
    if len(replayed.history) >= MAX_KEYS:
        # Which of the oldest keys were dropped depends on the order within a commit, which is not in the journal.
        history = {key: history.get(key, one) for key, one in replayed.history.items()}
    compared: tuple[tuple[str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("Run", runs, replayed.runs),
        ("DAG", {dag.name: dag for dag in rows.dags}, replayed.dags),
        ("Profile", {profile.name: profile for profile in rows.profiles}, replayed.profiles),
        ("The history of", history, replayed.history),
        ("The overtaking of job", {account.job_id: account for account in rows.accounts}, replayed.accounts),
    )
    for what, found, journaled in compared:
        for key in sorted(found.keys() | journaled.keys()):
            if key not in found:
                yield f"{what} {key} is in the journal and has no row."
            elif key not in journaled:
                yield f"{what} {key} has a row and is not in the journal."
            elif found[key] != journaled[key]:
                yield f"{what} {key} is another one in its row than by the journal."


async def _job_differences(store: Store, replayed: Replay) -> AsyncIterator[str]:
    unseen = dict(replayed.jobs)
    cursor = None
    while page := await store.jobs(JobQuery(cursor=cursor, limit=PAGE)):
        for row in page:
            job = unseen.pop(row.id, None)
            if job is None:
                yield f"Job {row.id} has a row and is not in the journal."
            elif job != row:
                yield f"Job {row.id} is {row.phase} in its row and {job.phase} by the journal ({_fields(job, row)} differ)."
            elif tuple(await store.attempts(row.id)) != replayed.attempts_of(job):
                yield f"Job {row.id} has other attempts in its rows than by the journal."
        cursor = page[-1].order
    for job_id in unseen:
        yield f"Job {job_id} is in the journal and has no row."


def _fields(one: Job, other: Job) -> str:
    return ", ".join(name for name in one.__slots__ if getattr(one, name) != getattr(other, name))
