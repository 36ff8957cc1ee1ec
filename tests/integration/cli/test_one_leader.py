"""Two state folders on one SQLite file: one control plane leads it at a time, and no job ever runs twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.user_machine import CONFIG, UserMachine, eventually, made_machine
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.store.sql import SqlStore


@dataclass
class Site:
    one: UserMachine
    other: UserMachine
    database: Path
    config: Path

    def up(self, machine: UserMachine) -> tuple[int, str]:
        said = machine.run("up", "--config", str(self.config))
        return said.code, said.err

    def job(self, machine: UserMachine) -> str:
        """The id of a running job whose user process records each of its starts."""
        runs = self.database.parent / "runs"
        job = machine.run(
            "submit", "--cpus", "1", "--memory", "64Mi", "--", "sh", "-c", f"echo $$ >> {runs}; sleep 300"
        ).out.strip()
        eventually(runs.exists)
        eventually(lambda: machine.run("job", job, "--json").json["phase"] == "Running")  # which it learns a moment later
        return job

    def starts(self) -> list[int]:
        return [int(line) for line in (self.database.parent / "runs").read_text().split()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    database, config = tmp_path / "shared" / "jobs.db", tmp_path / "tuttilab.yaml"
    config.write_text(f"{CONFIG}store: {{url: 'sqlite:///{database}'}}\nlimits: {{heartbeat_s: 0.5, lost_after_s: 30}}\n")
    with made_machine(tmp_path / "1") as one, made_machine(tmp_path / "2") as other:
        yield Site(one, other, database, config)


def test_a_second_control_plane_on_the_file_is_refused_while_the_first_lives(site: Site) -> None:
    assert site.up(site.one)[0] == 0
    job, pid = site.job(site.one), site.one.runtime().pid

    code, why = site.up(site.other)

    assert code == 2
    assert f"{site.database} is in use by another control plane (state folder {site.one.state}, pid {pid} on " in why
    assert site.other.processes() == []
    shown = site.one.run("job", job, "--json").json
    assert (shown["phase"], len(shown["attempts"])) == ("Running", 1)
    assert len(site.starts()) == 1


def test_another_folder_does_not_take_over_jobs_whose_pods_it_cannot_find(site: Site) -> None:
    site.up(site.one)
    job = site.job(site.one)
    os.kill(site.one.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(site.one.state).runtime is None)

    code, why = site.up(site.other)
    back = site.up(site.one)
    shown = site.one.run("job", job, "--json").json
    ended = site.one.run("down", "--now")
    taken = site.up(site.other)

    assert (code, "has live jobs whose pods only another state folder knows" in why) == (2, True), why
    assert f"state folder {site.one.state}, pid " in why
    assert back[0] == 0
    assert (shown["phase"], len(shown["attempts"])) == ("Running", 1)
    assert (ended.code, taken) == (0, (0, ""))
    assert len(site.starts()) == 1
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in site.starts()))
    assert site.other.run("job", job, "--json").json["phase"] == "Cancelled"


def test_a_deposed_control_plane_ends_by_itself_and_its_pods_go_on(site: Site) -> None:
    """The lock file was removed, so another process could take over."""
    site.up(site.one)
    site.job(site.one)
    leads = site.one.runtime()
    (site.database.parent / "jobs.db.lock").unlink()

    async def take_over() -> None:
        store = SqlStore(f"sqlite:///{site.database}")
        await store.open()
        await store.close()

    asyncio.run(take_over())

    eventually(lambda: not leads.process.is_alive())
    assert "another process leads" in (site.one.state / "control.log").read_text()
    assert discovery.find(site.one.state).runtime is None
    assert psutil.pid_exists(site.starts()[0])


def test_a_restore_is_refused_while_a_control_plane_of_another_folder_leads(site: Site) -> None:
    site.up(site.one)
    job = site.job(site.one)
    backup = site.database.with_name("backup")
    site.one.run("scheduler", "backup", str(backup), "--config", str(site.config))
    options = ("scheduler", "restore", str(backup), "--force", "--config", str(site.config))

    refused = site.other.run(*options)
    shown = site.one.run("job", job, "--json").json
    os.kill(site.one.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(site.one.state).runtime is None)
    restored = site.other.run(*options)

    assert (refused.code, "is in use by another control plane" in refused.err) == (2, True), refused
    assert shown["phase"] == "Running"
    assert restored.code == 0, restored
    assert site.up(site.other) == (0, ""), "a restore hands the jobs over"
