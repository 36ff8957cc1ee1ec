"""`tuttilab doctor`: what it finds wrong, and what it says to do."""

from __future__ import annotations

import os
import signal

from tests.desk import Desk, eventually
from tuttilab.scheduler import __version__, discovery


def findings(desk: Desk, **environ: str) -> tuple[int, dict[str, dict[str, str]]]:
    said = desk.run("doctor", "--json", cwd=None, timeout_s=60.0, **environ)
    return said.code, {finding["what"]: finding for finding in said.json}


def test_sound_machine_is_0_and_nothing_is_made(desk: Desk) -> None:
    code, found = findings(desk)

    assert (code, [one for one in found.values() if one["level"] == "broken"]) == (0, [])
    assert found["tuttilab"]["detail"] == __version__
    assert found["control plane"]["detail"] == "not running; the first use starts it"
    assert found["state folder"]["detail"] == f"{desk.state} (made on first use)"
    assert not desk.state.exists()


def test_running_control_plane_is_asked(desk: Desk) -> None:
    desk.run("up")

    _, found = findings(desk)

    assert found["control plane"]["level"] == "ok"
    assert desk.runtime().url in found["control plane"]["detail"]
    assert found["database"]["level"] == "ok"


def test_what_is_broken_is_1_with_its_remedy(desk: Desk) -> None:
    desk.state.mkdir(mode=0o700)
    (desk.state / "state.db").write_bytes(b"x" * 1000)

    code, found = findings(desk, JAVA_HOME="/nowhere")

    assert (code, found["database"]["level"]) == (1, "broken")
    assert found["database"]["remedy"] != ""


def test_service_that_is_away_is_broken(desk: Desk) -> None:
    code, found = findings(desk, TUTTILAB_URL="http://127.0.0.1:9", TUTTILAB_TOKEN="x")

    assert (code, found["service"]["level"]) == (1, "broken")
    assert found["service"]["remedy"] == "Check TUTTILAB_URL and TUTTILAB_TOKEN."


def test_leftovers_and_open_secrets_are_found(desk: Desk) -> None:
    desk.run("up")
    os.kill(desk.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(desk.state).runtime is None)
    (desk.state / "token").chmod(0o644)

    code, found = findings(desk)

    assert (found["stale file"]["level"], found["secrets"]["level"], code) == ("note", "broken", 1)
    assert found["secrets"]["remedy"] == f"Run `chmod 600 {desk.state}/token`."
