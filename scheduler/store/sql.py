"""The store on a relational database, in SQLAlchemy Core: SQLite embedded, Postgres for a site.

One connection writes, in a thread of its own, one transaction per batch; reads use other connections and see the last commit.
Only `SqlStore._prepare` and `_take_over` distinguish the two databases.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Select, delete, func, make_url, select
from sqlalchemy.exc import IntegrityError

from tuttilab.scheduler.domain.errors import StoreUnreadable
from tuttilab.scheduler.domain.events import Event
from tuttilab.scheduler.domain.instructions import DropJob
from tuttilab.scheduler.domain.model import LIVE, Attempt, Cluster, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory, RunPhase
from tuttilab.scheduler.domain.wire import event_from_json, from_json
from tuttilab.scheduler.store import filesystems, leadership, postgres, retention, rows, schema, single_writer, sqlite, statements
from tuttilab.scheduler.store.base import ArtifactRow, Batch, Change, Checkpoint, IdempotencyKey, JobQuery, Loaded, Note
from tuttilab.scheduler.store.coalesce import CoalescedReads
from tuttilab.scheduler.store.queries import JournalQuery
from tuttilab.scheduler.store.statements import OnConflict, insert_rows, run_in, select_jobs, transact
from tuttilab.scheduler.store.tables import (
    ACCOUNTS,
    ARTIFACTS,
    ATTEMPTS,
    DAGS,
    HISTORY,
    JOBS,
    JOURNAL,
    KEYS,
    NOTES,
    PENDING_CLEANUPS,
    PROFILES,
    QUEUES,
    RUNS,
)

T = TypeVar("T")

READERS = 2

MOST_IN_A_QUERY: Final = 500
"""Values of one list: a database takes a limited number of parameters."""


class SqlStore:
    """`Store` and `QueryStore` for ``sqlite:////home/me/state.db`` or ``postgresql+psycopg://me@host/database``."""

    def __init__(
        self,
        url: str,
        *,
        candidate: leadership.Candidate = leadership.Candidate(),  # noqa: B008  frozen
        detect: filesystems.Detector = filesystems.detect,
        ours: schema.Schema = schema.OURS,
    ) -> None:
        self._url = make_url(url)
        self._candidate = candidate
        self._detect = detect
        self._ours = ours
        self._writer: Engine | None = None
        self._reader: Engine | None = None
        self._statement_reader: Engine | None = None
        """For reads of one statement. On SQLite it is the reader: a transaction costs nothing there."""
        self._pinned: Connection | None = None
        self._lock: int | None = None
        """Descriptor of the lock of a SQLite file that this process leads alone."""
        self._previous_holder = ""
        self._keys = CoalescedReads(self._used)
        """Looks up idempotency keys: every submit needs one."""
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    async def open(self) -> int:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._write_thread, partial(self._prepare, leads=True))
            return await self._write(self._take_over)
        except BaseException:
            await self.close()
            raise

    async def attach(self) -> bool:
        """Open for reading, without leading. False when the database is new or its schema older than ours.

        Raises StoreError as `open` does.
        """
        loop = asyncio.get_running_loop()
        try:
            if not await loop.run_in_executor(self._write_thread, self._is_there):
                return False
            await loop.run_in_executor(self._write_thread, self._prepare)
            return await self._read(schema.version_of) == self._ours.version
        except BaseException:
            await self.close()
            raise

    async def epoch_if_unused(self) -> int | None:
        """The epoch of a database without any attempt, so that no cluster runs anything that it alone knows. None of another.

        In place of `attach`. Raises StoreError as `open` does.
        """
        if not await self.attach() and self._reader is None:
            return 0
        return await self._read(statements.epoch_if_unused)

    async def pin_snapshot(self) -> None:
        """From here on every read sees the state of this moment, while others keep writing."""
        engine = self._reader
        if engine is None:
            raise StoreUnreadable("the store is not open; open it first.")
        self._pinned = await asyncio.get_running_loop().run_in_executor(self._write_thread, _begin_pinned, engine)

    async def close(self) -> None:
        """Close connections and threads; the store cannot be opened again."""
        await self._keys.close()
        loop = asyncio.get_running_loop()
        if self._pinned is not None:
            await loop.run_in_executor(self._write_thread, self._pinned.close)
            self._pinned = None
        # The writer's connection is closed last: only it may checkpoint the write-ahead log.
        for pool, engines in (
            (self._readers, (self._reader, self._statement_reader)),
            (self._write_thread, (self._writer,)),
        ):
            for engine in engines:
                if engine is not None:
                    await loop.run_in_executor(pool, engine.dispose)
            pool.shutdown(wait=False)
        self._reader = self._statement_reader = self._writer = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _is_there(self) -> bool:
        return self._url.get_backend_name() != "sqlite" or Path(self._url.database or "").exists()

    def _prepare(self, *, leads: bool = False) -> None:
        name = self._url.database
        if self._url.drivername == postgres.DRIVER:
            self._writer = postgres.engine_of(self._url, postgres.Use.WRITING)
            self._reader = postgres.engine_of(self._url, postgres.Use.READING)
            self._statement_reader = postgres.engine_of(self._url, postgres.Use.SINGLE_STATEMENT)
            transact(self._reader, lambda connection: postgres.check(connection, self._ours))
            return
        if self._url.get_backend_name() != "sqlite" or not name or name.startswith((":memory:", "file:")):
            raise StoreUnreadable(
                f"store.url is {self._url!r}; expected a file such as sqlite:////var/lib/tuttilab/state.db, "
                f"or {postgres.DRIVER}://USER@HOST/DATABASE."
            )
        path = Path(name).absolute()
        sqlite.refuse_shared(path, self._detect)
        if leads and self._candidate.folder is not None:
            self._lock = single_writer.acquire(path)
            self._previous_holder = single_writer.holder_of(path)
        if path.exists():
            sqlite.check(path, self._ours)
        else:
            sqlite.create(path, self._ours)
        self._writer = sqlite.engine_of(path, is_writer=True)
        self._reader = self._statement_reader = sqlite.engine_of(path, is_writer=False)

    def _take_over(self, connection: Connection) -> int:
        if connection.dialect.name == "postgresql":
            postgres.lock_for_upgrade(connection)
        if schema.version_of(connection) != self._ours.version:
            postgres.extend_timeouts(connection, retention.LONGEST_S)
            has_rows = schema.version_of(connection) is not None
            schema.upgrade(connection, self._ours)
            if has_rows:
                # Journal bodies have the format of the version before, so a replay begins after them. The next leader observes
                # the clusters again.
                retention.write_checkpoint(connection, ())
        epoch = leadership.take_over(connection, self._candidate, self._previous_holder)
        if self._lock is not None and self._candidate.folder is not None:
            single_writer.write_holder(self._lock, self._candidate.folder)
        return epoch

    async def leader(self) -> leadership.Leader:
        return await self._read(leadership.leader)

    async def beat(self, epoch: int, url: str) -> None:
        """Show the other replicas that the leader is alive. Raises StaleEpoch."""
        await self._write(lambda connection: leadership.beat(connection, epoch, url))

    async def release(self, epoch: int) -> None:
        """Let another replica take over at once."""
        await self._write(lambda connection: leadership.release(connection, epoch))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._in(self._write_thread, self._writer, work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._read_on(self._reader, work)

    async def _read_one(self, work: Callable[[Connection], T]) -> T:
        """`_read` for a ``work`` of one statement, which sees one snapshot without a transaction."""
        return await self._read_on(self._statement_reader, work)

    async def _read_on(self, engine: Engine | None, work: Callable[[Connection], T]) -> T:
        held = self._pinned
        if held is not None:
            return await asyncio.get_running_loop().run_in_executor(self._write_thread, run_in, held, work)
        return await self._in(self._readers, engine, work)

    async def _in(self, pool: ThreadPoolExecutor, engine: Engine | None, work: Callable[[Connection], T]) -> T:
        if engine is None:
            raise StoreUnreadable("the store is not open; open it first.")
        return await asyncio.get_running_loop().run_in_executor(pool, transact, engine, work)

    async def commit(self, batch: Batch) -> int:
        return await self._write(lambda connection: _commit(connection, batch))

    async def committed(self, batch: Batch, after: int) -> int | None:
        return await self._write(lambda connection: _committed(connection, batch, after))

    async def load(self) -> Loaded:
        return await self._read(_load)

    async def job(self, job_id: str) -> Job | None:
        found = await self._read_one(lambda c: c.execute(select(JOBS.c.body).where(JOBS.c.id == job_id)).scalar())
        return None if found is None else from_json(Job, found)

    async def find_job(self, prefix: str, owner: str | None) -> Sequence[str]:
        # Not LIKE: its case sensitivity depends on the database.
        query = select(JOBS.c.id).where(func.substr(JOBS.c.id, 1, len(prefix)) == prefix)
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        query = query.order_by(JOBS.c.id).limit(rows.MOST_FOUND)
        return await self._read_one(lambda c: list(c.execute(query).scalars()))

    async def attempts(self, job_id: str) -> Sequence[Attempt]:
        return await self.attempts_of([job_id])

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        query = select(ATTEMPTS.c.body).where(ATTEMPTS.c.job_id.in_(job_ids))
        query = query.order_by(ATTEMPTS.c.job_id, ATTEMPTS.c.number)
        return await self._read_one(lambda c: _bodies(c, query, Attempt))

    async def jobs(self, query: JobQuery) -> Sequence[Job]:
        return await self._read_one(lambda c: _bodies(c, select_jobs(query), Job))

    async def run(self, run_id: str) -> Run | None:
        found = await self._read_one(lambda c: c.execute(select(RUNS.c.body).where(RUNS.c.id == run_id)).scalar())
        return None if found is None else from_json(Run, found)

    async def runs(self, owner: str | None, limit: int = 100) -> Sequence[Run]:
        query = select(RUNS.c.body).order_by(RUNS.c.created_at.desc(), RUNS.c.id).limit(limit)
        if owner is not None:
            query = query.where(RUNS.c.owner == owner)
        return await self._read_one(lambda c: _bodies(c, query, Run))

    async def idempotency_key(self, owner: str, key: str) -> IdempotencyKey | None:
        query = select(KEYS).where(KEYS.c.owner == owner, KEYS.c.key == key)
        found = await self._read_one(lambda c: c.execute(query).mappings().first())
        return None if found is None else IdempotencyKey(**found)

    async def idempotency_keys(self, owner: str, keys: Sequence[str]) -> Sequence[IdempotencyKey]:
        return await self._keys.find([(owner, key) for key in dict.fromkeys(keys)]) if keys else []

    async def _used(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], IdempotencyKey]:
        found = await self._read_one(lambda c: statements.idempotency_keys(c, keys))
        return {(row.owner, row.key): row for row in found}

    async def changes(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[Change]:
        columns = (JOURNAL.c.seq, JOURNAL.c.at, JOURNAL.c.kind, JOURNAL.c.key, JOURNAL.c.owner)
        found = await self._read(lambda c: _lines(c, select(*columns), since, limit, key))
        return [Change(**line) for line in found]

    async def journal(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[tuple[int, float, Event]]:
        found = await self._read(lambda c: _lines(c, select(JOURNAL), since, limit, key))
        return [(line["seq"], line["at"], event_from_json(line["kind"], line["body"])) for line in found]

    async def newest(self, query: JournalQuery) -> Sequence[tuple[int, float, str, Event]]:
        found = await self._read(lambda c: statements.newest_lines(c, query))
        return [(line["seq"], line["at"], line["key"], event_from_json(line["kind"], line["body"])) for line in found]

    async def ended_before(self, at: float, limit: int) -> Sequence[str]:
        return await self._read(lambda c: retention.ended_before(c, at, limit))

    async def checkpoint(self, epoch: int, clusters: Sequence[Cluster]) -> int:
        def work(connection: Connection) -> int:
            leadership.check_epoch(connection, epoch)
            return retention.write_checkpoint(connection, clusters)

        return await self._write(work)

    async def last_checkpoint(self) -> Checkpoint | None:
        return await self._read(retention.read_checkpoint)

    async def oldest_line_at(self) -> float | None:
        return await self._read_one(lambda c: c.execute(select(JOURNAL.c.at).order_by(JOURNAL.c.seq).limit(1)).scalar())

    async def trim(self, epoch: int, before: float, limit: int = 5000) -> int:
        return await self._write(lambda c: retention.trim(c, epoch, before, limit))

    async def mark_cleaned_up(self, epoch: int, job_id: str) -> None:
        def work(connection: Connection) -> None:
            leadership.check_epoch(connection, epoch)
            connection.execute(delete(PENDING_CLEANUPS).where(PENDING_CLEANUPS.c.job_id == job_id))
            connection.execute(delete(NOTES).where(NOTES.c.job_id == job_id))

        await self._write(work)

    async def artifact(self, artifact_id: str, owner: str | None = None) -> ArtifactRow | None:
        query = select(ARTIFACTS).where(ARTIFACTS.c.id == artifact_id).order_by(ARTIFACTS.c.owner).limit(1)
        if owner is not None:
            query = query.where(ARTIFACTS.c.owner == owner)
        found = await self._read_one(lambda c: c.execute(query).mappings().first())
        if found is None:
            return None
        return ArtifactRow(**{**found, "labels": from_json(dict[str, str], found["labels"])})

    async def artifacts_of(self, owner: str, artifact_ids: Sequence[str]) -> Sequence[str]:
        found: list[str] = []
        for begin in range(0, len(artifact_ids), MOST_IN_A_QUERY):
            some = artifact_ids[begin : begin + MOST_IN_A_QUERY]
            query = select(ARTIFACTS.c.id).where(ARTIFACTS.c.owner == owner, ARTIFACTS.c.id.in_(some))
            found += await self._read(partial(_ids, query=query))
        return found

    async def put_notes(self, epoch: int, notes: Sequence[Note]) -> None:
        def work(connection: Connection) -> None:
            leadership.check_epoch(connection, epoch)
            insert_rows(connection, NOTES, [rows.note_row(note) for note in notes])

        await self._write(work)

    async def drop_note(self, epoch: int, cluster: str, job_id: str, attempt: int) -> None:
        def work(connection: Connection) -> None:
            leadership.check_epoch(connection, epoch)
            connection.execute(delete(NOTES).where(*_is_note(cluster, job_id, attempt)))

        await self._write(work)

    async def notes(self, cluster: str) -> Sequence[Note]:
        query = select(NOTES).where(NOTES.c.cluster == cluster, NOTES.c.is_over == 0).order_by(NOTES.c.job_id, NOTES.c.attempt)
        return await self._read_one(lambda c: [rows.note_of(row) for row in c.execute(query).mappings()])

    async def note(self, cluster: str, job_id: str, attempt: int) -> Note | None:
        query = select(NOTES).where(*_is_note(cluster, job_id, attempt))
        found = await self._read_one(lambda c: c.execute(query).mappings().first())
        return None if found is None else rows.note_of(found)


def _is_note(cluster: str, job_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return NOTES.c.cluster == cluster, NOTES.c.job_id == job_id, NOTES.c.attempt == attempt


def _ids(connection: Connection, query: Select[str]) -> list[str]:
    return list(connection.execute(query).scalars())


def _begin_pinned(engine: Engine) -> Connection:
    def begin(connection: Connection) -> None:
        postgres.extend_timeouts(connection, retention.LONGEST_S)
        # The snapshot of SQLite begins with the first read.
        connection.execute(statements.COUNTER, {"counter": "seq"})

    connection = engine.connect()
    run_in(connection, begin)
    return connection


def _commit(connection: Connection, batch: Batch) -> int:
    leadership.check_epoch(connection, batch.epoch)
    seq = _append(connection, batch)
    insert_rows(connection, JOBS, [rows.job_row(job) for job in batch.jobs])
    if batch.attempts:
        insert_rows(connection, ATTEMPTS, [rows.attempt_row(attempt) for attempt in batch.attempts])
    if batch.queues is not None:
        connection.execute(delete(QUEUES))
        insert_rows(connection, QUEUES, rows.queue_rows(batch.queues))
    insert_rows(connection, RUNS, [rows.run_row(run) for run in batch.runs])
    insert_rows(connection, DAGS, [rows.dag_row(dag) for dag in batch.dags])
    insert_rows(connection, PROFILES, [rows.profile_row(profile) for profile in batch.profiles])
    if batch.deleted_profiles:
        connection.execute(delete(PROFILES).where(PROFILES.c.name.in_(batch.deleted_profiles)))
    insert_rows(connection, ACCOUNTS, [rows.account_row(account) for account in batch.accounts])
    if batch.ended_accounts:
        connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.job_id.in_(batch.ended_accounts)))
    insert_rows(connection, HISTORY, rows.history_rows(seq, batch.history))
    if batch.dropped_history:
        connection.execute(delete(HISTORY).where(HISTORY.c.key.in_(batch.dropped_history)))
    _add_keys(connection, batch.keys)
    insert_rows(connection, ARTIFACTS, [rows.artifact_row(row) for row in batch.artifacts], OnConflict.KEEP)
    insert_rows(connection, PENDING_CLEANUPS, [{"job_id": one.job_id, "attempts": one.attempts} for one in batch.pending_cleanups])
    if batch.deleted_jobs:
        connection.execute(delete(JOBS).where(JOBS.c.id.in_(batch.deleted_jobs)))
    return seq


def _add_keys(connection: Connection, keys: Sequence[IdempotencyKey]) -> None:
    if not keys:
        return
    values = [
        {
            "owner": row.owner,
            "key": row.key,
            "digest": row.digest,
            "made_id": row.made_id,
        }
        for row in keys
    ]
    try:
        insert_rows(connection, KEYS, values, OnConflict.REFUSE)
    except IntegrityError as error:
        # The primary key allows each key once per owner.
        raise rows.key_conflict(keys) from error


def _committed(connection: Connection, batch: Batch, after: int) -> int | None:
    """The last sequence number of ``batch``, None when it was not committed.

    Taking the counter's lock waits for a commit that is still in flight in the server, so that the result is final.
    """
    connection.execute(statements.LOCK_NUMBERS)
    lines = select(func.count(), func.max(JOURNAL.c.seq)).where(JOURNAL.c.seq > after, JOURNAL.c.epoch == batch.epoch)
    count, last = connection.execute(lines).one()
    return int(last) if count == len(batch.entries) > 0 else None


def _append(connection: Connection, batch: Batch) -> int:
    """Append the journal lines; return the last sequence number. The lock of the counter row keeps commits in number order."""
    count, top = len(batch.entries), rows.highest_order(batch)
    if not count and top is None:
        return _counter(connection, "seq")
    # The highest order is stored apart from the jobs: the newest job may be deleted, and its order must not be reused.
    taken = connection.execute(statements.TAKE_NUMBERS, {"count": count, "top": 0 if top is None else top}).all()
    last = next(int(value) for name, value in taken if name == "seq")
    owners = _owners(connection, batch)
    first = last - count + 1
    lines = [
        rows.journal_row(first + index, batch.epoch, rows.event_owner(entry) or owners.get(entry.key, ""), entry)
        for index, entry in enumerate(batch.entries)
    ]
    insert_rows(connection, JOURNAL, lines, OnConflict.REFUSE)
    return last


def _owners(connection: Connection, batch: Batch) -> dict[str, str]:
    """Owners of the jobs and runs of events that do not name an owner, by key."""
    owners = {job.id: job.owner for job in batch.jobs} | {run.id: run.owner for run in batch.runs}
    wanted = {entry.key for entry in batch.entries if rows.event_owner(entry) is None} - owners.keys()
    if wanted:
        found = connection.execute(select(JOBS.c.id, JOBS.c.owner).where(JOBS.c.id.in_(wanted)))
        owners |= {row.id: row.owner for row in found}
    return owners


def _counter(connection: Connection, name: str) -> int:
    return int(connection.execute(statements.COUNTER, {"counter": name}).scalar_one())


def _load(connection: Connection) -> Loaded:
    with_live_attempt = select(ATTEMPTS.c.job_id).where(ATTEMPTS.c.phase.in_([phase.value for phase in LIVE]))
    is_live = JOBS.c.phase.in_([phase.value for phase in rows.LIVE_PHASES]) | JOBS.c.id.in_(with_live_attempt)
    jobs = _bodies(connection, select(JOBS.c.body).where(is_live), Job)
    before = sorted({job_id for job in jobs for job_id in job.after} - {job.id for job in jobs})
    attempts = _bodies(
        connection,
        select(ATTEMPTS.c.body).join(JOBS, JOBS.c.id == ATTEMPTS.c.job_id).where(is_live),
        Attempt,
    )
    # In slices: the number of parameters of a statement is limited.
    for start in range(0, len(before), 500):
        ids = before[start : start + 500]
        jobs += _bodies(connection, select(JOBS.c.body).where(JOBS.c.id.in_(ids)), Job)
        attempts += _bodies(connection, select(ATTEMPTS.c.body).where(ATTEMPTS.c.job_id.in_(ids)), Attempt)
    return Loaded(
        jobs=tuple(sorted(jobs, key=lambda job: job.order)),
        attempts=tuple(sorted(attempts, key=lambda attempt: (attempt.job_id, attempt.number))),
        queues=tuple(_bodies(connection, select(QUEUES.c.body).order_by(QUEUES.c.place), Queue)),
        last_seq=_counter(connection, "seq"),
        last_at=connection.execute(select(JOURNAL.c.at).order_by(JOURNAL.c.seq.desc()).limit(1)).scalar() or 0.0,
        last_order=_counter(connection, "order"),
        runs=tuple(_bodies(connection, select(RUNS.c.body).where(RUNS.c.phase == RunPhase.RUNNING.value), Run)),
        dags=tuple(_bodies(connection, _newest_dags(), Dag)),
        profiles=tuple(_bodies(connection, select(PROFILES.c.body).order_by(PROFILES.c.name), Profile)),
        accounts=tuple(_bodies(connection, select(ACCOUNTS.c.body).order_by(ACCOUNTS.c.job_id), Overtaking)),
        history=tuple(_bodies(connection, select(HISTORY.c.body).order_by(HISTORY.c.place), RunHistory)),
        pending_cleanups=tuple(
            DropJob(*row) for row in connection.execute(select(PENDING_CLEANUPS).order_by(PENDING_CLEANUPS.c.job_id))
        ),
    )


def _newest_dags() -> Select[tuple[str]]:
    newest = select(DAGS.c.name, func.max(DAGS.c.version).label("version")).group_by(DAGS.c.name).subquery()
    return (
        select(DAGS.c.body)
        .join(newest, (DAGS.c.name == newest.c.name) & (DAGS.c.version == newest.c.version))
        .order_by(DAGS.c.name)
    )


def _bodies(connection: Connection, query: Select[Any], cls: type[T]) -> list[T]:
    return [from_json(cls, body) for body in connection.execute(query).scalars()]


def _lines(connection: Connection, query: Select[Any], since: int, limit: int, key: str | None) -> Sequence[Any]:
    """Journal rows as mappings (``Any``: the caller chooses the columns)."""
    if key is None:
        newest = _counter(connection, "seq")
        oldest = connection.execute(select(func.min(JOURNAL.c.seq))).scalar()
        rows.check_kept(since, newest + 1 if oldest is None else oldest, newest)
    else:
        query = query.where(JOURNAL.c.key == key)
    query = query.where(JOURNAL.c.seq > since).order_by(JOURNAL.c.seq).limit(limit)
    return connection.execute(query).mappings().all()
