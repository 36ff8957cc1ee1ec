"""What a control plane decides and counts is the same whether it was ended and started again in between or not (I12, I25)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeVar

import pytest

from tests.simulation.runs import World
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Attempt, Job, Overtaking
from tuttilab.scheduler.domain.wire import from_json, to_json

STEPS: Final = 120
SEEDS: Final = 20

Row = TypeVar("Row", Job, Attempt, Overtaking)


def as_read(row: Row) -> Row:
    """The row as the database gives it back."""
    return from_json(type(row), to_json(row))


def rebuilt(state: State, mix: Callable[[list[object]], None] = lambda rows: None) -> State:
    """From the rows of a state, in the order that ``mix`` leaves them in. Of clusters it knows nothing yet."""
    jobs = [as_read(job) for job in state.jobs.values()]
    attempts = [as_read(attempt) for attempt in state.attempts.values()]
    accounts = [as_read(account) for account in state.accounts.rows.values()]
    for rows in (jobs, attempts, accounts):
        mix(rows)  # type: ignore[arg-type]  # only the places of the rows change
    again = State.load(jobs, attempts, state.queues.values(), state.epoch, accounts=accounts, history=state.history.rows.values())
    # What notebooks report is told anew, and is not what is asked here.
    again.usage.active_at = dict(state.usage.active_at)
    return again


class Beside(World):
    """A world and, beside it, a control plane that is told the same and is ended and started again at random."""

    def __init__(self, seed: int) -> None:
        self.other = State(epoch=1)
        self.fate = random.Random(f"restarts {seed}")
        self.restarts = self.unseen_ends = self.overtaken = self.compared = 0
        self.place = f"seed {seed}"
        super().__init__(seed)

    def apply(self, event: ev.Event) -> None:
        if isinstance(event, ev.GangAdmitted | ev.GangGrown):
            # Nothing is decided about a cluster that was not seen again.
            self.see_clusters()
        elif self.fate.random() < 0.05:
            self.other = rebuilt(self.other, self.fate.shuffle)
            self.restarts += 1
        is_end = isinstance(event, ev.PodEnded) and not self.other.clusters
        super().apply(event)
        self.other.handle(event, self.now)
        if isinstance(event, ev.ClusterObserved) and self.other.clusters:
            self.see_clusters()
        self.same(repr(event))
        self.unseen_ends += is_end
        self.overtaken += any(row.later or row.base for row in self.other.accounts.rows.values())

    def cycle(self) -> bool:
        if self.fate.random() < 0.2:
            self.see_clusters()
        if self.other.clusters:
            assert schedule(self.other.snapshot(), self.now) == schedule(self.state.snapshot(), self.now), (
                f"I25: at {self.now:.0f} s"
            )
            self.compared += 1
        return super().cycle()

    def see_clusters(self) -> None:
        """As they are, also whether one does not answer."""
        for cluster in self.state.clusters.values():
            self.other.put_cluster(cluster)

    def same(self, after: str) -> None:
        assert self.other.accounts.rows == self.state.accounts.rows, f"I12: {self.place}, after {after}"
        assert (self.other.jobs, self.other.attempts) == (self.state.jobs, self.state.attempts), f"I12: {self.place}, after {after}"


@pytest.mark.parametrize("first", range(0, SEEDS, 10), ids=lambda first: f"seeds-from-{first}")
def test_I12_accounts_and_decisions_are_those_without_a_restart(first: int, tell: Callable[[str], None]) -> None:
    """Also when a gang ends, or waits again, before its cluster was seen."""
    tell(f"seeds {first} to {first + 9} of the core with restarts, {STEPS} steps each")
    worlds = [Beside(seed) for seed in range(first, first + 10)]
    for seed, world in enumerate(worlds, start=first):
        for step in range(STEPS):
            world.place = f"seed {seed}, step {step}"
            world.step()
        world.settle()
    assert min(world.restarts for world in worlds) > 0
    assert sum(world.unseen_ends for world in worlds) > 20
    assert sum(world.overtaken for world in worlds) > 500
    assert sum(world.compared for world in worlds) > 500


@pytest.mark.parametrize("first", range(0, SEEDS, 10), ids=lambda first: f"seeds-from-{first}")
def test_I25_the_order_of_the_rows_decides_nothing(first: int, tell: Callable[[str], None]) -> None:
    """Who is stopped, made smaller or larger, started or told what: the same from rows in any order, clusters seen in any order."""
    told = 0
    tell(f"seeds {first} to {first + 9} of the core with rows in any order, {STEPS} steps each")
    for seed in range(first, first + 10):
        world, fate = World(seed), random.Random(f"rows {seed}")
        for _ in range(STEPS):
            world.step()
            if fate.random() < 0.6:
                continue
            decisions = []
            for _ in range(2):
                again = rebuilt(world.state, fate.shuffle)
                seen = list(world.state.clusters.values())
                fate.shuffle(seen)
                for cluster in seen:
                    again.put_cluster(cluster)
                # Some time later, so that back-offs and limits are over that keep the world itself at rest.
                decision = schedule(again.snapshot(), world.now + 50.0)
                decisions.append((decision, [again.handle(event, world.now + 50.0) for event in decision.events]))
            assert decisions[0] == decisions[1], f"I25: seed {seed} at {world.now:.0f} s"
            told += len(decisions[0][0].events)
    assert told > 50
