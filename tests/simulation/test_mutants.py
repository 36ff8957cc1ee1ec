"""Planted bugs: each patch is put on a copy of the package, and the quick suite has to notice."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = sorted((ROOT / "tests" / "simulation" / "mutants").glob("*.patch"))
QUICK = (
    "tests/unit/core/test_cycle.py",
    "tests/unit/core/test_run_times_and_overtaking.py",
    "tests/unit/core/test_preemption_and_size.py",
    "tests/unit/core/test_queues_and_quota.py",
    "tests/unit/core/test_state.py",
    "tests/simulation/test_holds_stay.py",
    "tests/simulation/test_seeds.py::test_no_promise_is_broken_in_seeded_runs",
)


def quick_suite(package: Path) -> subprocess.CompletedProcess[str]:
    """Run against the `tuttilab.scheduler` below ``package``."""
    environment = os.environ | {"PYTHONPATH": str(package), "TUTTILAB_SEEDS": "10", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *QUICK]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    # With its compiled files, of which only the changed one is stale.
    shutil.copytree(ROOT / "scheduler", tmp_path / "tuttilab" / "scheduler")
    (tmp_path / "scheduler").symlink_to(tmp_path / "tuttilab" / "scheduler")
    return tmp_path


def test_there_are_at_least_fifteen_mutants() -> None:
    assert len(MUTANTS) >= 15


@pytest.mark.timeout(4800)
def test_the_quick_suite_is_green_without_a_mutant(package: Path) -> None:
    done = quick_suite(package)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.timeout(4800)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda path: path.stem)
def test_every_mutant_is_caught(mutant: Path, package: Path, tell: Callable[[str], None]) -> None:
    applied = subprocess.run(["patch", "-p1", "--forward", "-i", str(mutant)], cwd=package, capture_output=True, text=True)
    assert applied.returncode == 0, f"{mutant.name} no longer fits the code; make it again:\n{applied.stdout}"
    done = quick_suite(package)
    by = re.search(r"^(?:FAILED|ERROR) \S+::(\S+)", done.stdout, re.MULTILINE)
    tell(f"bug planted in the core, {mutant.stem}: {f'caught by {by[1]}' if by else 'NOT CAUGHT'}")
    assert done.returncode == 1, f"{mutant.name} lives:\n{done.stdout[-2000:]}"
