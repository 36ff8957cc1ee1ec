"""`tuttilab scheduler reload`: queues change while jobs run, a group moves to another cluster, and a bad file changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.user_machine import CommandResult, UserMachine, eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import Conflict
from tuttilab.scheduler.runtime import discovery

SITE = """
clusters:
  - {name: old, kind: local, nodes: [{name: a, cpus: 4, memory: 4Gi}]}
  - {name: new, kind: local, nodes: [{name: b, cpus: 4, memory: 4Gi}]}
"""
QUEUES = """
queues:
  - {name: root}
  - {name: research, parent: root, max: {cpu: 3}, clusters: [old]}
  - {name: spare, parent: root, max: {cpu: 1}}
defaults: {queue: research}
"""


@pytest.fixture
def moving(machine: UserMachine) -> UserMachine:
    file = machine.home / "tuttilab.yaml"
    file.write_text(SITE + QUEUES)
    said = machine.run("up", "--config", str(file))
    assert said.code == 0, said
    return machine


def rewrite(machine: UserMachine, old: str, new: str, *options: str) -> CommandResult:
    file = machine.home / "tuttilab.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return machine.run("scheduler", "reload", *options)


def submit(machine: UserMachine, name: str, cpus: int, *more: str) -> str:
    said = machine.run("submit", "--name", name, "--cpus", str(cpus), "--memory", "64Mi", *more, "--json", "--", "sleep", "600")
    assert said.code == 0, said
    return str(json.loads(said.out)["id"])


def phases(machine: UserMachine) -> dict[str, tuple[str, str]]:
    with Client(machine.runtime().url, machine.runtime().token) as client:
        return {job.name: (job.phase, (job.attempts[-1].cluster if job.attempts else "")) for job in client.jobs(limit=100).jobs}


def in_force(machine: UserMachine) -> list[tuple[str, int, dict[str, tuple[int, int | None]]]]:
    """Name, weight, and by resource the guaranteed amount and the max."""
    queues = machine.run("queues", "--json").json
    uses = [{use["resource"]: (use["guaranteed"], use["max"]) for use in queue["use"]} for queue in queues]
    return [(queue["name"], queue["weight"], use) for queue, use in zip(queues, uses, strict=True)]


@pytest.mark.feature("S11", "S10")
def test_a_group_moves_to_another_cluster_while_its_jobs_run_and_its_quota_holds_over_both(moving: UserMachine) -> None:
    submit(moving, "first", 2)
    eventually(lambda: phases(moving)["first"] == ("Running", "old"))

    said = rewrite(moving, "clusters: [old]", "clusters: [new]")

    assert (said.code, said.out) == (0, "queue research: clusters old -> new\n")
    submit(moving, "second", 1)
    submit(moving, "third", 1)
    eventually(lambda: phases(moving)["second"] == ("Running", "new"))
    third = eventually(
        lambda: next((job for job in moving.run("jobs", "--json").json if job["name"] == "third" and job["wait"]), None)
    )
    assert "queue research uses 3 of 3 CPU" in third["wait"]["sentence"]
    assert phases(moving)["first"] == ("Running", "old")

    assert rewrite(moving, "max: {cpu: 3}", "max: {cpu: 4}", "--yes").out == "queue research: max 3 CPU -> 4 CPU\n"
    eventually(lambda: phases(moving)["third"] == ("Running", "new"))
    assert moving.run("scheduler", "verify").code == 0
    # `up` with the changed file finds the control plane running with it.
    assert moving.run("up", "--config", str(moving.home / "tuttilab.yaml")).code == 0


def test_the_change_survives_a_restart_and_a_second_reload_changes_nothing(moving: UserMachine) -> None:
    said = rewrite(moving, "max: {cpu: 1}", "max: {cpu: 2}, weight: 3", "--yes")
    assert said.out == "queue spare: weight 1 -> 3, max 1 CPU -> 2 CPU\n"
    assert moving.run("scheduler", "reload").out == "Nothing changed.\n"
    said = rewrite(moving, "defaults: {queue: research}", "defaults: {queue: spare}")
    assert said.out == "defaults: queue research -> spare\n"
    submit(moving, "by-default", 2)
    eventually(lambda: phases(moving)["by-default"][0] == "Running")
    assert moving.run("jobs", "--json").json[0]["queue"] == "spare"
    moving.run("down", "--now")
    moving.run("up", "--config", str(moving.home / "tuttilab.yaml"))
    assert ("spare", 3, 2000) in [(name, weight, use["cpu"][1]) for name, weight, use in in_force(moving) if "cpu" in use]


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("max: {cpu: 3}", "max: {cpu: 3}, guaranteed: {cpu: 5}", 2, "queue 'research': guaranteed 5 CPU is above its max 3 CPU"),
        ("parent: root, max: {cpu: 1}", "parent: roof, max: {cpu: 1}", 2, "its parent 'roof' is not there"),
        ("weight", "", 0, ""),
        ("cpus: 4, memory: 4Gi}]}\n  - {name: new", "cpus: 8, memory: 4Gi}]}\n  - {name: new", 3, "clusters changed too"),
        ("queue: research}", "queue: nosuch}", 2, "nosuch"),
        ("- {name: spare", "- {name: spar", 3, "queue 'spare' has 1 unended job and would be gone"),
        (
            "max: {cpu: 1}",
            "max: {cpus: 1}",
            2,
            "queues[2].max: no node of any cluster has 'cpus', so this would limit nothing; did",
        ),
        ("max: {cpu: 1}", "weight: 2", 3, "it would loosen a limit (queue spare: max 1 cpu -> no limit)"),
    ],
)
def test_a_refused_reload_changes_nothing(moving: UserMachine, old: str, new: str, code: int, words: str) -> None:
    if not words:
        (moving.home / "tuttilab.yaml").unlink()
        said, code, words = moving.run("scheduler", "reload"), 2, "cannot be read"
    else:
        submit(moving, "keeps", 1, "--queue", "spare")
        before = in_force(moving)
        said = rewrite(moving, old, new)
        assert in_force(moving) == before
    assert said.code == code, said
    assert words in said.err


def answered(machine: UserMachine, answer: str) -> tuple[int, str]:
    """Exit code and all that `scheduler reload` writes to the terminal at which it is answered."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tuttilab.scheduler.cli", "scheduler", "reload"]
    process = subprocess.Popen(command, cwd=machine.home, env=machine.environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer.encode())
    text = b""
    with open(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
        while block := terminal.read(4096):
            text += block
    return process.wait(150), text.decode().replace("\r\n", "\n")


def test_a_limit_that_goes_is_named_and_stays_until_that_was_agreed_to(moving: UserMachine) -> None:
    before = in_force(moving)
    file = moving.home / "tuttilab.yaml"
    file.write_text(file.read_text().replace("max: {cpu: 3}", "max: {memory: 3Gi}"))

    code, text = answered(moving, "n\n")
    assert code == 3
    assert "loosens  queue research: max 3 cpu -> no limit\nIs that meant? [y/N]" in text
    assert text.endswith("Nothing was changed.\n")
    assert in_force(moving) == before

    code, text = answered(moving, "y\n")
    assert code == 0
    assert text.endswith("queue research: max 3 CPU -> 3Gi memory\n")
    assert ("research", 1, {"memory": (0, 3 * 2**30)}) in in_force(moving)


def test_what_was_agreed_to_is_what_was_shown(moving: UserMachine) -> None:
    file = moving.home / "tuttilab.yaml"
    with Client(moving.runtime().url, moving.runtime().token) as client:
        file.write_text(file.read_text().replace("max: {cpu: 1}", "max: {cpu: 2}"))
        plan = client.reload(dry_run=True)
        assert plan.loosened == ("queue spare: max 1 cpu -> 2 cpu",)
        file.write_text(file.read_text().replace("max: {cpu: 2}", "max: {cpu: 3}"))
        with pytest.raises(Conflict, match=r"would loosen a limit \(queue spare: max 1 cpu -> 3 cpu\)"):
            client.reload(accept=plan.loosened)
    assert {use["cpu"][1] for name, _, use in in_force(moving) if name == "spare"} == {1000}


def test_a_restart_that_loosens_a_limit_says_so_in_the_log(moving: UserMachine) -> None:
    assert moving.run("down").code == 0
    file = moving.home / "tuttilab.yaml"
    file.write_text(file.read_text().replace("max: {cpu: 1}", "weight: 2"))
    assert moving.run("up", "--config", str(file)).code == 0
    log = discovery.log_file(Path(moving.runtime().state_dir)).read_text()
    assert "the configuration of this start loosens a limit: queue spare: max 1 cpu -> no limit" in log


def test_without_a_configuration_file_reload_is_refused(machine: UserMachine, tmp_path: Path) -> None:
    machine.run("up")
    said = machine.run("scheduler", "reload")
    assert said.code != 0
    assert "built-in configuration" in said.err


def test_volumes_and_side_cars_of_the_site_are_taken_up_and_a_right_to_write_has_to_be_meant(moving: UserMachine) -> None:
    proxy = "sidecars: [{name: proxy, image: i, cpus: 1, memory: 1Mi}]"
    said = rewrite(moving, "queues:", f"storages: [{{claim: work, groups: {{a: r, b: r}}}}]\n{proxy}\nqueues:")
    assert (said.code, said.out.splitlines()) == (0, ["storage claim work is new", "side-car proxy is new"])

    refused = rewrite(moving, "a: r,", "a: rw,")
    assert (refused.code, "it would loosen a limit (storage claim work: a r -> rw)" in refused.err) == (3, True)
    assert moving.run("scheduler", "reload", "--yes").out == "storage claim work: a r -> rw\n"
    assert rewrite(moving, "cpus: 1, memory: 1Mi", "cpus: 2, memory: 1Mi").out.startswith(
        "side-car proxy: resources changed, for jobs"
    )
    assert rewrite(moving, ", b: r", "").out == "storage claim work: b r -> none\n"
    gone = rewrite(moving, "storages: [{claim: work, groups: {a: rw}}]", "")
    assert (gone.code, "storages: the list is gone, and then profiles may mount any claim" in gone.err) == (3, True)
