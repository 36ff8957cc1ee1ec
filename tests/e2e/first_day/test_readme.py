"""The first ten minutes: everything that README says to type is run as it is written, in a fresh home, without a GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from tests.e2e.magics.conftest import Kernel
from tests.user_machine import UserMachine

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]
ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(heading: str, language: str) -> list[str]:
    """The code blocks of one section."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.mark.feature("B18")
def test_every_cell_of_the_readme_runs_as_written(kernel: Kernel, home: UserMachine) -> None:
    cells = blocks("In a notebook", "python")
    assert len(cells) >= 8
    for cell in cells:
        ran = kernel.run(cell.rstrip("\n"), timeout=150)
        assert ran.status == "ok", f"{cell}\n{ran.error}"
    assert kernel.value("type(model).__name__, model.num_boosted_rounds(), training.status") == "('Booster', 10, 'Succeeded')"
    assert kernel.value("squares") == "[0, 1, 4, 9]"
    assert kernel.value("len(daily) == trades.day[trades.day >= since].nunique()") == "True"
    assert (home.home / "daily.parquet").stat().st_size > 1000
    assert kernel.run("%spark stop").status == "ok"


@pytest.mark.feature("B18")
def test_every_command_of_the_readme_runs_as_written(home: UserMachine) -> None:
    (script,) = blocks("At a prompt", "sh")
    lines = script.strip().splitlines()
    said = {}
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line], cwd=home.home, env=home.environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        said[line] = done.stdout
    assert len(lines) >= 8
    ran = next(out for line, out in said.items() if "--wait" in line)
    assert {"[0] worker 0", "[1] worker 1"} <= set(ran.splitlines())
    assert "worker 0" in said["tuttilab logs train"]


@pytest.mark.feature("B18")
def test_every_cell_of_the_tour_runs_as_written(kernel: Kernel, home: UserMachine) -> None:
    tour = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
    (home.home / "nightly.yaml").write_bytes((ROOT / "examples" / "nightly.yaml").read_bytes())
    for cell in tour.cells:
        if cell.cell_type == "code":
            ran = kernel.run(cell.source, timeout=200)
            assert ran.status == "ok", f"{cell.source}\n{ran.error}"
    assert float(kernel.value("report['accuracy']")) > 0.9
    assert kernel.run("%spark stop").status == "ok"
