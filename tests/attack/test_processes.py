"""Jobs that kill what watches them, so that something of theirs would live beside their next attempt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.strangers import KILLER, processes_with
from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

POD = (PodRequest(cpus="100m", memory="64Mi"),)
MARK = "stranger-7f3a"

pytestmark = pytest.mark.timeout(700)


@pytest.fixture
def client(attacked: UserMachine) -> Iterator[Client]:
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        yield client


def test_who_kills_what_watches_it_does_not_live_beside_its_next_attempt(client: Client) -> None:
    job = client.submit(JobRequest(name="killer", pods=POD, command=(sys.executable, "-c", KILLER, MARK.removeprefix("stranger-"))))
    most = 0

    def has_had_three_attempts() -> bool:
        nonlocal most
        most = max(most, len({process.pid for process in processes_with(MARK)}))
        return len(client.job(job.id).attempts) >= 3

    eventually(has_had_three_attempts, 120)
    assert most <= 1
    client.cancel(job.id)
    assert client.wait(job.id, timeout_s=150).phase == "Cancelled"
    assert processes_with(MARK) == []
