"""`docs/guides/elastic.md`: its worker and its commands run as they stand, in a new home on two cores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.guides.test_cli import ROOT, TWO_CORES, blocks
from tests.user_machine import UserMachine, made_machine

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UserMachine]:
    with made_machine(tmp_path) as made:
        (made.home / "two-cores.yaml").write_text(TWO_CORES)
        assert made.run("up", "--config", str(made.home / "two-cores.yaml")).code == 0
        yield made


@pytest.mark.feature("C01", "S16")
def test_the_worker_of_the_guide_does_each_piece_once_and_asks_for_no_more_workers_than_pieces(machine: UserMachine) -> None:
    guide = (ROOT / "docs/guides/elastic.md").read_text()
    (worker,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (machine.home / "worker.py").write_text(worker)
    (commands,) = blocks(guide)
    path = f"{Path(sys.executable).parent}{os.pathsep}{machine.environ['PATH']}"

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=machine.home,
        env={**machine.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    shown = done.stdout.splitlines()
    assert "20" in [line.strip() for line in shown]
    assert re.search(r"^asks for +[1-9][0-9]* workers$", done.stdout, re.MULTILINE), done.stdout
