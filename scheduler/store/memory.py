"""A store in memory: for tests, the simulator, and services whose state need not survive. Same contract as `sql`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from tuttilab.scheduler.domain.errors import StaleEpoch, StoreError
from tuttilab.scheduler.domain.events import Event
from tuttilab.scheduler.domain.instructions import DropJob
from tuttilab.scheduler.domain.model import Attempt, Cluster, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory, RunPhase
from tuttilab.scheduler.domain.wire import event_kind
from tuttilab.scheduler.store.base import ArtifactRow, Batch, Change, Checkpoint, Entry, IdempotencyKey, JobQuery, Loaded, Note
from tuttilab.scheduler.store.queries import MOST_SCANNED, JournalQuery
from tuttilab.scheduler.store.rows import (
    LIVE_PHASES,
    MOST_FOUND,
    check_kept,
    event_owner,
    has_ended_before,
    highest_order,
    key_conflict,
    matches,
)


class MemoryStore:
    """Rows in dictionaries. They survive `close`, so that a test can open the store again as after a restart."""

    def __init__(self) -> None:
        self._epoch = 0
        self._seq = 0
        self._order = 0
        self._lines: list[tuple[Change, Event]] = []
        self._jobs: dict[str, Job] = {}
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._queues: tuple[Queue, ...] = ()
        self._runs: dict[str, Run] = {}
        self._dags: dict[str, Dag] = {}
        self._accounts: dict[str, Overtaking] = {}
        self._history: dict[str, RunHistory] = {}
        self._profiles: dict[str, Profile] = {}
        self._keys: dict[tuple[str, str], IdempotencyKey] = {}
        self._artifacts: dict[tuple[str, str], ArtifactRow] = {}
        self._checkpoint: Checkpoint | None = None
        self._pending_cleanups: dict[str, DropJob] = {}
        self._notes: dict[tuple[str, str, int], Note] = {}

    async def open(self) -> int:
        self._epoch += 1
        return self._epoch

    async def close(self) -> None:
        return

    async def load(self) -> Loaded:
        live = {job.id for job in self._jobs.values() if job.phase in LIVE_PHASES}
        live |= {attempt.job_id for attempt in self._attempts.values() if attempt.phase.is_live}
        wanted = live | {before for job_id in live for before in self._jobs[job_id].after if before in self._jobs}
        return Loaded(
            jobs=tuple(sorted((self._jobs[job_id] for job_id in wanted), key=lambda job: job.order)),
            attempts=tuple(await self.attempts_of(sorted(wanted))),
            queues=self._queues,
            last_seq=self._seq,
            last_at=self._lines[-1][0].at if self._lines else 0.0,
            last_order=self._order,
            runs=tuple(run for run in self._runs.values() if run.phase is RunPhase.RUNNING),
            dags=tuple(dag for _, dag in sorted(self._dags.items())),
            accounts=tuple(account for _, account in sorted(self._accounts.items())),
            history=tuple(self._history.values()),
            profiles=tuple(profile for _, profile in sorted(self._profiles.items())),
            pending_cleanups=tuple(cleanup for _, cleanup in sorted(self._pending_cleanups.items())),
        )

    async def mark_cleaned_up(self, epoch: int, job_id: str) -> None:
        self._check(Batch(epoch))
        self._pending_cleanups.pop(job_id, None)
        self._notes = {key: note for key, note in self._notes.items() if note.job_id != job_id}

    async def committed(self, batch: Batch, after: int) -> int | None:
        return self._seq if self._seq - after == len(batch.entries) > 0 else None

    async def commit(self, batch: Batch) -> int:
        # Checks come first: after them nothing awaits and nothing fails.
        self._check(batch)
        for entry in batch.entries:
            self._seq += 1
            change = Change(self._seq, entry.at, event_kind(entry.event), entry.key, self._owner(entry, batch))
            self._lines.append((change, entry.event))
        for job in batch.jobs:
            self._jobs[job.id] = job
        self._order = max(self._order, highest_order(batch) or 0)
        self._runs |= {run.id: run for run in batch.runs}
        self._dags |= {dag.name: dag for dag in batch.dags}
        self._profiles |= {profile.name: profile for profile in batch.profiles}
        for name in batch.deleted_profiles:
            self._profiles.pop(name, None)
        self._accounts |= {account.job_id: account for account in batch.accounts}
        for job_id in batch.ended_accounts:
            self._accounts.pop(job_id, None)
        for one in batch.history:
            self._history.pop(one.key, None)  # The order of the last change is the order of loading.
            self._history[one.key] = one
        for key in batch.dropped_history:
            self._history.pop(key, None)
        self._attempts |= {(attempt.job_id, attempt.number): attempt for attempt in batch.attempts}
        if batch.queues is not None:
            self._queues = batch.queues
        self._keys |= {(row.owner, row.key): row for row in batch.keys}
        for row in batch.artifacts:
            self._artifacts.setdefault((row.id, row.owner), replace(row, labels=dict(row.labels)))
        self._pending_cleanups |= {cleanup.job_id: cleanup for cleanup in batch.pending_cleanups}
        for job_id in batch.deleted_jobs:
            self._jobs.pop(job_id, None)
            self._attempts = {key: attempt for key, attempt in self._attempts.items() if key[0] != job_id}
        return self._seq

    def _check(self, batch: Batch) -> None:
        if batch.epoch != self._epoch:
            raise StaleEpoch(f"epoch {batch.epoch} was given, and {self._epoch} leads; this process has to stop.")
        known = self._jobs.keys() | {job.id for job in batch.jobs}
        orphans = {attempt.job_id for attempt in batch.attempts}
        if orphans - known:
            raise StoreError(f"rows of {', '.join(sorted(orphans - known))} were given, and there is no such job.")
        taken = set(self._keys)
        for row in batch.keys:
            if (row.owner, row.key) in taken:
                raise key_conflict([row])
            taken.add((row.owner, row.key))

    def _owner(self, entry: Entry, batch: Batch) -> str:
        owner = event_owner(entry)
        if owner is not None:
            return owner
        job = next((job for job in batch.jobs if job.id == entry.key), None) or self._jobs.get(entry.key)
        run = next((run for run in batch.runs if run.id == entry.key), None) or self._runs.get(entry.key)
        return job.owner if job else run.owner if run else ""

    async def job(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    async def find_job(self, prefix: str, owner: str | None) -> Sequence[str]:
        found = (j.id for j in self._jobs.values() if j.id.startswith(prefix) and owner in (None, j.owner))
        return sorted(found)[:MOST_FOUND]

    async def attempts(self, job_id: str) -> Sequence[Attempt]:
        return await self.attempts_of([job_id])

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        wanted = set(job_ids)
        return [attempt for key, attempt in sorted(self._attempts.items()) if key[0] in wanted]

    async def jobs(self, query: JobQuery) -> Sequence[Job]:
        newest_first = sorted(self._jobs.values(), key=lambda job: -job.order)
        return [job for job in newest_first if matches(job, query)][: query.limit]

    async def run(self, run_id: str) -> Run | None:
        return self._runs.get(run_id)

    async def runs(self, owner: str | None, limit: int = 100) -> Sequence[Run]:
        mine = [run for run in self._runs.values() if owner in (None, run.owner)]
        return sorted(mine, key=lambda run: (-run.created_at, run.id))[:limit]

    async def idempotency_key(self, owner: str, key: str) -> IdempotencyKey | None:
        return self._keys.get((owner, key))

    async def idempotency_keys(self, owner: str, keys: Sequence[str]) -> Sequence[IdempotencyKey]:
        return [self._keys[owner, key] for key in dict.fromkeys(keys) if (owner, key) in self._keys]

    async def changes(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[Change]:
        return [change for change, _ in self._after(since, limit, key)]

    async def journal(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[tuple[int, float, Event]]:
        return [(change.seq, change.at, event) for change, event in self._after(since, limit, key)]

    async def newest(self, query: JournalQuery) -> Sequence[tuple[int, float, str, Event]]:
        found = (
            (line.seq, line.at, line.key, event)
            for line, event in reversed(self._lines[-MOST_SCANNED:])
            if line.kind in query.kinds
            and query.owner in (None, line.owner)
            and line.key.startswith(query.key or "")
            and (query.before is None or line.seq < query.before)
        )
        return list(itertools.islice(found, query.limit))

    def _after(self, since: int, limit: int, key: str | None) -> list[tuple[Change, Event]]:
        oldest = self._lines[0][0].seq if self._lines else self._seq + 1
        if key is None:
            check_kept(since, oldest, self._seq)
            begin = since + 1 - oldest
            return self._lines[begin : begin + limit]
        return [line for line in self._lines if line[0].seq > since and line[0].key == key][:limit]

    async def ended_before(self, at: float, limit: int) -> Sequence[str]:
        wanted = {job_id for job in self._jobs.values() if job.phase in LIVE_PHASES for job_id in job.after}
        ended = sorted((job.ended_at, job.id) for job in self._jobs.values() if job.ended_at is not None and job.phase.is_terminal)
        return [job_id for ended_at, job_id in ended if ended_at < at and job_id not in wanted][:limit]

    async def checkpoint(self, epoch: int, clusters: Sequence[Cluster]) -> int:
        self._check(Batch(epoch))
        self._checkpoint = Checkpoint(
            seq=self._seq,
            at=self._lines[-1][0].at if self._lines else 0.0,
            jobs=tuple(sorted(self._jobs.values(), key=lambda job: job.order)),
            attempts=tuple(attempt for _, attempt in sorted(self._attempts.items())),
            queues=self._queues,
            runs=tuple(run for _, run in sorted(self._runs.items())),
            dags=tuple(dag for _, dag in sorted(self._dags.items())),
            clusters=tuple(sorted(clusters, key=lambda cluster: cluster.name)),
            profiles=tuple(profile for _, profile in sorted(self._profiles.items())),
            accounts=tuple(account for _, account in sorted(self._accounts.items())),
            history=tuple(self._history.values()),
        )
        return self._seq

    async def last_checkpoint(self) -> Checkpoint | None:
        return self._checkpoint

    async def oldest_line_at(self) -> float | None:
        return self._lines[0][0].at if self._lines else None

    async def trim(self, epoch: int, before: float, limit: int = 5000) -> int:
        self._check(Batch(epoch))
        safe = self._checkpoint.seq if self._checkpoint else 0
        old = itertools.takewhile(lambda line: line[0].at < before and line[0].seq <= safe, self._lines[:-1])
        trimmed = len(list(itertools.islice(old, limit)))
        self._lines = self._lines[trimmed:]
        over = {run.id for run in self._runs.values() if has_ended_before(run, before)}
        self._runs = {run.id: run for run in self._runs.values() if run.id not in over}
        if self._checkpoint is not None:
            left = tuple(run for run in self._checkpoint.runs if run.id not in over)
            self._checkpoint = replace(self._checkpoint, runs=left)
        known_ids = self._jobs.keys() | self._runs.keys() | {change.key for change, _ in self._lines}
        self._keys = {name: row for name, row in self._keys.items() if row.made_id in known_ids}
        return trimmed

    async def artifact(self, artifact_id: str, owner: str | None = None) -> ArtifactRow | None:
        rows = (row for key, row in sorted(self._artifacts.items()) if key[0] == artifact_id)
        return next((row for row in rows if owner in (None, row.owner)), None)

    async def artifacts_of(self, owner: str, artifact_ids: Sequence[str]) -> Sequence[str]:
        return [one for one in artifact_ids if (one, owner) in self._artifacts]

    async def put_notes(self, epoch: int, notes: Sequence[Note]) -> None:
        self._check(Batch(epoch))
        self._notes |= {(note.cluster, note.job_id, note.attempt): note for note in notes}

    async def drop_note(self, epoch: int, cluster: str, job_id: str, attempt: int) -> None:
        self._check(Batch(epoch))
        self._notes.pop((cluster, job_id, attempt), None)

    async def notes(self, cluster: str) -> Sequence[Note]:
        return [note for _, note in sorted(self._notes.items()) if note.cluster == cluster and not note.is_over]

    async def note(self, cluster: str, job_id: str, attempt: int) -> Note | None:
        return self._notes.get((cluster, job_id, attempt))
