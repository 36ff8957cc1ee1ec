"""A disk that fills, or becomes read-only by an error, below jobs: their state is true, the service says why and goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.disks import Disk, made_disk
from tests.user_machine import CONFIG, UserMachine, eventually

pytestmark = [pytest.mark.requires("disks"), pytest.mark.timeout(700)]

WAITS = 'echo on; while [ ! -e "$HOME/go" ]; do sleep 0.1; done; echo went on; touch "$HOME/done"'
DATABASE = "The file system of the folder database is"


@pytest.fixture
def database(machine: UserMachine, tmp_path: Path) -> Iterator[Disk]:
    """The database alone is on this disk; pods are not."""
    with made_disk(tmp_path / "disk", machine.home / "database") as disk:
        config = machine.home / "tuttilab.yaml"
        config.write_text(yaml.safe_dump(yaml.safe_load(CONFIG) | {"store": {"url": f"sqlite:///{disk.at}/state.db"}}))
        assert machine.run("up", "--config", str(config)).code == 0
        yield disk
        machine.run("down", "--now", timeout_s=150)
        subprocess.run(["umount", "--lazy", str(disk.at)], check=True)
        disk.mount()


@pytest.fixture
def pods(machine: UserMachine, tmp_path: Path) -> Iterator[Disk]:
    """The folder of all pods is on this disk; the database is not."""
    config = machine.home / "tuttilab.yaml"
    config.write_text(CONFIG)
    assert machine.run("up", "--config", str(config)).code == 0
    assert machine.run("down").code == 0
    with made_disk(tmp_path / "disk", machine.state / "clusters") as disk:
        assert machine.run("up", "--config", str(config)).code == 0
        yield disk
        machine.run("down", "--now", timeout_s=150)
        for process in machine.processes():
            raise AssertionError(process)


def submitted(machine: UserMachine, script: str) -> str:
    said = machine.run("submit", "--memory", "64Mi", "--grace", "1s", "--", "sh", "-c", script)
    assert said.code == 0, said
    return said.out.strip()


def phase(machine: UserMachine, job: str) -> str:
    return str(machine.run("job", job, "--json").json["phase"])


def is_on(machine: UserMachine, job: str) -> bool:
    return "on" in machine.run("logs", job).out.splitlines()


def readiness(machine: UserMachine) -> tuple[int, str]:
    answer = httpx.get(f"{machine.runtime().url}/readyz", trust_env=False, timeout=150)
    return answer.status_code, "" if answer.status_code == 200 else str(answer.json()["detail"])


def until_it_says(machine: UserMachine, sentence: str) -> None:
    eventually(lambda: readiness(machine)[0] == 503)
    status, said = readiness(machine)
    assert (status, said[: len(sentence)]) == (503, sentence)
    assert f"trouble   {sentence}" in machine.run("status").out


def go(machine: UserMachine) -> None:
    (machine.home / "go").touch()


def is_refused(machine: UserMachine, why: str) -> bool:
    refused = machine.run("submit", "--memory", "64Mi", "--", "true", timeout_s=150)
    assert (refused.code != 0, refused.out, len(refused.sentences)) == (True, "", 1), refused
    return why in refused.err


def test_a_database_on_a_full_disk_refuses_what_is_new_and_takes_up_what_happened_meanwhile(
    machine: UserMachine, database: Disk
) -> None:
    job = submitted(machine, WAITS)
    eventually(lambda: is_on(machine, job) and phase(machine, job) == "Running", 150)
    filler = database.fill()

    until_it_says(machine, f"{DATABASE} full, so nothing new starts; make room")
    assert is_refused(machine, "the disk is full; make room, nothing was written")
    go(machine)
    # What the database cannot take is not shown as if it had happened.
    assert phase(machine, job) == "Running"
    filler.unlink()

    eventually(lambda: phase(machine, job) == "Succeeded", 150)
    assert machine.run("logs", job).out.splitlines() == ["on", "went on"]
    eventually(lambda: readiness(machine) == (200, ""))
    again = submitted(machine, "echo again")
    eventually(lambda: phase(machine, again) == "Succeeded", 150)
    assert "trouble" not in machine.run("status").out


def test_a_database_whose_disk_failed_says_so_ends_in_time_and_has_everything_after_the_repair(
    machine: UserMachine, database: Disk
) -> None:
    before = submitted(machine, "echo before")
    eventually(lambda: phase(machine, before) == "Succeeded", 150)
    job = submitted(machine, WAITS)
    eventually(lambda: is_on(machine, job) and phase(machine, job) == "Running", 150)
    database.fail()

    until_it_says(machine, f"{DATABASE} read-only, so nothing new starts; make it writable")
    assert is_refused(machine, "read-only")
    go(machine)
    runs = machine.home / "done"
    eventually(runs.exists, 150)
    # It is shown as it was, or where a commit is in doubt not at all; never with an end that nobody could write down.
    said = machine.run("job", job, "--json")
    is_doubt = said.code == 4 and "read-only" in said.err and "what is shown would not be certain" in said.err
    assert is_doubt or (said.code == 0 and said.json["phase"] == "Running"), said
    down = machine.run("down", timeout_s=150)
    assert down.code == 0, down
    eventually(lambda: _is_free(database), 90)
    up = machine.run("up", "--config", str(machine.home / "tuttilab.yaml"))

    assert up.code == 0, up
    eventually(lambda: phase(machine, job) == "Succeeded", 150)
    assert machine.run("logs", job).out.splitlines() == ["on", "went on"]
    assert phase(machine, before) == "Succeeded"
    assert readiness(machine) == (200, "")


def _is_free(disk: Disk) -> bool:
    try:
        disk.repair()
    except subprocess.CalledProcessError:
        return False
    return True


def test_pods_whose_disk_fills_end_as_they_end_and_new_ones_wait_for_room(machine: UserMachine, pods: Disk) -> None:
    job = submitted(machine, WAITS)
    writes = submitted(machine, f"{WAITS}; echo more >$RESULT_DIR/out || exit 7")
    eventually(lambda: is_on(machine, job) and is_on(machine, writes), 150)
    filler = pods.fill()

    until_it_says(machine, "The file system of the folder clusters is full, so nothing new starts; make room")
    waits = submitted(machine, "echo had room")
    log = machine.state / "control.log"
    # Longer than five launches that fail would take to end the job.
    eventually(lambda: log.read_text().count("cannot start yet") >= 6, 120)
    go(machine)

    eventually((machine.home / "done").exists, 150)
    # Their side-cars wait for room for the record of their ends, without which these would count as lost.
    assert {phase(machine, one) for one in (job, writes)} == {"Running"}
    assert phase(machine, waits) not in ("Failed", "Succeeded")
    filler.unlink()

    eventually(lambda: [phase(machine, one) for one in (job, writes)] == ["Succeeded", "Failed"], 150)
    assert machine.run("job", writes, "--json").json["exit_code"] == 7
    assert [len(machine.run("job", one, "--json").json["attempts"]) for one in (job, writes)] == [1, 1]
    eventually(lambda: phase(machine, waits) == "Succeeded", 120)
    assert machine.run("logs", waits).out == "had room\n"
    eventually(lambda: readiness(machine) == (200, ""))


def test_pods_whose_disk_failed_can_be_cancelled_and_nothing_is_started_twice(machine: UserMachine, pods: Disk) -> None:
    job = submitted(machine, f'echo x >>"$HOME/starts"; {WAITS}')
    eventually(lambda: is_on(machine, job), 150)
    pods.fail()

    until_it_says(machine, "The file system of the folder clusters is read-only, so nothing new starts; make it writable")
    assert phase(machine, job) == "Running"
    assert machine.run("cancel", job).code == 0
    # That nothing can be written keeps no process of it alive.
    eventually(lambda: phase(machine, job) == "Cancelled", 90)
    assert [one for one in machine.processes() if "sleep" in one.cmdline()] == []
    assert machine.run("down", timeout_s=150).code == 0
    eventually(lambda: _is_free(pods), 90)

    assert machine.run("up", "--config", str(machine.home / "tuttilab.yaml")).code == 0
    assert phase(machine, job) == "Cancelled"
    assert (machine.home / "starts").read_text() == "x\n"
    again = submitted(machine, "echo again")
    eventually(lambda: phase(machine, again) == "Succeeded", 150)
    assert readiness(machine) == (200, "")
