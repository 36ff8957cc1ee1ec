"""The service in an unkind world keeps its promises, whatever the seed. A violation names its seed, which shows it again."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.doses import IS_SOAK, dose
from tests.simulation.service.hunt import hunt
from tuttilab.sidecar.processes import PR_SET_PDEATHSIG

SEEDS, STEPS = dose("SEEDS", suite=24, soak=50_000), 500 if IS_SOAK else 300
BLOCK = 6

FOUND = (1, 8, 11, 15, 19, 33, 38, 39, 78, 83, 288)
"""Seeds that once showed a bug."""


def _end_with_parent() -> None:
    """A killed run leaves no process that computes on."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _block(folder: str, first: int) -> tuple[list[str], Counter[str]]:
    counts: Counter[str] = Counter()
    outcomes = hunt(first, min(first + BLOCK, SEEDS), STEPS, Path(folder))
    for outcome in outcomes:
        counts.update(outcome.counts)
    return [outcome.violation for outcome in outcomes if outcome.violation], counts


@pytest.mark.feature("J09", "S02", "S17", "B06")
@pytest.mark.timeout(0 if IS_SOAK else 4800)
def test_no_seed_breaks_a_promise(tmp_path: Path, tell: Callable[[str], None]) -> None:
    counts: Counter[str] = Counter()
    violations: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 8), context, _end_with_parent) as pool:
        for found, counted in pool.map(partial(_block, str(tmp_path)), range(0, SEEDS, BLOCK)):
            violations += found
            counts += counted
    met = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
    tell(f"seeds 0 to {SEEDS - 1} of the service, {STEPS} steps each: {met}")
    assert violations == []
    assert counts["crashes"] >= SEEDS
    assert counts["successes"] >= SEEDS
    assert counts["leaders halted"] >= SEEDS
    assert counts["stale calls refused"] >= SEEDS
    assert counts["nodes of graphs tried"] >= SEEDS
    assert counts["old jobs let go of"] >= SEEDS


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_once_showed_a_bug_shows_none(seed: int, tmp_path: Path) -> None:
    assert [outcome.violation for outcome in hunt(seed, seed + 1, 300, tmp_path)] == [""]


def test_I25_the_same_seed_gives_the_same_commits(tmp_path: Path) -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation.service.hunt", "7", "8", "150", str(tmp_path)]
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        digests.add(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout)
    assert len(digests) == 1
    assert len(digests.pop()) == 64
