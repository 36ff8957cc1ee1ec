"""`docs/guides/migrate.md`: its cells run in order in one kernel, its commands in one shell, both as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import Kernel
from tests.user_machine import UserMachine

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "guides" / "migrate.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.feature("M14", "M04")
def test_every_cell_of_the_guide_runs_as_written(kernel: Kernel, home: UserMachine) -> None:
    cells = blocks("python")
    assert len(cells) > 15
    gave = {}
    for cell in cells:
        ran = kernel.run(cell.rstrip("\n"), timeout=600)
        assert ran.status == "ok", f"{cell}\n{ran.error}"
        gave[cell.splitlines()[0]] = ran
    assert gave['totals["result0"].value.sum(), shops'].value in ("(29.5, 2)", "(np.float64(29.5), 2)")
    assert (home.home / "totals.csv").exists()
    assert "2 rows × 3 columns" in gave["%%spark -q false"].text
    assert "default" in gave["%listengine"].text
    assert "warm" not in kernel.run("%who_ls str").text
    assert kernel.value("warm.delta.tolist()") == "[3]"
    assert gave["%%cleanup -f"].text == "Stopped: default."
    # Both are gone: %%spark is Python with the notebook's names again.
    assert "unknown option -o" in kernel.run("%%spark -o x\n1").error


@pytest.mark.feature("M14")
def test_every_command_of_the_guide_runs_as_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy" / "linkismagic", tmp_path / "deploy" / "linkismagic")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Into a folder of its own, and without tuttilab itself, which is there.
    pip = {"PIP_TARGET": str(tmp_path / "site"), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    environ = {**os.environ, "PATH": programs, "HOME": str(tmp_path), **pip}
    found = blocks("sh")
    assert len(found) == 2
    for block in found:
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}"
    assert (tmp_path / "site" / "linkismagic" / "__init__.py").exists()
    assert "tuttilab.magics.sparkmagic" in (tmp_path / ".ipython" / "profile_default" / "ipython_kernel_config.py").read_text()
