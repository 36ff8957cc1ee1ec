"""The promise, with real processes: kill -9 of the control plane at any moment loses nothing and starts nothing twice."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.user_machine import CONFIG, UserMachine, eventually, kill, made_machine
from tuttilab.scheduler.client import Client

TRAIN = """
import os, time
import xgboost as xgb
from xgboost import collective
from sklearn.datasets import load_breast_cancer

rank, world = int(os.environ["TUTTILAB_RANK"]), int(os.environ["TUTTILAB_WORLD_SIZE"])
open(f"started.{rank}.{os.environ['TUTTILAB_ATTEMPT']}.{os.getpid()}", "w").close()
data = load_breast_cancer()
if rank == 0:
    from xgboost.tracker import RabitTracker
    tracker = RabitTracker(n_workers=world, host_ip="127.0.0.1", port=int(os.environ["DMLC_TRACKER_PORT"]))
    tracker.start()
with collective.CommunicatorContext(dmlc_tracker_uri="127.0.0.1", dmlc_tracker_port=int(os.environ["DMLC_TRACKER_PORT"])):
    rows = xgb.DMatrix(data.data[rank::world], label=data.target[rank::world])
    model = xgb.Booster({"objective": "binary:logistic", "nthread": 1}, cache=[rows])
    for step in range(100):
        model.update(rows, step)
        time.sleep(0.1)
if rank == 0:
    scores = model.predict(xgb.DMatrix(data.data))
    print(f"accuracy {((scores > 0.5) == data.target).mean():.3f}", flush=True)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UserMachine]:
    with made_machine(tmp_path) as machine:
        config = machine.home / "tuttilab.yaml"
        config.write_text(CONFIG)
        said = machine.run("up", "--config", str(config))
        assert said.code == 0, said
        yield machine


def kill_control_plane(machine: UserMachine) -> None:
    kill(machine.runtime().pid)


def submit(machine: UserMachine, *arguments: str) -> str:
    said = machine.run("submit", *arguments)
    assert said.code == 0, said
    return said.out.strip()


def client_of(machine: UserMachine) -> Client:
    runtime = machine.runtime()
    return Client(runtime.url, runtime.token)


@pytest.mark.feature("S17", "J04")
def test_a_training_gang_outlives_the_control_plane_and_succeeds_once(machine: UserMachine) -> None:
    script = machine.home / "train.py"
    script.write_text(TRAIN)
    command = ("--framework", "xgboost", "--workers", "2", "--gpus", "1", "--memory", "1Gi", "--", sys.executable, str(script))
    job = submit(machine, "--name", "train", *command)
    eventually(lambda: len(list(machine.home.glob("started.*"))) == 2)
    time.sleep(0.5)
    sidecars = {process.pid for process in machine.processes("plan.json")}
    workers = {process.pid for process in machine.processes("train.py")} - sidecars
    assert workers
    kill_control_plane(machine)
    assert all(psutil.pid_exists(pid) for pid in workers), "nobody stops because the control plane is gone"
    assert machine.run("up").code == 0
    with client_of(machine) as client:
        done = client.wait(job, timeout_s=150)
        lines = client.logs(job).lines
    assert (done.phase, done.exit_code, len(done.attempts)) == ("Succeeded", 0, 1), lines
    assert float(lines[-1].removeprefix("accuracy ")) >= 0.97
    assert len(list(machine.home.glob("started.*"))) == 2, "no member was started twice"
    assert machine.run("down").code == 0
    eventually(lambda: machine.processes() == [])


@pytest.mark.feature("B06")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_kills_lose_no_accepted_job_and_run_none_twice(machine: UserMachine, seed: int) -> None:
    chance = random.Random(seed)
    runs = machine.home / "runs"
    runs.mkdir()
    accepted: list[str] = []
    for _ in range(4):
        for number in range(4):
            workers = chance.choice(["1", "1", "2"])
            mark = 'echo "$TUTTILAB_RANK $TUTTILAB_ATTEMPT" >> runs/$TUTTILAB_JOB_ID; sleep 0.3'
            accepted.append(submit(machine, "--workers", workers, "--name", f"n{number}", "--", "sh", "-c", mark))
        time.sleep(chance.uniform(0, 0.6))
        kill_control_plane(machine)
        assert machine.run("up").code == 0
    with client_of(machine) as client:
        for job in accepted:
            done = client.wait(job, timeout_s=150)
            assert done.phase == "Succeeded", (seed, done)
            assert [a.phase for a in done.attempts].count("Succeeded") == 1
            written = sorted((runs / job).read_text().split("\n"))[1:]
            assert written == [f"{rank} 1" for rank in range(done.pods[0].count)], (seed, job, "each member ran once, in attempt 1")
        listed = {job.id for job in client.jobs(all=True, limit=100).jobs}
    assert set(accepted) <= listed
    assert machine.run("down").code == 0
    eventually(lambda: machine.processes() == [])


def test_a_killed_control_plane_comes_back_at_the_next_use_with_the_same_configuration(machine: UserMachine) -> None:
    kill_control_plane(machine)
    said = machine.run("nodes", "--json")
    assert {node["name"] for node in said.json} == {"a", "b"}


def test_the_journal_and_the_rows_agree_after_a_kill(machine: UserMachine) -> None:
    for _ in range(5):
        submit(machine, "--", "true")
    kill_control_plane(machine)
    assert machine.run("up").code == 0
    eventually(lambda: machine.run("jobs", "--json").json in ([], {"jobs": [], "next": None}))
    assert machine.run("down").code == 0
    said = machine.run("scheduler", "verify")
    assert said.code == 0, said
