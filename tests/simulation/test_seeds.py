"""Seeded runs of the core, judged by the oracle after every step; the same journal gives the same state and the same decisions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.runs import STEPS, replay, run, trace_hash

ROOT = Path(__file__).resolve().parents[2]
SOAK = bool(os.environ.get("TUTTILAB_SOAK"))
SEEDS = int(os.environ.get("TUTTILAB_SEEDS", "2000" if SOAK else "30"))


@pytest.mark.feature("S03", "S04", "S10", "S13", "S14", "J09", "A05", "B02")
@pytest.mark.parametrize("first", range(0, SEEDS, 10), ids=lambda first: f"seeds-from-{first}")
def test_no_promise_is_broken_in_seeded_runs(first: int, tell: Callable[[str], None]) -> None:
    """I1 to I7, I10, I12, I13, I16, I18, I19, I21, I23, I24, while queues and nodes change: a failing seed is in the message."""
    tell(f"seeds {first} to {min(first + 10, SEEDS) - 1} of the core, {STEPS} steps each")
    for seed in range(first, min(first + 10, SEEDS)):
        world = run(seed)
        again = replay(world.journal)
        assert (again.jobs, again.attempts) == (world.state.jobs, world.state.attempts), f"I12: seed {seed}"
        assert again.accounts.rows == world.state.accounts.rows, f"I12: seed {seed}"


def test_I25_the_same_seed_gives_the_same_trace_in_any_process() -> None:
    code = "from tests.simulation.runs import run, trace_hash; print(trace_hash(run(7).journal))"
    told = {trace_hash(run(7).journal)}
    for hash_seed in ("0", "1", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        told.add(done.stdout.strip())
    assert len(told) == 1
