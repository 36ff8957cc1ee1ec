"""Folders and files that are not what a state folder has, and commands that must not start somebody else's control plane."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_machine import UserMachine, eventually, made_machine
from tuttilab.scheduler.runtime import discovery


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UserMachine]:
    with made_machine(tmp_path) as machine:
        yield machine


def test_a_folder_of_something_else_keeps_its_mode(machine: UserMachine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "report.csv").touch()

    said = machine.run("up", TUTTILAB_STATE_DIR=str(shared))
    assert (said.code, shared.stat().st_mode & 0o777) == (2, 0o755)
    assert "is open to others (mode 755) and holds files of something else" in said.err
    assert [path.name for path in shared.iterdir()] == ["report.csv"]


@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_an_empty_folder_for_everybody_keeps_its_mode(machine: UserMachine, tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)

    said = machine.run("up", TUTTILAB_STATE_DIR=str(shared))
    assert (said.code, shared.stat().st_mode & 0o7777, list(shared.iterdir())) == (2, mode, [])
    assert f"is open to others (mode {mode:03o}) and is there for others to write to" in said.err


@pytest.mark.parametrize("name", ["state.db", "start.lock", "secret.key"])
def test_a_file_that_only_has_a_name_of_ours_makes_no_folder_ours(machine: UserMachine, tmp_path: Path, name: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / name).write_text("of something else")
    (shared / name).chmod(0o644)
    shared.chmod(0o755)

    said = machine.run("up", TUTTILAB_STATE_DIR=str(shared))
    assert (said.code, shared.stat().st_mode & 0o777, (shared / name).read_text()) == (2, 0o755, "of something else")


def test_an_empty_folder_that_others_only_read_is_taken(machine: UserMachine) -> None:
    machine.state.mkdir()
    machine.state.chmod(0o755)

    assert machine.run("up").code == 0
    assert machine.state.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_ours_is_closed_to_others_again(machine: UserMachine) -> None:
    assert machine.run("up").code == 0
    assert machine.run("down").code == 0
    machine.state.chmod(0o755)

    assert machine.run("up").code == 0
    assert machine.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["runtime.json", "last.json"])
def test_no_command_waits_for_a_file_that_is_none(machine: UserMachine, name: str) -> None:
    machine.state.mkdir(mode=0o700)
    os.mkfifo(machine.state / name)

    assert machine.run("status", timeout_s=60).code in (0, 4)
    assert machine.run("up", timeout_s=40).code == 0


@pytest.mark.parametrize("folder", ["/proc/none", "/dev/null", "/sys/none/below"])
def test_no_control_plane_is_ready_that_can_keep_no_output(machine: UserMachine, folder: str) -> None:
    config = machine.home / "tuttilab.yaml"
    config.write_text(f"artifacts: {{url: {folder}}}")

    said = machine.run("up", "--config", str(config))
    assert said.code == 2
    assert said.err.startswith(f"tuttilab: artifacts.url: {folder} cannot be used ("), said
    assert said.err.endswith("); name a folder that this user may write.\n"), said


def test_a_long_error_of_a_start_is_told_in_any_script(machine: UserMachine) -> None:
    config = machine.home / "tuttilab.yaml"
    config.write_text(f"queues:\n  - {{name: root}}\n  - {{name: a, parent: {'很长的名字' * 400}}}\n")

    said = machine.run("up", "--config", str(config))
    assert said.code == 2
    assert "很长的名字" in said.err
    assert "bug" not in said.err.lower()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sites_control_plane_is_started_by_no_command_that_only_looks(machine: UserMachine, number: signal.Signals) -> None:
    serving = machine.start("scheduler", "serve")
    eventually(lambda: discovery.find(machine.state).runtime)
    serving.send_signal(number)
    serving.wait(150)

    for command in (["jobs"], ["quota"], ["nodes"], ["submit", "--", "true"]):
        said = machine.run(*command)
        assert (said.code, "start it as your site does" in said.err) == (4, True), said
    assert discovery.find(machine.state).runtime is None

    assert machine.run("up").code == 0
    assert machine.run("jobs").code == 0


def test_during_a_restore_they_start_none_either(machine: UserMachine) -> None:
    serving = machine.start("scheduler", "serve")
    eventually(lambda: discovery.find(machine.state).runtime)
    job = machine.run("submit", "--wait", "--", "true").out.strip()
    backup = machine.home / "kept" / "backup.db"
    backup.parent.mkdir()
    assert machine.run("scheduler", "backup", str(backup)).code == 0
    later = machine.run("submit", "--wait", "--", "true").out.strip()
    serving.send_signal(signal.SIGTERM)
    serving.wait(150)

    restoring = machine.start("scheduler", "restore", str(backup), "--force")
    while not list(backup.parent.glob(".restore-*")):
        assert restoring.poll() is None, restoring.communicate()
        time.sleep(0.001)
    restoring.send_signal(signal.SIGSTOP)
    why = f"is being restored (pid {restoring.pid}), and nothing starts there until that has ended; try again then"
    for command in (["jobs"], ["quota"], ["nodes"], ["job", job], ["submit", "--", "true"], ["up"]):
        said = machine.run(*command)
        assert (said.code, why in said.err) == (4, True), said
    assert why in machine.run("scheduler", "serve").err
    assert why in machine.run("scheduler", "restore", str(backup), "--force").err
    assert machine.processes("tuttilab.scheduler.server.serve") == []
    restoring.send_signal(signal.SIGCONT)
    restoring.wait(150)

    machine.start("scheduler", "serve")
    eventually(lambda: discovery.find(machine.state).runtime)
    assert machine.job_ids() == [job]
    assert later not in machine.run("jobs", "--all").out
