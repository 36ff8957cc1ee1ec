"""A hold stays: while run times are as predicted, the start for which room is kept never moves away from the gang that has it.

A backfilled gang ends before that start or uses room that is not needed then (EASY's guarantee), and nobody who comes later takes
the hold over. So whatever moves a start later is a wrong prediction, or a fault; here no prediction is wrong.
"""

import random
from dataclasses import dataclass, field, replace

import pytest

from tests.simulation.test_simulator import gpus
from tuttilab.scheduler.core.cycle import Decision
from tuttilab.scheduler.core.holds import Holds
from tuttilab.scheduler.core.rules import Order
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.model import Queue
from tuttilab.scheduler.simulation import POLICIES, Simulation, TraceJob, Watch
from tuttilab.scheduler.simulation.policies import Policy

NODES = 3
TOLD = POLICIES["easy"]
PROTECTING = replace(TOLD, name="protecting", rules=replace(POLICIES["ours"].rules, order=Order.SUBMISSION))
"""The service's rules in order of submission: protected gangs get the hold first, and theirs trusts fewer predictions."""


@dataclass
class AllHolds(Watch):
    """Every hold of every cycle: the gang with it, and how much later than a cycle before it is to start."""

    starts: dict[str, float] = field(default_factory=dict)
    later: list[tuple[float, str, float]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    taken: list[tuple[float, str, str]] = field(default_factory=list)
    """Time, who had the hold while waiting on, and who was submitted later and has it now."""
    _before: tuple[str, int] | None = None

    def asks(self, now: float) -> bool:
        return False

    def __call__(self, working_set: WorkingSet, holds: Holds, decision: Decision) -> None:
        for hold in holds.on_room.values():
            job, known = hold.job, self.starts.get(hold.job.id)
            if known is not None and hold.start > known + 1e-6:
                self.later.append((working_set.now, job.id, hold.start - known))
            self.starts[job.id] = hold.start
            self.held.add(job.id)
            waits = {one.job.id for one in working_set.lines.candidates()} - {one.job_id for one in decision.admitted}
            if self._before is not None and self._before[0] in waits and self._before[1] < job.order:
                self.taken.append((working_set.now, self._before[0], job.id))
            self._before = job.id, job.order


def trace(seed: int, jobs: int = 150, load: float = 1.3) -> list[TraceJob]:
    """More than three nodes can do: mostly small gangs, every sixth wants a whole node; a minute to two hours long."""
    chance = random.Random(seed)
    sizes = [chance.choices((1, 2, 4, 8), (60, 15, 10, 15))[0] for _ in range(jobs)]
    lengths = [float(round(60.0 * 120.0 ** chance.random())) for _ in range(jobs)]
    span = sum(size * length for size, length in zip(sizes, lengths, strict=True)) / (8 * NODES) / load
    arrivals = sorted(round(chance.uniform(0, span), 1) for _ in range(jobs))
    return [TraceJob(f"t{i:03d}", at, lengths[i], sizes[i], name=f"n{i % 9}") for i, at in enumerate(arrivals)]


@pytest.mark.parametrize("policy", [TOLD, PROTECTING], ids=lambda policy: policy.name)
def test_S06_a_hold_neither_moves_away_nor_goes_to_a_later_gang_while_predictions_are_right(policy: Policy) -> None:
    for seed in range(3):
        watch = AllHolds("")
        outcome = Simulation(gpus(NODES), (Queue("main"),), trace(seed), policy, watch=watch).run()
        assert all(ran.ended_at is not None for ran in outcome.ran)
        assert len(watch.held) >= 15, "the trace is too light to say anything"
        assert watch.later == [], f"seed {seed}: (time, gang, seconds by which its start moved away)"
        if policy is TOLD:
            assert watch.taken == [], f"seed {seed}: (time, gang that had the hold, later gang that has it now)"


def test_with_wrong_predictions_starts_do_move_away() -> None:
    """Else the test above would show nothing."""
    watch = AllHolds("")
    Simulation(gpus(NODES), (Queue("main"),), trace(0), POLICIES["easy-predicted"], watch=watch).run()
    assert watch.later
