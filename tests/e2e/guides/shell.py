"""Blocks of shell commands of a guide, and a run of them as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.user_machine import UserMachine

GUIDES = Path(__file__).resolve().parents[3] / "docs" / "guides"
BEFORE = "# block "


def blocks(text: str) -> list[str]:
    """The blocks of shell commands."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def output_of(machine: UserMachine, found: Sequence[str]) -> str:
    """What the blocks print, in order in one shell; the first command that fails ends it. Raises AssertionError with its block."""
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
    return done.stdout
