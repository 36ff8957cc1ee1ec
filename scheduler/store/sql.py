"""The store on a relational database, in SQLAlchemy Core: SQLite embedded, Postgres for a site.

One connection writes, in a thread of its own, one transaction a batch; reads use other connections and see the last commit.
Nothing here but `SqlStore._prepare` knows which of the two it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Select, delete, func, make_url, select
from sqlalchemy.exc import IntegrityError

from tuttilab.scheduler.errors import StoreUnreadable
from tuttilab.scheduler.events import Event
from tuttilab.scheduler.instructions import DropJob
from tuttilab.scheduler.model import LIVE, Attempt, Cluster, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory, RunPhase
from tuttilab.scheduler.store import filesystems, keeping, leading, postgres, rows, schema, sole, sqlite, statements
from tuttilab.scheduler.store.base import ArtifactRow, Batch, Change, Checkpoint, JobQuery, Keyed, Loaded
from tuttilab.scheduler.store.statements import Known, put, run_in, select_jobs, transact
from tuttilab.scheduler.store.tables import (
    ACCOUNTS,
    ARTIFACTS,
    ATTEMPTS,
    DAGS,
    HISTORY,
    JOBS,
    JOURNAL,
    KEYS,
    LEAVINGS,
    PROFILES,
    QUEUES,
    RUNS,
)
from tuttilab.scheduler.store.together import Together
from tuttilab.scheduler.wire import event_from_json, from_json

T = TypeVar("T")

READERS = 2


class SqlStore:
    """`Store` and `ReadingStore` for ``sqlite:////home/me/state.db`` or ``postgresql+psycopg://me@host/database``."""

    def __init__(
        self,
        url: str,
        *,
        candidate: leading.Candidate = leading.Candidate(),  # noqa: B008  frozen
        detect: filesystems.Detector = filesystems.detect,
        ours: schema.Schema = schema.OURS,
    ) -> None:
        self._url = make_url(url)
        self._candidate = candidate
        self._detect = detect
        self._ours = ours
        self._writer: Engine | None = None
        self._reader: Engine | None = None
        self._looker: Engine | None = None
        """For reads of one statement. The reader, where a transaction around it costs nothing."""
        self._held: Connection | None = None
        self._lock: int | None = None
        """Of a SQLite file that this process leads alone."""
        self._led_by = ""
        self._keys = Together(self._used)
        """Every submit asks whether its key was used."""
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    async def open(self) -> int:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writing, partial(self._prepare, leads=True))
            return await self._write(self._take_over)
        except BaseException:
            await self.close()
            raise

    async def attach(self) -> bool:
        """Read without leading. False, and nothing to read, when the database is new or its schema older than ours.

        Raises StoreError as `open` does.
        """
        loop = asyncio.get_running_loop()
        try:
            if not await loop.run_in_executor(self._writing, self._is_there):
                return False
            await loop.run_in_executor(self._writing, self._prepare)
            return await self._read(schema.version_of) == self._ours.version
        except BaseException:
            await self.close()
            raise

    async def hold(self) -> None:
        """From here on every read sees the state of this moment, while others write on."""
        engine = self._reader
        if engine is None:
            raise StoreUnreadable("the store is not open; open it first.")
        self._held = await asyncio.get_running_loop().run_in_executor(self._writing, _begun, engine)

    async def close(self) -> None:
        """Ends the threads too: a store is opened once."""
        await self._keys.close()
        loop = asyncio.get_running_loop()
        if self._held is not None:
            await loop.run_in_executor(self._writing, self._held.close)
            self._held = None
        # The writer's connection goes last: only it may fold the log into the file.
        for pool, engines in ((self._reading, (self._reader, self._looker)), (self._writing, (self._writer,))):
            for engine in engines:
                if engine is not None:
                    await loop.run_in_executor(pool, engine.dispose)
            pool.shutdown(wait=False)
        self._reader = self._looker = self._writer = None
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
            self._looker = postgres.engine_of(self._url, postgres.Use.LOOKING)
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
            self._lock = sole.take(path)
            self._led_by = sole.told_of(path)
        if path.exists():
            sqlite.check(path, self._ours)
        else:
            sqlite.create(path, self._ours)
        self._writer = sqlite.engine_of(path, is_writer=True)
        self._reader = self._looker = sqlite.engine_of(path, is_writer=False)

    def _take_over(self, connection: Connection) -> int:
        if connection.dialect.name == "postgresql":
            postgres.lock_for_upgrade(connection)
        if schema.version_of(connection) != self._ours.version:
            postgres.be_patient(connection, keeping.LONGEST_S)
            has_rows = schema.version_of(connection) is not None
            schema.upgrade(connection, self._ours)
            if has_rows:
                # The journal's bodies are those of the version before: a replay begins behind them. Which clusters there are is
                # told anew by whoever leads next.
                keeping.write_checkpoint(connection, ())
        epoch = leading.take_over(connection, self._candidate, self._led_by)
        if self._lock is not None and self._candidate.folder is not None:
            sole.sign(self._lock, self._candidate.folder)
        return epoch

    async def leader(self) -> leading.Leader:
        return await self._read(leading.leader)

    async def beat(self, epoch: int, url: str) -> None:
        """Tell the other replicas that the leader lives. Raises StaleEpoch."""
        await self._write(lambda connection: leading.beat(connection, epoch, url))

    async def release(self, epoch: int) -> None:
        """Let another replica take over at once."""
        await self._write(lambda connection: leading.release(connection, epoch))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._in(self._writing, self._writer, work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._read_on(self._reader, work)

    async def _look(self, work: Callable[[Connection], T]) -> T:
        """`_read` for a ``work`` of one statement, which sees one state by itself."""
        return await self._read_on(self._looker, work)

    async def _read_on(self, engine: Engine | None, work: Callable[[Connection], T]) -> T:
        held = self._held
        if held is not None:
            return await asyncio.get_running_loop().run_in_executor(self._writing, run_in, held, work)
        return await self._in(self._reading, engine, work)

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
        found = await self._look(lambda c: c.execute(select(JOBS.c.body).where(JOBS.c.id == job_id)).scalar())
        return None if found is None else from_json(Job, found)

    async def find_job(self, prefix: str, owner: str | None) -> Sequence[str]:
        # Not LIKE: it disregards case on one database and not on another.
        query = select(JOBS.c.id).where(func.substr(JOBS.c.id, 1, len(prefix)) == prefix)
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        query = query.order_by(JOBS.c.id).limit(rows.MOST_FOUND)
        return await self._look(lambda c: list(c.execute(query).scalars()))

    async def attempts(self, job_id: str) -> Sequence[Attempt]:
        return await self.attempts_of([job_id])

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        query = select(ATTEMPTS.c.body).where(ATTEMPTS.c.job_id.in_(job_ids))
        query = query.order_by(ATTEMPTS.c.job_id, ATTEMPTS.c.number)
        return await self._look(lambda c: _bodies(c, query, Attempt))

    async def jobs(self, query: JobQuery) -> Sequence[Job]:
        return await self._look(lambda c: _bodies(c, select_jobs(query), Job))

    async def run(self, run_id: str) -> Run | None:
        found = await self._look(lambda c: c.execute(select(RUNS.c.body).where(RUNS.c.id == run_id)).scalar())
        return None if found is None else from_json(Run, found)

    async def runs(self, owner: str | None, limit: int = 100) -> Sequence[Run]:
        query = select(RUNS.c.body).order_by(RUNS.c.created_at.desc(), RUNS.c.id).limit(limit)
        if owner is not None:
            query = query.where(RUNS.c.owner == owner)
        return await self._look(lambda c: _bodies(c, query, Run))

    async def keyed(self, owner: str, key: str) -> Keyed | None:
        query = select(KEYS).where(KEYS.c.owner == owner, KEYS.c.key == key)
        found = await self._look(lambda c: c.execute(query).mappings().first())
        return None if found is None else Keyed(**found)

    async def keyed_among(self, owner: str, keys: Sequence[str]) -> Sequence[Keyed]:
        return await self._keys.find([(owner, key) for key in dict.fromkeys(keys)]) if keys else []

    async def _used(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Keyed]:
        found = await self._look(lambda c: statements.keyed_among(c, keys))
        return {(keyed.owner, keyed.key): keyed for keyed in found}

    async def changes(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[Change]:
        columns = (JOURNAL.c.seq, JOURNAL.c.at, JOURNAL.c.kind, JOURNAL.c.key, JOURNAL.c.owner)
        found = await self._read(lambda c: _lines(c, select(*columns), since, limit, key))
        return [Change(**line) for line in found]

    async def journal(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[tuple[int, float, Event]]:
        found = await self._read(lambda c: _lines(c, select(JOURNAL), since, limit, key))
        return [(line["seq"], line["at"], event_from_json(line["kind"], line["body"])) for line in found]

    async def ended_before(self, at: float, limit: int) -> Sequence[str]:
        return await self._read(lambda c: keeping.ended_before(c, at, limit))

    async def checkpoint(self, epoch: int, clusters: Sequence[Cluster]) -> int:
        def work(connection: Connection) -> int:
            leading.check_epoch(connection, epoch)
            return keeping.write_checkpoint(connection, clusters)

        return await self._write(work)

    async def last_checkpoint(self) -> Checkpoint | None:
        return await self._read(keeping.read_checkpoint)

    async def oldest_line_at(self) -> float | None:
        return await self._look(lambda c: c.execute(select(JOURNAL.c.at).order_by(JOURNAL.c.seq).limit(1)).scalar())

    async def trim(self, epoch: int, before: float, limit: int = 5000) -> int:
        return await self._write(lambda c: keeping.trim(c, epoch, before, limit))

    async def let_go(self, epoch: int, job_id: str) -> None:
        def work(connection: Connection) -> None:
            leading.check_epoch(connection, epoch)
            connection.execute(delete(LEAVINGS).where(LEAVINGS.c.job_id == job_id))

        await self._write(work)

    async def add_artifact(self, epoch: int, row: ArtifactRow) -> None:
        def work(connection: Connection) -> None:
            leading.check_epoch(connection, epoch)
            put(connection, ARTIFACTS, [rows.artifact_row(row)], Known.KEPT)

        await self._write(work)

    async def artifact(self, artifact_id: str, owner: str | None = None) -> ArtifactRow | None:
        query = select(ARTIFACTS).where(ARTIFACTS.c.id == artifact_id).order_by(ARTIFACTS.c.owner).limit(1)
        if owner is not None:
            query = query.where(ARTIFACTS.c.owner == owner)
        found = await self._look(lambda c: c.execute(query).mappings().first())
        if found is None:
            return None
        return ArtifactRow(**{**found, "labels": from_json(dict[str, str], found["labels"])})


def _begun(engine: Engine) -> Connection:
    def begin(connection: Connection) -> None:
        postgres.be_patient(connection, keeping.LONGEST_S)
        # SQLite's view of the file begins with the first read.
        connection.execute(statements.COUNTER, {"counter": "seq"})

    connection = engine.connect()
    run_in(connection, begin)
    return connection


def _commit(connection: Connection, batch: Batch) -> int:
    leading.check_epoch(connection, batch.epoch)
    seq = _append(connection, batch)
    put(connection, JOBS, [rows.job_row(job) for job in batch.jobs])
    if batch.attempts:
        put(connection, ATTEMPTS, [rows.attempt_row(attempt) for attempt in batch.attempts])
    if batch.queues is not None:
        connection.execute(delete(QUEUES))
        put(connection, QUEUES, rows.queue_rows(batch.queues))
    put(connection, RUNS, [rows.run_row(run) for run in batch.runs])
    put(connection, DAGS, [rows.dag_row(dag) for dag in batch.dags])
    put(connection, PROFILES, [rows.profile_row(profile) for profile in batch.profiles])
    if batch.deleted_profiles:
        connection.execute(delete(PROFILES).where(PROFILES.c.name.in_(batch.deleted_profiles)))
    put(connection, ACCOUNTS, [rows.account_row(account) for account in batch.accounts])
    if batch.ended_accounts:
        connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.job_id.in_(batch.ended_accounts)))
    put(connection, HISTORY, rows.history_rows(seq, batch.history))
    if batch.dropped_history:
        connection.execute(delete(HISTORY).where(HISTORY.c.key.in_(batch.dropped_history)))
    _add_keys(connection, batch.keys)
    put(connection, LEAVINGS, [{"job_id": one.job_id, "attempts": one.attempts} for one in batch.leavings])
    if batch.deleted_jobs:
        connection.execute(delete(JOBS).where(JOBS.c.id.in_(batch.deleted_jobs)))
    return seq


def _add_keys(connection: Connection, keys: Sequence[Keyed]) -> None:
    if not keys:
        return
    values = [{"owner": keyed.owner, "key": keyed.key, "digest": keyed.digest, "made_id": keyed.made_id} for keyed in keys]
    try:
        put(connection, KEYS, values, Known.REFUSED)
    except IntegrityError as error:
        # The table's own constraint says so: an owner uses a key once.
        raise rows.key_taken(keys) from error


def _committed(connection: Connection, batch: Batch, after: int) -> int | None:
    """The counter's lock waits for a commit that is still under way in the server, so that the answer stays true."""
    connection.execute(statements.LOCK_NUMBERS)
    lines = select(func.count(), func.max(JOURNAL.c.seq)).where(JOURNAL.c.seq > after, JOURNAL.c.epoch == batch.epoch)
    count, last = connection.execute(lines).one()
    return int(last) if count == len(batch.entries) > 0 else None


def _append(connection: Connection, batch: Batch) -> int:
    """The journal's lines, numbered by the counter row, whose lock orders the commits as their numbers."""
    count, top = len(batch.entries), rows.highest_order(batch)
    if not count and top is None:
        return _counter(connection, "seq")
    # The order is kept apart from the jobs, because the newest may be deleted and its place must not be given again.
    taken = connection.execute(statements.TAKE_NUMBERS, {"count": count, "top": 0 if top is None else top}).all()
    last = next(int(value) for name, value in taken if name == "seq")
    owners = _owners(connection, batch)
    first = last - count + 1
    lines = [
        rows.journal_row(first + index, batch.epoch, rows.owner_in(entry) or owners.get(entry.key, ""), entry)
        for index, entry in enumerate(batch.entries)
    ]
    put(connection, JOURNAL, lines, Known.REFUSED)
    return last


def _owners(connection: Connection, batch: Batch) -> dict[str, str]:
    """Owners of the jobs that events without an owner of their own are about."""
    owners = {job.id: job.owner for job in batch.jobs} | {run.id: run.owner for run in batch.runs}
    wanted = {entry.key for entry in batch.entries if rows.owner_in(entry) is None} - owners.keys()
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
    # In slices, because a statement may carry only so many values.
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
        leavings=tuple(DropJob(*row) for row in connection.execute(select(LEAVINGS).order_by(LEAVINGS.c.job_id))),
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
    """Rows of the journal as mappings (``Any``: the columns are the caller's choice)."""
    if key is None:
        newest = _counter(connection, "seq")
        oldest = connection.execute(select(func.min(JOURNAL.c.seq))).scalar()
        rows.check_kept(since, newest + 1 if oldest is None else oldest, newest)
    else:
        query = query.where(JOURNAL.c.key == key)
    query = query.where(JOURNAL.c.seq > since).order_by(JOURNAL.c.seq).limit(limit)
    return connection.execute(query).mappings().all()
