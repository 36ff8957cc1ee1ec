"""A state folder that was copied, or whose small files are gone, while its control plane runs."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_machine import UserMachine, eventually, made_machine
from tuttilab.scheduler.domain.errors import Unavailable
from tuttilab.scheduler.runtime import discovery


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UserMachine]:
    with made_machine(tmp_path) as machine:
        yield machine


def test_in_a_copy_of_a_state_folder_nobody_ends_the_control_plane_of_the_original(machine: UserMachine, tmp_path: Path) -> None:
    assert machine.run("up").code == 0
    job = machine.run("submit", "--name", "long", "--cpus", "0.1", "--memory", "64Mi", "--", "sleep", "300").out.strip()
    eventually(lambda: machine.run("job", job, "--json").json["phase"] == "Running")
    copy = tmp_path / "copy"
    shutil.copytree(machine.state, copy)

    told = machine.run("status", TUTTILAB_STATE_DIR=str(copy))
    pid = machine.runtime().pid
    assert (told.code, told.out) == (
        4,
        f"{copy}/runtime.json is a copy: the control plane with pid {pid} is that of {machine.state}.\n",
    )
    assert machine.run("down", TUTTILAB_STATE_DIR=str(copy)).out == f"No control plane runs in {copy}.\n"
    ended = machine.run("down", "--now", TUTTILAB_STATE_DIR=str(copy))
    assert (ended.code, "would run them a second time" in ended.err) == (2, True), ended

    assert machine.runtime().pid == pid
    assert machine.run("job", job, "--json").json["phase"] == "Running"
    assert machine.run("down", "--now").code == 0


def test_a_state_folder_reached_by_another_path_is_the_same_one(machine: UserMachine, tmp_path: Path) -> None:
    assert machine.run("up").code == 0
    (tmp_path / "link").symlink_to(machine.state)

    found = discovery.find(tmp_path / "link")
    assert found.runtime == machine.runtime(), found
    assert machine.run("down", TUTTILAB_STATE_DIR=str(tmp_path / "link")).code == 0


def test_a_moved_folder_is_still_that_of_its_control_plane(machine: UserMachine, tmp_path: Path) -> None:
    assert machine.run("up").code == 0
    runtime = machine.runtime()
    machine.state.rename(tmp_path / "moved")
    try:
        assert discovery.find(tmp_path / "moved").runtime == runtime
    finally:
        os.kill(runtime.pid, signal.SIGKILL)


@pytest.mark.timeout(700)
def test_who_holds_a_folder_without_saying_where_it_is_reached_is_named(
    machine: UserMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.run("up").code == 0
    pid = machine.runtime().pid
    (machine.state / "runtime.json").write_text("{")
    monkeypatch.setattr(discovery, "START_LIMIT_S", 4.0)
    monkeypatch.setattr(discovery, "QUIET_S", 1.0)
    said: list[str] = []

    began = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        discovery.ensure_started(machine.environ, say=said.append)
    assert time.monotonic() - began < 150
    assert said == [f"A control plane (pid {pid}) starts or ends in {machine.state}: waiting for it, 4 s at most."]
    assert f"A control plane (pid {pid}) holds {machine.state} for 4 s" in str(refused.value)
    assert f"`kill {pid}` ends it" in str(refused.value)

    # The advice works, and what it says of the next start is so.
    os.kill(pid, signal.SIGTERM)
    again = machine.run("up")
    assert again.code == 0, again
    assert machine.runtime().pid != pid
    assert machine.run("down", "--now").code == 0
