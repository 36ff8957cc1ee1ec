"""A Postgres that is killed, that refuses, that never says whether it committed: nothing acknowledged is lost, nothing is twice."""

from __future__ import annotations

import asyncio
import logging
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import ADMIN, node, request
from tests.contract.building import a_job, submitted
from tests.doses import dose
from tests.postgres import Postgres, running_postgres
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain.errors import CommitUnknown, StoreError, StoreUnreachable, Unavailable
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.base import IdempotencyKey
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.store.verify import differences, replay
from tuttilab.scheduler.usecases.jobs import Jobs

KILLS = dose("POSTGRES_KILLS", suite=8, soak=100)
NODES = (node("a", cpus=4),)
ASKED = request(command=("sleep", "3600"))

pytestmark = [pytest.mark.requires("postgres"), pytest.mark.timeout(600 + 30 * KILLS)]


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """One that may be killed."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(own_server: Postgres) -> Iterator[str]:
    name = own_server.new_database()
    yield name
    own_server.drop(name)


@asynccontextmanager
async def service_on(url: str, folder: Path) -> AsyncIterator[Service]:
    config = replace(default_config(folder), clusters=(ClusterConfig("here", "fake", NODES),))
    service = Service(config, SqlStore(url), {"here": FakeCluster("here", NODES)}, state_dir=folder)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def found_wrong(url: str) -> list[str]:
    store = SqlStore(url)
    await store.attach()
    try:
        return [sentence async for sentence in differences(store, await replay(store))]
    finally:
        await store.close()


def again(server: Postgres) -> None:
    server.stop("immediate")
    server.start()


async def until_committing(server: Postgres, database: str) -> None:
    """Some connection is in the middle of its COMMIT."""
    question = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'COMMIT'"
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(server.ask, database, question):  # noqa: ASYNC110  nobody else could tell it
            await asyncio.sleep(0.02)


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.feature("O08")
async def test_kills_under_load_lose_nothing_acknowledged_and_double_nothing(
    own_server: Postgres, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, tell: Callable[[str], None]
) -> None:
    acknowledged: dict[str, str] = {}
    refused = 0
    is_over, heard = asyncio.Event(), asyncio.Event()

    async def client(service: Service, number: int) -> None:
        nonlocal refused
        for index in range(1_000_000):
            key = f"{number}-{index}"
            while True:
                try:
                    acknowledged[key] = (await Jobs(service).submit(ASKED, ADMIN, key)).id
                    heard.set()
                    break
                except Unavailable:
                    refused += 1
                    await asyncio.sleep(0.05)
            if is_over.is_set():
                return

    url, chance, back = own_server.url(database), random.Random(6), []
    with caplog.at_level(logging.WARNING):
        async with service_on(url, tmp_path) as service:
            # Most of the time goes into the commit itself, so that most kills hit one.
            own_server.execute(database, SLOW_COMMIT.replace("pg_sleep(3)", "pg_sleep(0.01)"))
            clients = [asyncio.create_task(client(service, number)) for number in range(4)]
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                await asyncio.to_thread(again, own_server)
                began = time.monotonic()
                heard.clear()
                await heard.wait()
                back.append(time.monotonic() - began)
            is_over.set()
            await asyncio.gather(*clients)
    async with service_on(url, tmp_path) as service:
        kept = {key: (await Jobs(service).submit(ASKED, ADMIN, key)).id for key in acknowledged}
        known = {job.id for job in (await service.store.load()).jobs}

    assert kept == acknowledged
    assert known == set(acknowledged.values()), "every job is one that somebody heard of"
    assert await found_wrong(url) == []
    # Of most: the machine may stand still for a moment.
    assert statistics.median(back) <= 5.0
    unknown = sum("the last commit" in record.getMessage() for record in caplog.records)
    assert unknown > 0
    tell(
        f"{KILLS} kills of Postgres under load: {len(acknowledged)} acknowledged, none lost; {refused} told to try again, "
        f"{unknown} commits unknown and resolved; accepting again {max(back):.2f} s after the server's start at most"
    )


async def test_an_unheard_commit_that_happened_is_answered_with_its_job(
    own_server: Postgres, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server writes the commit down and then waits for a standby that does not exist, until it is killed."""
    # However long the server takes to come back on a busy machine.
    monkeypatch.setattr("tuttilab.scheduler.service.loop.LONGEST_DOUBT_S", 60.0)
    async with service_on(own_server.url(database), tmp_path) as service:
        own_server.execute(database, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        own_server.execute(database, "SELECT pg_reload_conf()")
        async with asyncio.timeout(60):
            while own_server.ask(database, "SHOW synchronous_standby_names") != "nobody":  # noqa: ASYNC110  as above
                await asyncio.sleep(0.02)
        asked = asyncio.create_task(Jobs(service).submit(ASKED, ADMIN, "k"))
        await until_committing(own_server, database)
        own_server.execute(database, "ALTER SYSTEM RESET synchronous_standby_names")
        await asyncio.to_thread(again, own_server)

        job = await asked

        stored = await service.store.job(job.id)
        assert stored is not None
        # It may run by now.
        assert (stored.id, stored.order, stored.submitted_at) == (job.id, job.order, job.submitted_at)
        assert (await Jobs(service).submit(ASKED, ADMIN, "k")).id == job.id
        assert "the last commit did happen" in caplog.text
    assert await found_wrong(own_server.url(database)) == []


SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON journal DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
"""


async def test_an_unheard_commit_that_did_not_happen_is_refused_and_leaves_nothing(
    own_server: Postgres, database: str, tmp_path: Path
) -> None:
    async with service_on(own_server.url(database), tmp_path) as service:
        own_server.execute(database, SLOW_COMMIT)
        asked = asyncio.create_task(Jobs(service).submit(ASKED, ADMIN, "k"))
        await until_committing(own_server, database)
        await asyncio.to_thread(again, own_server)

        with pytest.raises(CommitUnknown, match="may or may not have happened"):
            await asked

        own_server.execute(database, "DROP TRIGGER slow ON journal")
        job = await Jobs(service).submit(ASKED, ADMIN, "k")
        assert [one.id for one in (await service.store.load()).jobs] == [job.id]


async def test_a_commit_that_is_still_under_way_in_the_server_is_waited_for(own_server: Postgres, database: str) -> None:
    """The connection broke and the server has not noticed: what is asked about the commit then must stay true."""
    store = SqlStore(own_server.url(database))
    epoch = await store.open()
    own_server.execute(database, SLOW_COMMIT.replace("pg_sleep(3)", "pg_sleep(1)"))
    batch = submitted(a_job(), epoch=epoch, keys=(IdempotencyKey("ana", "k", "d", a_job().id),))
    other = SqlStore(own_server.url(database))
    await other.attach()
    committing = asyncio.create_task(store.commit(batch))
    await until_committing(own_server, database)

    assert await other.committed(batch, 0) == 1
    assert await committing == 1
    await store.close()
    await other.close()


# --- refusing --------------------------------------------------------------------------------------------------------

FAILING = """
CREATE SEQUENCE tries;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{state}'; END IF;
    RETURN NULL;
END $$;
CREATE {kind} TRIGGER fail AFTER INSERT ON journal {when} FOR EACH ROW EXECUTE FUNCTION fail();
"""
AT_COMMIT = {"kind": "CONSTRAINT", "when": "DEFERRABLE INITIALLY DEFERRED"}
AT_INSERT = {"kind": "", "when": ""}


@pytest.mark.parametrize("state", ["40001", "40P01"])
@pytest.mark.parametrize("place", [AT_INSERT, AT_COMMIT], ids=["in a statement", "in the commit"])
async def test_serialization_failures_and_deadlocks_are_tried_again(
    own_server: Postgres, database: str, state: str, place: dict[str, str]
) -> None:
    store = SqlStore(own_server.url(database))
    epoch = await store.open()
    own_server.execute(database, FAILING.format(times=2, state=state, **place))

    assert await store.commit(submitted(a_job(), epoch=epoch)) == 1
    assert [change.seq for change in await store.changes(0)] == [1]
    await store.close()


async def test_a_failure_that_stays_is_told_and_leaves_nothing(own_server: Postgres, database: str) -> None:
    store = SqlStore(own_server.url(database))
    epoch = await store.open()
    own_server.execute(database, FAILING.format(times=1000, state="40001", **AT_COMMIT))

    with pytest.raises(StoreError, match="The database refused: made to fail"):
        await store.commit(submitted(a_job(), epoch=epoch))

    assert (await store.load()).last_seq == 0
    await store.close()


async def test_a_full_disk_of_the_server_is_named(own_server: Postgres, database: str) -> None:
    store = SqlStore(own_server.url(database))
    epoch = await store.open()
    own_server.execute(database, FAILING.format(times=1, state="53100", **AT_INSERT))

    with pytest.raises(StoreError, match="the server's disk is full; make room, nothing was written"):
        await store.commit(submitted(a_job(), epoch=epoch))

    assert await store.commit(submitted(a_job(), epoch=epoch)) == 1
    await store.close()


async def test_a_server_that_is_down_is_unreachable_and_then_back(own_server: Postgres, database: str) -> None:
    store = SqlStore(own_server.url(database))
    epoch = await store.open()
    own_server.stop("fast")
    try:
        for _ in range(2):
            with pytest.raises(StoreUnreachable, match="The database does not answer, try again in a moment"):
                await store.commit(submitted(a_job(), epoch=epoch))
        with pytest.raises(StoreUnreachable):
            await store.load()
    finally:
        own_server.start()

    assert await store.commit(submitted(a_job(), epoch=epoch)) == 1
    assert (await store.load()).jobs == (a_job(),)
    await store.close()


# --- held ------------------------------------------------------------------------------------------------------------


async def test_a_leader_stopped_inside_a_commit_does_not_keep_the_next_one_out(own_server: Postgres, database: str) -> None:
    old = SqlStore(own_server.url(database))
    epoch = await old.open()
    assert old._writer is not None
    with old._writer.connect() as stopped:
        stopped.exec_driver_sql("SELECT epoch FROM meta FOR SHARE")

        new = SqlStore(own_server.url(database))
        assert await new.open() == epoch + 1

        stopped.invalidate()
    await new.close()
    await old.close()


async def test_every_wait_of_a_connection_has_an_end(own_server: Postgres, database: str) -> None:
    store = SqlStore(own_server.url(database))
    await store.open()
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    for run in (store._write, store._read):
        assert await run(lambda c: [c.exec_driver_sql(f"SHOW {name}").scalar() for name in names]) == ["5s"] * 3
    with pytest.raises(StoreError, match="cannot execute DELETE in a read-only transaction"):
        await store._read(lambda c: c.exec_driver_sql("DELETE FROM jobs"))
    await store.close()


async def test_a_wrong_address_is_said_in_one_sentence(own_server: Postgres) -> None:
    with pytest.raises(StoreUnreachable) as refused:
        await SqlStore(own_server.url("nosuchdatabase")).open()

    assert 'database "nosuchdatabase" does not exist' in str(refused.value)
    assert "\n" not in str(refused.value)
