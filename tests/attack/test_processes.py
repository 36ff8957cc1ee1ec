"""Jobs that kill what watches them, so that something of theirs would live beside their next attempt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest

from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

POD = (PodRequest(cpus="100m", memory="64Mi"),)
# A process without environment, session and parent that kills side-car and keeper before it can have been written down.
KILLER = """
import os, sys, time
inner = '''
import json, os, time
who = json.load(open("../sidecar.json"))
os.kill(who["pid"], 9)
os.kill(who["sidecar"][0], 9)
time.sleep(600)
'''
if os.fork():
    time.sleep(600)
os.setsid()
if os.fork():
    os._exit(0)
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", inner, "stranger-" + sys.argv[1]], {})
"""
MARK = "stranger-7f3a"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def client(attacked: UserMachine) -> Iterator[Client]:
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        yield client


def strangers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if MARK in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_who_kills_what_watches_it_does_not_live_beside_its_next_attempt(client: Client) -> None:
    job = client.submit(JobRequest(name="killer", pods=POD, command=(sys.executable, "-c", KILLER, MARK.removeprefix("stranger-"))))
    most = 0

    def has_had_three_attempts() -> bool:
        nonlocal most
        most = max(most, len({process.pid for process in strangers()}))
        return len(client.job(job.id).attempts) >= 3

    eventually(has_had_three_attempts, 120)
    assert most <= 1
    client.cancel(job.id)
    assert client.wait(job.id, timeout_s=60).phase == "Cancelled"
    assert strangers() == []
