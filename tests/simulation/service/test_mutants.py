"""Would the simulation see a bug? Each patch in `mutants/` plants one in a copy of the package, and some seed has to show it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MUTANTS = sorted((Path(__file__).parent / "mutants").glob("*.patch"))
SEEDS, STEPS = 120, 300


def planted(patch: Path | None, folder: Path) -> Path:
    """A folder in which `tuttilab` is the package with that bug."""
    package = folder / "tuttilab"
    package.mkdir(parents=True)
    for name in ("scheduler", "sidecar"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    if patch is not None:
        subprocess.run(["git", "apply", "-p1", "--unsafe-paths", str(patch)], cwd=package, check=True, env=outside_of_git())
    return folder


def outside_of_git() -> dict[str, str]:
    """A patch is applied where git is told, also when that is inside somebody's work tree."""
    return {**os.environ, "GIT_DIR": os.devnull, "GIT_CEILING_DIRECTORIES": "/"}


def hunted(folder: Path, seeds: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation.service.hunt", "0", str(seeds), str(STEPS), str(folder / "state")]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)


def test_the_copy_is_what_runs_and_shows_nothing_without_a_bug(tmp_path: Path) -> None:
    folder = planted(None, tmp_path / "none")
    asked = [sys.executable, "-c", "import tuttilab.scheduler.service as s; print(s.__file__)"]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    said = subprocess.run(asked, env=environ, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()) == folder / "tuttilab" / "scheduler" / "service.py"
    found = hunted(folder, 3)
    assert (found.returncode, len(found.stdout)) == (0, 64), found.stderr


@pytest.mark.timeout(1800)
def test_every_planted_bug_is_caught(tmp_path: Path, tell: Callable[[str], None]) -> None:
    def caught(patch: Path) -> str:
        found = hunted(planted(patch, tmp_path / patch.stem), SEEDS)
        assert "ImportError" not in found.stderr, found.stderr
        return found.stdout if found.returncode == 1 else ""

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        said = dict(zip(MUTANTS, pool.map(caught, MUTANTS), strict=True))
    tell(f"{sum(map(bool, said.values()))} of {len(said)} bugs planted in the service caught")
    for patch, what in said.items():
        tell(f"  {patch.stem}: {what[:100] or 'NOT CAUGHT'}")
    assert [patch.stem for patch, what in said.items() if not what] == []
    assert len(said) >= 15
