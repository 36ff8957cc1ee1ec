"""The simulator says how often jobs start in the range they were told, on traces of two generators and seeds not used before."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.simulation.test_simulator import gpus, simulate
from tuttilab.scheduler.domain.model import Queue
from tuttilab.scheduler.simulation import POLICIES, Simulation, TraceJob, figures, generate, table
from tuttilab.scheduler.simulation.engine import ToldStart


@dataclass(frozen=True)
class Site:
    name: str
    make: Callable[[int], list[TraceJob]]


def recurring(seed: int, jobs: int = 500, gpus: int = 32, load: float = 1.3) -> list[TraceJob]:
    """Another generator than the product's: each name has a duration that its runs scatter around, and many come in bursts."""
    chance = random.Random(seed)
    names = [
        (
            f"u{int(chance.paretovariate(1.1)) % 60}",
            f"job{number}",
            chance.lognormvariate(math.log(1144), 1.9),
            chance.choices([1, 2, 4, 8], [93, 2, 2, 3])[0],
        )
        for number in range(max(1, jobs // 12))
    ]
    picked = [chance.choice(names) for _ in range(jobs)]
    took = [max(1.0, min(base * chance.lognormvariate(0, 0.5), 20 * 86400.0)) for _, _, base, _ in picked]
    span = sum(seconds * name[3] for seconds, name in zip(took, picked, strict=True)) / (gpus * load)
    spread = [chance.random() for _ in picked]
    at = sorted(
        span * (x if chance.random() < 0.5 else min(1.0, max(0.0, round(x * 40) / 40 + chance.gauss(0, 0.003)))) for x in spread
    )
    return [
        TraceJob(str(number), at[number], took[number], wants, owner=owner, name=name)
        for number, (owner, name, _, wants) in enumerate(picked)
    ]


SITES = (
    Site("generated", lambda seed: [job for job in generate(500, 1.3, 32, seed) if job.gpus <= 32]),
    Site("recurring", recurring),
)


@pytest.mark.feature("B02")
@pytest.mark.timeout(700)
def test_most_jobs_start_in_the_range_that_they_were_told(tell: Callable[[str], None]) -> None:
    # Seeds and traces that nobody chose the rule by: what a site will run is not known either.
    told: list[ToldStart] = []
    for site in SITES:
        for seed in (101, 102):
            outcome = Simulation(gpus(4), (Queue("main"),), site.make(seed), POLICIES["ours"], sample_every=2).run()
            told += outcome.told
            row = figures(outcome)
            tell(f"{site.name} {seed}: told {row.told}, held {row.told_held}, later {row.told_again_held}, width {row.told_width}")
    first = [one for one in told if one.is_first and one.is_told]
    later = [one for one in told if not one.is_first and one.is_told]
    assert len(first) >= 80
    assert sum(one.holds for one in first) / len(first) >= 0.65
    assert sum(one.holds for one in later) / len(later) >= 0.5
    # A range of a minute to a day would hold nearly always, and say nothing.
    assert all(
        one.earliest_s is not None and one.latest_s is not None and one.latest_s <= 31 * (one.earliest_s + 60) for one in first
    )


def test_what_is_told_of_starts_is_printed_and_in_the_figures() -> None:
    outcome = simulate([job for job in generate(300, 1.3, 16, seed=2) if job.gpus <= 16])
    row = figures(outcome)
    assert row.told_held is not None
    assert row.told_width is not None
    assert f"{row.told_held:.0%} in x{row.told_width:.1f}" in table([row])
    assert "told" in table([row]).splitlines()[0]
