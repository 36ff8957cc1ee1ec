"""`docs/guides/cli.md`: every block of commands runs as it stands, in order, in a new home on two cores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_machine import UserMachine, made_machine

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]

ROOT = Path(__file__).resolve().parents[3]
TWO_CORES = "clusters: [{name: here, kind: local, nodes: [{name: a, cpus: 2, memory: 8Gi}]}]\n"
BEFORE = "# block "


def blocks(text: str) -> list[str]:
    """The blocks of shell commands."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UserMachine]:
    with made_machine(tmp_path) as made:
        (made.home / "two-cores.yaml").write_text(TWO_CORES)
        assert made.run("up", "--config", str(made.home / "two-cores.yaml")).code == 0
        yield made


@pytest.mark.feature("J14")
def test_every_command_of_the_guide_runs_as_written(machine: UserMachine) -> None:
    found = blocks((ROOT / "docs/guides/cli.md").read_text())
    script = "\n".join(f"echo '{BEFORE}{number}' >&2\n{block}" for number, block in enumerate(found))
    path = f"{Path(sys.executable).parent}{os.pathsep}{machine.environ['PATH']}"

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=machine.home,
        env={**machine.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )

    last = done.stderr.rpartition(BEFORE)[2]
    assert done.returncode == 0, f"block {last}\n{done.stdout[-2000:]}"
    assert len(found) > 8
    for words in (
        "trained for 3 epochs",
        "the setting is 7",
        "monday",
        "report of 2026-11-22",
        "worker 1 of 2",
        "friday",
        "model.bin",
    ):
        assert words in done.stdout, words
