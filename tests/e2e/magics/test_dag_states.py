"""`%dag` on runs in every state: each call ends, with what it shows or one sentence."""

import json
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import ControlPlane, Kernel
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]

COMMANDS = {"running": "sleep 300", "failed": "exit 3", "succeeded": "true", "cancelled": "sleep 300"}


@pytest.mark.feature("M15")
def test_every_dag_command_on_every_state_of_a_run_ends(kernel: Kernel, control: ControlPlane, tmp_path: Path) -> None:
    client = control.client()
    runs = {}
    for name, command in COMMANDS.items():
        node = {"name": "only", "job": {"command": ["sh", "-c", command], "pods": [{"cpus": "10m", "memory": "64Mi"}]}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"kind": "Dag", "name": f"is-{name}", "nodes": [node]}))
        ran = kernel.run(f"%dag run {tmp_path / name}.yaml --detach")
        assert ran.status == "ok", ran.error
        runs[name] = client.run(f"is-{name}").id
    client.cancel_run(runs["cancelled"])
    try:
        for name, run in runs.items():
            eventually(lambda: client.run(run).phase.lower() == name)  # noqa: B023  called at once
            for line in (
                f"status {run[:8]}",
                f"status is-{name}",
                "runs",
                "list",
                f"retry {run[:8]} --detach",
                f"cancel {run[:8]}",
            ):
                ran = kernel.run(f"%dag {line}")
                assert ran.status == "ok" or len(ran.error.splitlines()) == 1, ran.error
                if line.startswith("status"):
                    assert client.run(run).phase in ran.text
        # What waits for the end of a run ends when Stop is pressed, and with the run.
        message = kernel.send(f"%dag run {tmp_path / 'running'}.yaml")
        kernel.gather(message, until=lambda ran: "Running" in ran.text)
        kernel.stop_button()
        stopped = kernel.gather(message)
        assert (stopped.ename, "of is-running goes on; `%dag status" in stopped.error) == ("Stopped", True)
        assert kernel.run(f"%dag run {tmp_path / 'failed'}.yaml", timeout=150).ename == "RunFailed"
        assert kernel.run(f"%dag run {tmp_path / 'succeeded'}.yaml", timeout=150).status == "ok"
    finally:
        for view in client.runs():
            if view.phase == "Running":
                client.cancel_run(view.id)
