"""Jobs that are told to stop and save their work: what they write after SIGTERM is kept, with their own exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, suppress

import psutil
import pytest

from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, OutputRequest, PodRequest
from tuttilab.scheduler.domain.wire import JobView

MIB = 2**20
SAVES = """
import os, pathlib, signal, sys, threading, time
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
result = pathlib.Path(os.environ["RESULT_DIR"])
(result / "early.txt").write_text("before")
print("ready", flush=True)
told.wait()
with open(result / "model.bin", "wb") as file:
    for number in range(24):
        file.write(bytes([number]) * 2**20)
        time.sleep(0.02)
print("saved", flush=True)
sys.exit(7)
"""
DEAF = """
import os, pathlib, signal, threading, time
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
result = pathlib.Path(os.environ["RESULT_DIR"])
print("ready", flush=True)
told.wait()
(result / "model.bin").write_bytes(b"half")
while True:
    time.sleep(1)
"""


@pytest.fixture
def client(running: UserMachine) -> Iterator[Client]:
    runtime = running.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        yield client


def started(client: Client, program: str, grace: str, workers: int = 1) -> JobView:
    job = client.submit(
        JobRequest(
            name="saves",
            command=(sys.executable, "-c", program),
            pods=(PodRequest(count=workers, cpus="100m", memory="128Mi"),),
            outputs=(OutputRequest(name="early", path="early.txt"), OutputRequest(name="model", path="model.bin")),
            grace=grace,
        )
    )
    eventually(lambda: all("ready" in client.logs(job.id, rank=rank).lines for rank in range(workers)), 150)
    return job


def left_of(machine: UserMachine, job: JobView) -> list[str]:
    found = []
    for process in machine.processes():
        with suppress(psutil.Error):
            line = " ".join([*process.cmdline(), process.environ().get("TUTTILAB_JOB_ID", "")])
            if job.id in line:
                found.append(line)
    return found


@pytest.mark.feature("C05")
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_job_saves_within_its_grace_is_kept_with_its_exit_code(running: UserMachine, client: Client, workers: int) -> None:
    job = started(client, SAVES, "60s", workers)
    client.cancel(job.id)
    ended = client.wait(job.id, timeout_s=150)

    members = [pod for pod in ended.attempts[-1].pods if pod.role != "master"]
    assert (ended.phase, [pod.exit_code for pod in members]) == ("Cancelled", [7] * workers)
    assert ended.attempts[-1].ended_at is not None
    for pod in members:
        assert client.get_artifact(pod.outputs["early"]) == b"before"
        assert client.get_artifact(pod.outputs["model"]) == b"".join(bytes([number]) * MIB for number in range(24))
        assert client.logs(job.id, rank=pod.rank).lines[-1] == "saved"
    eventually(lambda: not left_of(running, job), 150)


@pytest.mark.feature("C05")
def test_a_job_that_does_not_end_within_its_grace_is_killed_and_what_it_wrote_is_kept(running: UserMachine, client: Client) -> None:
    job = started(client, DEAF, "2s")
    client.cancel(job.id)
    ended = client.wait(job.id, timeout_s=150)

    (pod,) = ended.attempts[-1].pods
    assert (ended.phase, pod.exit_code) == ("Cancelled", 137)
    assert client.get_artifact(pod.outputs["model"]) == b"half"
    eventually(lambda: not left_of(running, job), 150)
