"""What `tuttilab scheduler verify` compares: each kind of row that the journal tells of is missed when it is gone or changed."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import ADMIN, node, request
from tests.integration.service.test_retention import ended, found_wrong, running
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain.requests import DagRequest, NodeRequest, ProfileRequest, RunRequest
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.store.verify import differences, replay
from tuttilab.scheduler.usecases.dags import Dags
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.scheduler.usecases.profiles import Profiles

NODES = (node("a", cpus=4),)


async def lived(folder: Path, *, has_checkpoint: bool) -> None:
    """Two lives of a service, after which each table has rows: something has ended, something runs, something waits."""
    config = replace(default_config(folder), clusters=(ClusterConfig("here", "fake", NODES),))
    folder.mkdir()
    dag = DagRequest(name="nightly", nodes=(NodeRequest(name="n", job=request(command=("exit", "0"), cpus=1)),))
    for life in range(2):
        service = Service(config, SqlStore(config.store.url), {"here": FakeCluster("here", NODES)}, state_dir=folder)
        await service.start()
        if life == 0:
            await ended(service)
            await Dags(service).apply(dag, ADMIN)
            run = await Dags(service).run(RunRequest(name="nightly"), ADMIN)
            while service.state.runs[run.id].ended_at is None:
                await service.wait_change(service.last_seq, 0.1)
            await Profiles(service).apply(ProfileRequest(name="small"), ADMIN)
            if has_checkpoint:
                await service.store.checkpoint(service.state.epoch, tuple(service.state.clusters.values()))
            big = await Jobs(service).submit(request(command=("sleep", "600"), cpus=4), ADMIN)
            await running(service, big.id)
        else:
            await Jobs(service).submit(request(command=("sleep", "600"), cpus=4), ADMIN)
        assert await found_wrong(service) == []
        await service.stop()


DAMAGE = {
    "DELETE FROM queues": "The queues are others",
    "UPDATE queues SET body = replace(body, '\"weight\":1', '\"weight\":77')": "The queues are others",
    "DELETE FROM history": "The history of .* is in the journal and has no row",
    "UPDATE history SET body = replace(body, '\"runs\":[', '\"runs\":[7.5,')": "The history of .* is another one",
    "DELETE FROM accounts": "The overtaking of job .* is in the journal and has no row",
    "UPDATE accounts SET body = replace(body, '\"since\":1', '\"since\":2')": "The overtaking of job .* is another one",
    'UPDATE accounts SET body = replace(body, \'"later":[]\', \'"later":[["here",2.5]]\')': "The overtaking of job .* is another",
    "DELETE FROM runs": "Run .* is in the journal and has no row",
    "UPDATE runs SET body = replace(body, 'Succeeded', 'Failed')": "Run .* is another one",
    "INSERT INTO runs SELECT 'x', owner, phase, created_at, replace(body, id, 'x') FROM runs": "Run x has a row and is not",
    "DELETE FROM dags": "DAG nightly is in the journal and has no row",
    "UPDATE dags SET body = replace(body, '\"version\":1', '\"version\":4')": "DAG nightly is another one",
    "DELETE FROM profiles": "Profile small is in the journal and has no row",
    "DELETE FROM attempts": "Job .* has other attempts",
    "DELETE FROM jobs WHERE phase = 'Queued'": "Job .* is in the journal and has no row",
}


@pytest.mark.parametrize("has_checkpoint", [False, True])
async def test_every_kind_of_row_is_missed_when_it_is_gone_or_another_one(tmp_path: Path, has_checkpoint: bool) -> None:
    await lived(tmp_path / "state", has_checkpoint=has_checkpoint)
    whole = (tmp_path / "state" / "state.db").read_bytes()
    damaged = tmp_path / "damaged.db"
    for statement, expected in DAMAGE.items():
        damaged.write_bytes(whole)
        with sqlite3.connect(damaged) as connection:
            changed = connection.execute(statement).rowcount
        connection.close()
        store = SqlStore(f"sqlite:///{damaged}")
        await store.attach()
        found = [sentence async for sentence in differences(store, await replay(store))]
        await store.close()

        assert changed >= 1, statement
        assert len(found) >= 1, statement
        for sentence in found:
            assert re.fullmatch(f"{expected}.*", sentence), (statement, sentence)
