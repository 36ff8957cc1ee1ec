"""`tuttilab doctor`: its findings, their remedies, and its exit codes."""

from __future__ import annotations

import os
import signal

from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler import __version__
from tuttilab.scheduler.runtime import discovery


def findings(machine: UserMachine, **environ: str) -> tuple[int, dict[str, dict[str, str]]]:
    said = machine.run("doctor", "--json", cwd=None, timeout_s=150, **environ)
    return said.code, {finding["what"]: finding for finding in said.json}


def test_sound_machine_exits_with_0_and_is_not_changed(machine: UserMachine) -> None:
    code, found = findings(machine)

    assert (code, [one for one in found.values() if one["level"] == "broken"]) == (0, [])
    assert found["tuttilab"]["detail"] == __version__
    assert found["control plane"]["detail"] == "not running; the first use starts it"
    assert found["state folder"]["detail"] == f"{machine.state} (made on first use)"
    assert not machine.state.exists()


def test_running_control_plane_is_checked(machine: UserMachine) -> None:
    machine.run("up")

    _, found = findings(machine)

    assert found["control plane"]["level"] == "ok"
    assert machine.runtime().url in found["control plane"]["detail"]
    assert found["database"]["level"] == "ok"


def test_problem_exits_with_1_and_names_its_remedy(machine: UserMachine) -> None:
    machine.state.mkdir(mode=0o700)
    (machine.state / "state.db").write_bytes(b"x" * 1000)

    code, found = findings(machine, JAVA_HOME="/nowhere")

    assert (code, found["database"]["level"]) == (1, "broken")
    assert found["database"]["remedy"] != ""


def test_unreachable_service_is_a_problem(machine: UserMachine) -> None:
    code, found = findings(machine, TUTTILAB_URL="http://127.0.0.1:9", TUTTILAB_TOKEN="x")

    assert (code, found["service"]["level"]) == (1, "broken")
    assert found["service"]["remedy"] == "Check TUTTILAB_URL and TUTTILAB_TOKEN."


def test_leftovers_and_open_secrets_are_found(machine: UserMachine) -> None:
    machine.run("up")
    os.kill(machine.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(machine.state).runtime is None)
    (machine.state / "token").chmod(0o644)

    code, found = findings(machine)

    assert (found["stale file"]["level"], found["secrets"]["level"], code) == ("note", "broken", 1)
    assert found["secrets"]["remedy"] == f"Run `chmod 600 {machine.state}/token`."
