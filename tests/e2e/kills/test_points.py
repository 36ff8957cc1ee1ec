"""kill -9 at every boundary: each commit, call to the cluster and file has a point before or after it, found by tracing a run."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.kills.plane import plane_in, work

IS_SOAK = bool(os.environ.get("TUTTILAB_SOAK"))
PLANES = 3
"""At once."""


def traced(folder: Path) -> Counter[str]:
    """How often a run without a crash reaches each point."""
    with plane_in(folder) as plane:
        trace = folder / "points"
        assert plane.start(TUTTILAB_CRASH_LOG=str(trace))
        work(plane)
        return Counter(trace.read_text().splitlines())


def crashed(folder: Path, at: str, again_at: str | None = None) -> int:
    """The same run, killed at that point and perhaps at another during the recovery; answers the number of kills."""
    with plane_in(folder) as plane:
        if plane.start(TUTTILAB_CRASH_AT=at) is False and again_at is not None:
            plane.start(TUTTILAB_CRASH_AT=again_at)
        elif again_at is not None:
            plane.submit("before")
            if not plane.has_died():
                plane.kill()
            plane.start(TUTTILAB_CRASH_AT=again_at)
            plane.ended(plane.accepted["before"])
            plane.ask(lambda client: client.delete(plane.accepted["before"]))
        work(plane)
        return plane.kills


@pytest.mark.feature("B06", "S17")
@pytest.mark.timeout(0 if IS_SOAK else 1200)
def test_killed_at_any_boundary_nothing_is_lost_or_done_twice(tmp_path: Path, tell: Callable[[str], None]) -> None:
    reached = traced(tmp_path / "traced")
    # At its first time or in the midst of everything, in turn; every single time in the long run.
    midst = itertools.cycle((False, True))
    times = {
        name: range(1, count + 1) if IS_SOAK else [(count + 1) // 2 if next(midst) else 1]
        for name, count in sorted(reached.items())
    }
    points = [f"{name}:{time}" for name in sorted(times) for time in times[name]]
    with ThreadPoolExecutor(PLANES) as pool:
        kills = list(pool.map(lambda item: crashed(tmp_path / f"p{item[0]}", item[1]), enumerate(points)))
    tell(f"boundaries: {len(reached)} names, {len(points)} points, {sum(kills)} kills")
    assert len(reached) >= 15
    # A few are reached in an order that differs from run to run.
    assert sum(kill >= 1 for kill in kills) >= 0.8 * len(points)


RECOVERY = ("start.open", "start.opened", "start.loaded", "start.looked", "commit.before", "commit.after", "perform.before")


@pytest.mark.feature("B06", "S17")
@pytest.mark.timeout(0 if IS_SOAK else 900)
def test_killed_again_during_recovery_nothing_is_lost_or_done_twice(tmp_path: Path, tell: Callable[[str], None]) -> None:
    pairs = [("commit.after:2", f"{name}:1") for name in RECOVERY]
    with ThreadPoolExecutor(PLANES) as pool:
        kills = list(pool.map(lambda item: crashed(tmp_path / f"p{item[0]}", *item[1]), enumerate(pairs)))
    tell(f"during recovery: {len(pairs)} points, {sum(kills)} kills")
    assert all(kill >= 2 for kill in kills), kills
