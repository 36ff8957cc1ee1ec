"""How much Postgres reads for a look-up, which decides what a submit costs on a database that is some years old."""

from __future__ import annotations

import pytest

from tests.contract.building import a_job, submitted
from tests.postgres import Postgres
from tuttilab.scheduler.store.base import IdempotencyKey
from tuttilab.scheduler.store.sql import SqlStore

pytestmark = pytest.mark.requires("postgres")

MANY = 3000
PREPARED_AFTER = 12
"""Runs of one statement: the driver has prepared it and the server may keep its plan."""


def read_from_keys(server: Postgres, database: str) -> int:
    """Rows of the table that were looked at by connections that have ended."""
    counted = server.ask(database, "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'keys'")
    return int(counted)


async def test_keys_are_looked_up_one_by_one_in_the_index(postgres_server: Postgres) -> None:
    """Also with statistics and plans from when there were few keys, and however many the owner has used."""
    database = postgres_server.new_database()
    store = SqlStore(postgres_server.url(database))
    epoch = await store.open()
    await store.commit(submitted(a_job(1), epoch=epoch, keys=(IdempotencyKey("ana", "k1", "d", a_job(1).id),)))
    postgres_server.execute(database, "VACUUM ANALYZE keys")
    for _ in range(PREPARED_AFTER):
        await store.idempotency_keys("ana", ["k1", "none"])
    jobs = [a_job(order, id=f"{order:032x}") for order in range(2, MANY)]
    await store.commit(
        submitted(*jobs, epoch=epoch, keys=tuple(IdempotencyKey("ana", f"k{job.order}", "d", job.id) for job in jobs))
    )

    for _ in range(PREPARED_AFTER):
        assert len(await store.idempotency_keys("ana", [*(f"k{n}" for n in range(1, 101)), "none"])) == 100
    await store.close()

    assert read_from_keys(postgres_server, database) < PREPARED_AFTER * 200
    postgres_server.drop(database)
