"""A file system that becomes read-only: the control plane says so, loses nothing, and goes on when that is mended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.user_machine import CONFIG, UserMachine, eventually

pytestmark = [pytest.mark.requires("mounts"), pytest.mark.timeout(700)]


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


@pytest.fixture
def mounted(machine: UserMachine) -> Iterator[Path]:
    """The folder of all pods, as a file system of its own."""
    config = machine.home / "tuttilab.yaml"
    config.write_text(CONFIG)
    assert machine.run("up", "--config", str(config)).code == 0
    assert machine.run("down").code == 0
    folder = machine.state / "clusters"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", str(folder)], check=True)
    try:
        assert machine.run("up", "--config", str(config)).code == 0
        yield folder
        machine.run("down", "--now")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_jobs_wait_while_the_folder_of_pods_is_read_only_and_start_when_it_is_not(machine: UserMachine, mounted: Path) -> None:
    url = machine.runtime().url
    assert httpx.get(f"{url}/readyz", trust_env=False, timeout=150).status_code == 200
    remount(mounted, "ro")

    job = machine.run("submit", "--memory", "64Mi", "--", "echo", "went on").out.strip()
    # An answer is a second old at most.
    eventually(lambda: httpx.get(f"{url}/readyz", trust_env=False, timeout=150).status_code == 503)
    ready = httpx.get(f"{url}/readyz", trust_env=False, timeout=150)
    shown = machine.run("status")
    log = machine.state / "control.log"
    # Longer than five launches that fail would take to end the job.
    eventually(lambda: log.read_text().count("cannot start yet") >= 6, 120)
    waiting = machine.run("job", job, "--json").json
    remount(mounted, "rw")

    sentence = (
        "The file system of the folder clusters is read-only, so nothing new starts; make it writable, and what waits goes on."
    )
    assert (ready.status_code, ready.json()["type"]) == (503, "store-unreachable")
    assert ready.json()["detail"].startswith(sentence)
    assert shown.code == 0
    assert f"trouble   {sentence}" in shown.out
    assert (waiting["is_ended"], len(waiting["attempts"])) == (False, 1), waiting
    eventually(lambda: machine.run("job", job, "--json").json["phase"] == "Succeeded", 120)
    assert machine.run("logs", job).out == "went on\n"
    eventually(lambda: httpx.get(f"{url}/readyz", trust_env=False, timeout=150).status_code == 200)
    assert "trouble" not in machine.run("status").out


def test_a_start_in_a_read_only_state_folder_names_the_cause_and_the_next_one_has_all_jobs(machine: UserMachine) -> None:
    machine.state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", str(machine.state)], check=True)
    try:
        assert machine.run("up").code == 0
        job = machine.run("submit", "--memory", "64Mi", "--wait", "--", "echo", "kept").out.split()[0]
        assert machine.run("down").code == 0
        # The process may hold its log for a moment after its end.
        eventually(lambda: subprocess.run(["mount", "-o", "remount,ro", str(machine.state)], check=False).returncode == 0, 90)

        refused = machine.run("up")
        told = machine.run("doctor")
        remount(machine.state, "rw")
        again = machine.run("up")

        assert refused.code != 0
        assert f"The state folder {machine.state} cannot be used (it is not writable)" in refused.err, refused
        assert len(refused.sentences) == 1, refused
        assert f"{machine.state} is not writable (its file system is read-only)" in told.out, told
        assert "Mount it for writing, or set TUTTILAB_STATE_DIR to a folder elsewhere." in told.out, told
        assert "chmod" not in told.out, told
        assert again.code == 0, again
        assert machine.run("job", job, "--json").json["phase"] == "Succeeded"
        assert machine.run("logs", job).out == "kept\n"
        machine.run("down", "--now")
    finally:
        subprocess.run(["umount", "--lazy", str(machine.state)], check=True)
