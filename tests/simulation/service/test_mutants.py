"""Would the simulation see a bug? Each patch in `mutants/` plants one in a copy of the package, and some seed has to show it.

A bug that only a rare course of events shows has a test of its own, which its patch names (`Shown by: FILE::TEST`) and which fails.
"""

from __future__ import annotations

import os
import re
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
    """A folder in which `tuttilab` is the package with that bug. Compiled files come along: only the changed one is stale."""
    package = folder / "tuttilab"
    package.mkdir(parents=True)
    for name in ("scheduler", "sidecar"):
        shutil.copytree(ROOT / name, package / name)
    if patch is not None:
        subprocess.run(["git", "apply", "-p1", "--unsafe-paths", str(patch)], cwd=package, check=True, env=outside_of_git())
    return folder


def outside_of_git() -> dict[str, str]:
    """A patch is applied where git is told, also when that is inside somebody's work tree."""
    return {**os.environ, "GIT_DIR": os.devnull, "GIT_CEILING_DIRECTORIES": "/"}


def known_seed(patch: Path) -> int:
    """The seed that showed the bug before, from the patch's own line `Seed: 21`."""
    found = re.search(r"^Seed: (\d+)$", patch.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) if found else 0


def own_test(patch: Path) -> str:
    """From the patch's own line `Shown by: FILE::TEST`; empty without one."""
    found = re.search(r"^Shown by: (\S+)$", patch.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def outcome_of(folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", test]
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)


def hunted(folder: Path, first: int, last: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation.service.hunt", str(first), str(last), str(STEPS), str(folder / "state")]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)


def test_the_copy_is_what_runs_and_shows_nothing_without_a_bug(tmp_path: Path) -> None:
    folder = planted(None, tmp_path / "none")
    asked = [sys.executable, "-c", "import tuttilab.scheduler.service.loop as s; print(s.__file__)"]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    said = subprocess.run(asked, env=environ, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()) == folder / "tuttilab" / "scheduler" / "service" / "loop.py"
    found = hunted(folder, 0, 3)
    assert (found.returncode, len(found.stdout)) == (0, 64), found.stderr


@pytest.mark.timeout(4800)
def test_every_planted_bug_is_caught(tmp_path: Path, tell: Callable[[str], None]) -> None:
    def caught(patch: Path) -> str:
        folder, seed, test = planted(patch, tmp_path / patch.stem), known_seed(patch), own_test(patch)
        if test:
            done = outcome_of(folder, test)
            assert done.returncode in (0, 1), done.stdout[-2000:]
            return f"its own test fails: {test}" if done.returncode == 1 else ""
        # The seed that showed it before most likely shows it again; all of them count.
        for first, last in ((seed, seed + 1), (0, SEEDS)):
            found = hunted(folder, first, last)
            assert "ImportError" not in found.stderr, found.stderr
            if found.returncode == 1:
                return found.stdout
        return ""

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        said = dict(zip(MUTANTS, pool.map(caught, MUTANTS), strict=True))
    tell(f"{sum(map(bool, said.values()))} of {len(said)} bugs planted in the service caught")
    for patch, what in said.items():
        tell(f"  {patch.stem}: {what[:100] or 'NOT CAUGHT'}")
    assert [patch.stem for patch, what in said.items() if not what] == []
    assert len(said) >= 15
