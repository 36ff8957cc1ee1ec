"""What every store promises, asked of each of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tests.contract.building import a_job, an_attempt, an_ended_job, submitted, told
from tests.postgres import Postgres
from tuttilab.scheduler.domain.errors import Conflict, NotFound, StaleEpoch, StoreError
from tuttilab.scheduler.domain.events import (
    ClusterLost,
    DagApplied,
    JobCancelRequested,
    JobDeleted,
    JobSubmitted,
    PodEnded,
    ProfileApplied,
    ProfileDeleted,
    QueuesConfigured,
    RunCancelRequested,
    RunRetried,
    RunSubmitted,
)
from tuttilab.scheduler.domain.instructions import DropJob
from tuttilab.scheduler.domain.model import (
    AttemptPhase,
    Cluster,
    Dag,
    JobKind,
    JobPhase,
    Overtaking,
    Profile,
    Queue,
    Run,
    RunHistory,
    RunNode,
    RunPhase,
)
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.scheduler.store.base import ArtifactRow, Batch, Checkpoint, Entry, IdempotencyKey, JobQuery, Note
from tuttilab.scheduler.store.memory import MemoryStore
from tuttilab.scheduler.store.queries import JournalQuery, QueryStore
from tuttilab.scheduler.store.sql import SqlStore

Restart = Callable[[], Awaitable[tuple[QueryStore, int]]]


class Place:
    """Where a store keeps things, and the ways to come back to it."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self.memory = MemoryStore()
        self.opened: list[QueryStore] = []

    async def open(self) -> tuple[QueryStore, int]:
        store: QueryStore = self.memory if self.kind == "memory" else SqlStore(self.url)
        epoch = await store.open()
        self.opened.append(store)
        return store, epoch

    def lose_lines_before(self, seq: int) -> None:
        """As compaction of the journal will."""
        if self.kind == "memory":
            self.memory._lines = [line for line in self.memory._lines if line[0].seq >= seq]
            return
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM journal WHERE seq < :seq"), {"seq": seq})
        engine.dispose()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.requires("postgres"))])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    server: Postgres | None = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    name = server.new_database() if server else ""
    place = Place(request.param, server.url(name) if server else f"sqlite:///{tmp_path / 'state.db'}")
    yield place
    for store in place.opened:
        await store.close()
    if server:
        server.drop(name)


@pytest.fixture
async def store(place: Place) -> QueryStore:
    return (await place.open())[0]


# --- epochs ----------------------------------------------------------------------------------------------------------


async def test_each_opening_leads_with_a_higher_epoch(place: Place) -> None:
    assert [(await place.open())[1] for _ in range(3)] == [1, 2, 3]


async def test_commit_of_an_old_epoch_is_refused_and_leaves_nothing(place: Place) -> None:
    old, old_epoch = await place.open()
    new, _ = await place.open()

    with pytest.raises(StaleEpoch, match="epoch 1 was given, and 2 leads"):
        await old.commit(submitted(a_job(), epoch=old_epoch))

    assert await new.job(a_job().id) is None
    assert (await new.load()).last_seq == 0


# --- commit ----------------------------------------------------------------------------------------------------------


@pytest.mark.feature("O08")
async def test_what_was_committed_is_read_back_equal(store: QueryStore) -> None:
    job = a_job(after=("b" * 32,), timeout_s=60.0, priority=5)
    attempt = an_attempt(job, started_at=1600.0)

    await store.commit(submitted(job, attempts=(attempt,)))

    assert await store.job(job.id) == job
    assert list(await store.attempts(job.id)) == [attempt]


async def test_commit_answers_the_last_number_and_numbers_have_no_gap(store: QueryStore) -> None:
    first = await store.commit(submitted(a_job(1), a_job(2)))
    refused = submitted(a_job(3), epoch=9)
    with pytest.raises(StaleEpoch):
        await store.commit(refused)
    second = await store.commit(submitted(a_job(3)))
    nothing = await store.commit(Batch(1))

    assert [first, second, nothing] == [2, 3, 3]
    assert [change.seq for change in await store.changes(0)] == [1, 2, 3]


async def test_a_later_commit_replaces_the_row(store: QueryStore) -> None:
    job = a_job()
    await store.commit(submitted(job, attempts=(an_attempt(job),)))
    ended = replace(job, phase=JobPhase.FAILED, reason="Error", exit_code=3, ended_at=1700.0)
    ending = an_attempt(job, phase=AttemptPhase.FAILED, ended_at=1700.0)

    event = PodEnded(job.id, 1, "p", 3, "Error")
    await store.commit(Batch(1, (Entry(event, 1700.0, job.id),), jobs=(ended,), attempts=(ending,)))

    assert await store.job(job.id) == ended
    assert list(await store.attempts(job.id)) == [ending]


async def test_rows_of_an_unknown_job_are_refused_together_with_all_else(store: QueryStore) -> None:
    with pytest.raises(StoreError):
        await store.commit(submitted(a_job(1), attempts=(an_attempt(a_job(2)),)))

    assert await store.job(a_job(1).id) is None
    assert (await store.load()).last_seq == 0


async def test_queues_are_replaced_as_a_whole_and_keep_their_order(store: QueryStore) -> None:
    queues = (
        Queue("root", max=Resources.of({"cpu": 8000})),
        Queue("b", "root", weight=2, groups=("x", "y")),
        Queue("a", "root", max_jobs=3),
    )
    await store.commit(Batch(1, (Entry(QueuesConfigured(queues), 1.0, "root"),), queues=queues))
    await store.commit(submitted(a_job()))
    assert (await store.load()).queues == queues

    await store.commit(Batch(1, queues=queues[:1]))

    assert (await store.load()).queues == queues[:1]


async def test_deleted_job_takes_its_attempts_along_and_leaves_its_key(store: QueryStore) -> None:
    job = an_ended_job()
    row = IdempotencyKey("ana", "k1", "d", job.id)
    await store.commit(submitted(job, attempts=(an_attempt(job, phase=AttemptPhase.SUCCEEDED),), keys=(row,)))

    await store.commit(Batch(1, (Entry(JobDeleted(job.id), 5.0, job.id),), deleted_jobs=(job.id,)))

    assert await store.job(job.id) is None
    assert list(await store.attempts(job.id)) == []
    assert await store.idempotency_key("ana", "k1") == row


async def test_what_a_deleted_job_left_is_known_until_it_is_let_go(place: Place) -> None:
    store, _ = await place.open()
    one, two = an_ended_job(7), an_ended_job(8)
    await store.commit(submitted(one, two))
    left = (DropJob(one.id, 3), DropJob(two.id, 1))
    lines = tuple(Entry(JobDeleted(drop.job_id), 5.0, drop.job_id) for drop in left)
    await store.commit(Batch(1, lines, deleted_jobs=(one.id, two.id), pending_cleanups=left))

    again, _ = await place.open()
    assert set((await again.load()).pending_cleanups) == set(left)

    with pytest.raises(StaleEpoch):
        await again.mark_cleaned_up(1, one.id)
    await again.mark_cleaned_up(2, one.id)
    await again.mark_cleaned_up(2, one.id)
    assert (await again.load()).pending_cleanups == left[1:]


async def test_the_place_of_a_deleted_job_is_not_given_again(place: Place) -> None:
    store, _ = await place.open()
    await store.commit(submitted(an_ended_job(7)))
    await store.commit(Batch(1, deleted_jobs=(a_job(7).id,)))
    again, _ = await place.open()

    assert (await again.load()).last_order == 7


# --- idempotency keys ------------------------------------------------------------------------------------------------


async def test_key_is_found_for_its_owner_only(store: QueryStore) -> None:
    row = IdempotencyKey("ana", "k1", "digest", a_job().id)
    await store.commit(submitted(a_job(), keys=(row,)))

    assert await store.idempotency_key("ana", "k1") == row
    assert await store.idempotency_key("ben", "k1") is None


async def test_used_keys_are_found_among_many(store: QueryStore) -> None:
    keys = tuple(IdempotencyKey("ana", f"k{n}", "d", a_job(n).id) for n in range(1, 4))
    await store.commit(submitted(a_job(1), a_job(2), a_job(3), keys=keys))

    found = await store.idempotency_keys("ana", ["k3", *(f"k{n}" for n in range(3, 1300))])

    assert list(found) == [keys[2]]
    assert list(await store.idempotency_keys("ben", ["k1"])) == list(await store.idempotency_keys("ana", [])) == []


async def test_second_job_under_a_key_is_refused_and_leaves_nothing(store: QueryStore) -> None:
    await store.commit(submitted(a_job(1), keys=(IdempotencyKey("ana", "k1", "d1", a_job(1).id),)))

    with pytest.raises(Conflict, match="'k1' was used before"):
        await store.commit(submitted(a_job(2), keys=(IdempotencyKey("ana", "k1", "d2", a_job(2).id),)))

    assert await store.job(a_job(2).id) is None
    assert (await store.load()).last_seq == 1


async def test_one_key_twice_in_a_batch_is_refused(store: QueryStore) -> None:
    keys = (IdempotencyKey("ana", "k", "d", a_job(1).id), IdempotencyKey("ana", "k", "d", a_job(2).id))

    with pytest.raises(Conflict):
        await store.commit(submitted(a_job(1), a_job(2), keys=keys))

    assert await store.idempotency_key("ana", "k") is None


async def test_a_run_has_a_key_for_each_time_that_it_was_started(store: QueryStore) -> None:
    run = a_run("r1", 1000.0)
    first, *later = (IdempotencyKey("ana", f"k{n}", f"d{n}", run.id) for n in range(3))
    await store.commit(Batch(1, (Entry(RunSubmitted(run), 1000.0, run.id),), runs=(run,), keys=(first,)))
    for row in later:
        await store.commit(Batch(1, (Entry(RunRetried(run.id, {}), 1001.0, run.id),), keys=(row,)))

    assert await store.idempotency_keys("ana", ["k2", "k0", "k1"]) == [later[1], first, later[0]]


async def test_two_owners_may_use_the_same_key(store: QueryStore) -> None:
    keys = (IdempotencyKey("ana", "k", "d", a_job(1).id), IdempotencyKey("ben", "k", "d", a_job(2).id))

    await store.commit(submitted(a_job(1), a_job(2, owner="ben"), keys=keys))

    assert await store.idempotency_key("ben", "k") == keys[1]


# --- start ------------------------------------------------------------------------------------------------------------


async def test_nothing_is_loaded_from_a_new_store(store: QueryStore) -> None:
    loaded = await store.load()

    assert (loaded.jobs, loaded.attempts, loaded.queues) == ((), (), ())
    assert (loaded.last_seq, loaded.last_at, loaded.last_order) == (0, 0.0, 0)


@pytest.mark.feature("O08")
async def test_after_a_restart_live_jobs_and_what_they_wait_for_are_loaded(place: Place) -> None:
    store, _ = await place.open()
    parent, old = an_ended_job(1), an_ended_job(2)
    waiting = a_job(3, after=(parent.id,))
    active = a_job(4, phase=JobPhase.ACTIVE, attempts=2)
    ended_still_stopping = an_ended_job(5, JobPhase.CANCELLED)
    jobs = (parent, old, waiting, active, ended_still_stopping)
    attempts = (
        an_attempt(parent, phase=AttemptPhase.SUCCEEDED),
        an_attempt(old, phase=AttemptPhase.SUCCEEDED),
        an_attempt(active, 1, AttemptPhase.LOST),
        an_attempt(active, 2),
        an_attempt(ended_still_stopping, phase=AttemptPhase.STOPPING),
    )
    await store.commit(submitted(*jobs, attempts=attempts))
    await store.close()

    again, _ = await place.open()
    loaded = await again.load()

    assert loaded.jobs == (parent, waiting, active, ended_still_stopping)
    assert loaded.attempts == (attempts[0], *attempts[2:])
    assert (loaded.last_seq, loaded.last_at, loaded.last_order) == (5, 1005.0, 5)


# --- jobs -------------------------------------------------------------------------------------------------------------


async def test_prefix_finds_ids_of_the_owner(store: QueryStore) -> None:
    mine, other = a_job(1, id="abcd1" + "0" * 27), a_job(2, id="abcd2" + "0" * 27, owner="ben")
    await store.commit(submitted(mine, other))

    assert list(await store.find_job("abcd", "ana")) == [mine.id]
    assert list(await store.find_job("abcd", None)) == [mine.id, other.id]
    assert list(await store.find_job("ABCD", None)) == []
    assert list(await store.find_job("%", None)) == []


async def test_prefix_finds_at_most_ten(store: QueryStore) -> None:
    await store.commit(submitted(*(a_job(n) for n in range(1, 15))))

    assert list(await store.find_job("00", None)) == [a_job(n).id for n in range(1, 11)]


@pytest.mark.parametrize(
    ("query", "orders"),
    [
        (JobQuery(), [5, 4, 3, 2, 1]),
        (JobQuery(owner="ben"), [2]),
        (JobQuery(group="quant"), [3]),
        (JobQuery(queue="small"), [4]),
        (JobQuery(kind="notebook"), [5]),
        (JobQuery(phases=("Succeeded", "Failed")), [2, 1]),
        (JobQuery(text="TRAIN"), [3]),
        (JobQuery(text="Ü 100%"), [4]),
        (JobQuery(text="0005a"), [5]),
        (JobQuery(text="_"), []),
        (JobQuery(cursor=4, limit=2), [3, 2]),
        (JobQuery(owner="ana", phases=("Queued",)), [5, 4, 3]),
    ],
)
@pytest.mark.feature("J13")
async def test_page_of_jobs(store: QueryStore, query: JobQuery, orders: list[int]) -> None:
    jobs = (
        an_ended_job(1),
        an_ended_job(2, JobPhase.FAILED, owner="ben"),
        a_job(3, group="quant", name="Train Ü"),
        a_job(4, queue="small", name="grow ü 100%"),
        a_job(5, kind=JobKind.NOTEBOOK),
    )
    await store.commit(submitted(*jobs))

    assert [job.order for job in await store.jobs(query)] == orders


async def test_attempts_of_several_jobs(store: QueryStore) -> None:
    one, two, three = a_job(1), a_job(2), a_job(3)
    attempts = tuple(an_attempt(job, number) for job in (one, two, three) for number in (1, 2))
    await store.commit(submitted(one, two, three, attempts=attempts))

    assert list(await store.attempts_of([three.id, one.id])) == [*attempts[:2], *attempts[4:]]
    assert list(await store.attempts_of([])) == []


# --- journal ----------------------------------------------------------------------------------------------------------


async def test_changes_tell_whose_job_it_is_whatever_the_event(store: QueryStore) -> None:
    ana, ben = a_job(1), an_ended_job(2, owner="ben")
    await store.commit(submitted(ana, ben))
    await store.commit(told(1, [(JobCancelRequested(ana.id, "ana"), ana.id), (ClusterLost("here"), "here")], at=7.5))
    await store.commit(Batch(1, (Entry(JobDeleted(ben.id), 8.0, ben.id),), deleted_jobs=(ben.id,)))

    changes = await store.changes(1)

    assert [(c.seq, c.kind, c.key, c.owner) for c in changes] == [
        (2, "JobSubmitted", ben.id, "ben"),
        (3, "JobCancelRequested", ana.id, "ana"),
        (4, "ClusterLost", "here", ""),
        (5, "JobDeleted", ben.id, "ben"),
    ]
    assert changes[1].at == 7.5


async def test_changes_come_in_pages_and_by_key(store: QueryStore) -> None:
    one, two = a_job(1), a_job(2)
    await store.commit(submitted(one, two))
    await store.commit(told(1, [(JobCancelRequested(job.id, "ana"), job.id) for job in (one, two)]))

    assert [change.seq for change in await store.changes(1, 2)] == [2, 3]
    assert [change.seq for change in await store.changes(0, key=two.id)] == [2, 4]
    assert [change.seq for change in await store.changes(2, 1, key=two.id)] == [4]


async def test_changes_that_are_not_kept_are_not_found(place: Place) -> None:
    store, _ = await place.open()
    await store.commit(submitted(*(a_job(n) for n in range(1, 6))))
    place.lose_lines_before(3)

    assert [change.seq for change in await store.changes(2)] == [3, 4, 5]
    with pytest.raises(NotFound, match="changes since 1 are not kept any more"):
        await store.changes(1)
    with pytest.raises(NotFound, match="there is no change 6 yet"):
        await store.changes(6)
    assert await store.changes(5) == []


async def test_journal_gives_the_events_back(store: QueryStore) -> None:
    job = a_job()
    ended = PodEnded(job.id, 1, "p", None, "Lost", {"model": "f" * 64})
    await store.commit(submitted(job))
    await store.commit(told(1, [(ended, job.id)], at=3.25))

    assert await store.journal(0) == [(1, 1001.0, JobSubmitted(job)), (2, 3.25, ended)]
    assert await store.journal(0, key="other") == []


async def test_newest_lines_are_found_by_kind_owner_and_how_their_key_begins(store: QueryStore) -> None:
    one, two = a_job(1), a_job(2, owner="ben")
    await store.commit(submitted(one, two))
    await store.commit(told(1, [(JobCancelRequested(job.id, "ana"), job.id) for job in (two, one)]))
    await store.commit(
        told(1, [(ClusterLost("here"), "here"), (ProfileDeleted("g_u", "ana"), "g_u"), (ProfileDeleted("gpu"), "gpu")])
    )
    kinds = ("JobSubmitted", "JobCancelRequested", "ProfileDeleted")

    async def found(**query: Any) -> list[tuple[int, str]]:
        return [(seq, key) for seq, _, key, _ in await store.newest(JournalQuery(kinds=kinds, **query))]

    assert await found() == [(7, "gpu"), (6, "g_u"), (4, one.id), (3, two.id), (2, two.id), (1, one.id)]
    assert await found(limit=2, before=6) == [(4, one.id), (3, two.id)]
    assert await found(owner="ben") == [(3, two.id), (2, two.id)]
    assert await found(key="g_") == [(6, "g_u")]
    assert await found(key=one.id) == [(4, one.id), (1, one.id)]
    (line,) = await store.newest(JournalQuery(kinds=["JobCancelRequested"], limit=1))
    assert line[3] == JobCancelRequested(one.id, "ana")


# --- artifacts --------------------------------------------------------------------------------------------------------


async def test_artifact_belongs_to_each_who_brought_it(store: QueryStore) -> None:
    ana = ArtifactRow("f" * 64, "ana", 5, "f" * 64, 1.5, {"of": "x"})
    ben = replace(ana, owner="ben", created_at=2.5)
    await store.commit(Batch(1, artifacts=(ana, ben)))
    await store.commit(Batch(1, artifacts=(replace(ana, created_at=9.0),)))

    assert await store.artifact(ana.id, "ana") == ana
    assert await store.artifact(ana.id, "ben") == ben
    assert await store.artifact(ana.id, "eve") is None
    assert await store.artifact(ana.id) == ana
    assert await store.artifact("0" * 64) is None
    many = [f"{number:064x}" for number in range(1200)]
    assert set(await store.artifacts_of("ben", [*many, ana.id, "0" * 64])) == {ana.id}
    assert await store.artifacts_of("eve", [ana.id]) == await store.artifacts_of("ana", []) == []


async def test_an_old_leader_notes_no_artifact(place: Place) -> None:
    old, epoch = await place.open()
    new, _ = await place.open()

    with pytest.raises(StaleEpoch):
        await old.commit(Batch(epoch, artifacts=(ArtifactRow("f" * 64, "ana", 5, "f" * 64, 1.5),)))

    assert await new.artifact("f" * 64) is None


# --- notes of clusters ------------------------------------------------------------------------------------------------


async def test_notes_of_a_cluster_are_kept_until_they_are_dropped(store: QueryStore) -> None:
    first, second = Note("k", "job", 1, '{"a": 1}'), Note("k", "job", 2, "{}")
    await store.put_notes(1, [first, second, Note("other", "job", 1, "{}")])
    await store.put_notes(1, [replace(second, body='{"b": "\\u0000"}', is_over=True)])
    await store.put_notes(1, [])

    assert await store.notes("k") == [first]
    assert await store.note("k", "job", 2) == Note("k", "job", 2, '{"b": "\\u0000"}', is_over=True)
    await store.drop_note(1, "k", "job", 1)
    await store.drop_note(1, "k", "no-such-job", 1)
    assert await store.note("k", "job", 1) is None
    assert await store.notes("other") == [Note("other", "job", 1, "{}")]


async def test_notes_of_a_deleted_job_go_when_no_cluster_has_anything_of_it(store: QueryStore) -> None:
    """Also those of a cluster that the configuration does not have any more."""
    kept = Note("k", "other", 1, "{}")
    await store.put_notes(1, [Note("k", "job", 1, "{}"), Note("former", "job", 2, "{}"), kept])

    await store.mark_cleaned_up(1, "job")

    assert (await store.notes("k"), await store.notes("former")) == ([kept], [])


async def test_an_old_leader_changes_no_note(place: Place) -> None:
    old, epoch = await place.open()
    await old.put_notes(epoch, [Note("k", "job", 1, "{}")])
    new, _ = await place.open()

    with pytest.raises(StaleEpoch, match="epoch 1 was given, and 2 leads"):
        await old.put_notes(epoch, [Note("k", "job", 1, "[]")])
    with pytest.raises(StaleEpoch):
        await old.drop_note(epoch, "k", "job", 1)

    assert await new.note("k", "job", 1) == Note("k", "job", 1, "{}")


def a_run(name: str, created_at: float, phase: RunPhase = RunPhase.RUNNING, order: int = 7) -> Run:
    nodes = (RunNode("a", a_job(order)), RunNode("b", a_job(order + 1), after=("a",)))
    return Run(name, "nightly", "ana", nodes, created_at, phase=phase)


async def test_runs_are_loaded_while_they_are_not_over_and_listed_newest_first(place: Place) -> None:
    store, epoch = await place.open()
    runs = (a_run("r1", 1.0, RunPhase.FAILED), a_run("r2", 2.0), replace(a_run("r3", 3.0), owner="bob"))
    await store.commit(Batch(epoch, entries=tuple(Entry(RunSubmitted(run), run.created_at, run.id) for run in runs), runs=runs))
    store, _ = await place.open()
    assert {run.id for run in (await store.load()).runs} == {"r2", "r3"}
    assert [run.id for run in await store.runs("ana")] == ["r2", "r1"]
    assert [run.id for run in await store.runs(None, limit=2)] == ["r3", "r2"]
    assert await store.run("r1") == runs[0]
    assert await store.run("r9") is None
    assert [line.owner for line in await store.changes(0)] == ["ana", "ana", "bob"]


async def test_the_places_of_a_runs_later_jobs_are_taken(place: Place) -> None:
    store, epoch = await place.open()
    await store.commit(Batch(epoch, runs=(a_run("r1", 1.0, order=7),)))
    store, _ = await place.open()
    assert (await store.load()).last_order == 8


async def test_the_newest_version_of_each_dag_is_loaded(place: Place) -> None:
    store, epoch = await place.open()
    for name, version, owner in (("nightly", 1, "ana"), ("nightly", 2, "ana"), ("weekly", 1, "bob")):
        dag = Dag(name, version, owner, "{}", float(version))
        await store.commit(Batch(epoch, entries=(Entry(DagApplied(dag), 1.0, dag.name),), dags=(dag,)))
    store, _ = await place.open()
    assert [(dag.name, dag.version) for dag in (await store.load()).dags] == [("nightly", 2), ("weekly", 1)]


async def test_profiles_are_kept_until_they_are_deleted(place: Place) -> None:
    store, epoch = await place.open()
    for name, body in (("gpu", "1"), ("cpu", "2"), ("old", "3"), ("gpu", "4")):
        profile = Profile(name, body, "root", 1.0)
        await store.commit(Batch(epoch, entries=(Entry(ProfileApplied(profile), 1.0, name),), profiles=(profile,)))
    await store.commit(Batch(epoch, entries=(Entry(ProfileDeleted("old"), 2.0, "old"),), deleted_profiles=("old", "unknown")))

    store, _ = await place.open()
    assert [(profile.name, profile.body) for profile in (await store.load()).profiles] == [("cpu", "2"), ("gpu", "4")]
    assert [change.owner for change in await store.changes(0)] == [""] * 5
    again = [event for _, _, event in await store.journal(0)]
    assert again[-2:] == [ProfileApplied(Profile("gpu", "4", "root", 1.0)), ProfileDeleted("old")]


# --- what is kept ------------------------------------------------------------------------------------------------------


async def test_a_checkpoint_holds_everything_as_it_was_then(store: QueryStore) -> None:
    queues = tuple(Queue(name, "root" if name != "root" else None) for name in ("root", *(f"q{n}" for n in range(12))))
    job, ended = a_job(1), an_ended_job(2)
    attempts = tuple(an_attempt(job, number) for number in range(1, 12))
    clusters = (Cluster("a", "fake"), Cluster("b", "fake", unreachable_since=5.0))
    assert await store.last_checkpoint() is None
    await store.commit(Batch(1, (Entry(QueuesConfigured(queues), 1.0, "root"),), queues=queues))
    profile, accounts = Profile("gpu", "{}", "root", 1.0), (Overtaking(job.id, 1001.0),)
    history = tuple(RunHistory(f"queue/q{n}", (float(n),)) for n in range(12, 0, -1))
    rows = replace(submitted(job, ended, attempts=attempts), profiles=(profile,), accounts=accounts, history=history)
    await store.commit(rows)

    assert await store.checkpoint(1, clusters) == 3
    await store.commit(submitted(a_job(3)))

    expected = Checkpoint(3, 1002.0, (job, ended), attempts, queues, (), (), clusters, (profile,), accounts, history)
    assert await store.last_checkpoint() == expected
    assert await store.checkpoint(1, ()) == 4
    found = await store.last_checkpoint()
    assert found is not None
    assert (found.seq, found.jobs, found.clusters) == (4, (job, ended, a_job(3)), ())


async def test_an_old_leader_writes_no_checkpoint_and_trims_nothing(place: Place) -> None:
    old, epoch = await place.open()
    await old.commit(submitted(*(a_job(n) for n in range(1, 6)), epoch=epoch))
    new, _ = await place.open()

    with pytest.raises(StaleEpoch):
        await old.checkpoint(epoch, ())
    with pytest.raises(StaleEpoch):
        await old.trim(epoch, 5000.0)

    assert await new.last_checkpoint() is None
    assert len(await new.changes(0)) == 5


async def test_lines_of_before_go_up_to_the_checkpoint_and_never_the_newest(store: QueryStore) -> None:
    await store.commit(submitted(*(a_job(n) for n in range(1, 7))))
    assert await store.trim(1, 9000.0) == 0, "without a checkpoint nothing goes"
    await store.checkpoint(1, ())
    await store.commit(submitted(a_job(7)))

    assert await store.trim(1, 1004.0) == 3
    assert await store.oldest_line_at() == 1004.0
    assert await store.trim(1, 9000.0, limit=2) == 2
    assert [await store.trim(1, 9000.0) for _ in range(2)] == [1, 0]

    assert [change.seq for change in await store.changes(6)] == [7]
    with pytest.raises(NotFound, match="changes since 5 are not kept any more; expected at least 6"):
        await store.changes(5)
    assert (await store.load()).last_at == 1007.0
    await store.checkpoint(1, ())
    assert await store.trim(1, 9000.0) == 0, "service time is anchored to the newest line"


async def test_a_key_goes_when_nothing_is_known_of_its_job_any_more(store: QueryStore) -> None:
    kept, gone = a_job(1), an_ended_job(2)
    keys = (IdempotencyKey("ana", "kept", "d", kept.id), IdempotencyKey("ana", "gone", "d", gone.id))
    await store.commit(submitted(kept, gone, keys=keys))
    await store.commit(Batch(1, (Entry(JobDeleted(gone.id), 1500.0, gone.id),), deleted_jobs=(gone.id,)))
    await store.commit(submitted(a_job(3, submitted_at=3000.0)))
    await store.checkpoint(1, ())

    await store.trim(1, 1400.0)
    assert await store.idempotency_key("ana", "gone") == keys[1], "its end is still in the journal"
    await store.trim(1, 2000.0)

    assert await store.idempotency_key("ana", "gone") is None
    assert await store.idempotency_key("ana", "kept") == keys[0]


async def test_a_key_goes_when_nothing_is_known_of_its_run_any_more(store: QueryStore) -> None:
    kept, gone = a_run("kept", 1001.0), replace(a_run("gone", 1002.0, RunPhase.FAILED, order=8), ended_at=1300.0)
    keys = tuple(IdempotencyKey("ana", name, "d", run.id) for name, run in (("kept", kept), ("gone", gone), ("again", gone)))
    entries = tuple(Entry(RunSubmitted(run), run.created_at, run.id) for run in (kept, gone))
    await store.commit(
        Batch(1, (*entries, Entry(RunCancelRequested(gone.id, "ana"), 1500.0, gone.id)), runs=(kept, gone), keys=keys)
    )
    await store.commit(submitted(a_job(3, submitted_at=3000.0)))
    await store.checkpoint(1, ())

    await store.trim(1, 1400.0)
    assert await store.idempotency_key("ana", "gone") == keys[1], "its end is still in the journal"
    await store.trim(1, 2000.0)

    assert list(await store.idempotency_keys("ana", ["gone", "again"])) == []
    assert await store.idempotency_key("ana", "kept") == keys[0]


async def test_ended_jobs_are_found_by_age_without_those_that_are_waited_for(store: QueryStore) -> None:
    waiting = a_job(9, after=(an_ended_job(2).id,))
    # It may be queued again, and then it would wait for what is gone.
    running = a_job(8, phase=JobPhase.ACTIVE, attempts=1, after=(an_ended_job(4).id,))
    over = an_ended_job(5, after=(an_ended_job(1).id,))
    await store.commit(submitted(*(an_ended_job(n) for n in (4, 1, 2, 3)), over, running, waiting))

    ids = {n: an_ended_job(n).id for n in range(1, 6)}
    assert list(await store.ended_before(2004.0, 10)) == [ids[1], ids[3]]
    assert list(await store.ended_before(9000.0, 10)) == [ids[1], ids[3], ids[5]]
    assert list(await store.ended_before(9000.0, 2)) == [ids[1], ids[3]]
    assert list(await store.ended_before(2001.0, 10)) == []


async def test_runs_go_when_their_end_is_old_and_with_them_what_the_checkpoint_has_of_them(store: QueryStore) -> None:
    runs = (
        replace(a_run("old", 1.0, RunPhase.FAILED), ended_at=1400.0),
        replace(a_run("ended-late", 2.0, RunPhase.FAILED, 9), ended_at=1600.0),
        a_run("running", 3.0, order=11),
    )
    await store.commit(Batch(1, tuple(Entry(RunSubmitted(run), run.created_at, run.id) for run in runs), runs=runs))
    await store.checkpoint(1, ())

    await store.trim(1, 1500.0)

    assert [run.id for run in await store.runs(None)] == ["running", "ended-late"]
    found = await store.last_checkpoint()
    assert found is not None
    assert [run.id for run in found.runs] == ["ended-late", "running"]


# --- unknown commits ---------------------------------------------------------------------------------------------------


async def test_a_batch_is_found_or_not_after_a_commit_of_which_nobody_heard(store: QueryStore) -> None:
    batch = submitted(a_job(1), a_job(2))
    assert await store.committed(batch, 0) is None
    await store.commit(batch)

    assert await store.committed(batch, 0) == 2
    assert await store.committed(submitted(a_job(3)), 2) is None
