"""A journal replayed: into a `State`, and through the production cycle at each place where decisions were applied.

A simulated run and a service write the same events, so either's journal can be read here, and the comparison says whether the
other would have decided the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.rules import Rules
from tuttilab.scheduler.core.state import State

DECISIONS = (ev.GangAdmitted, ev.GangPreempted, ev.GangShrunk, ev.GangGrown)


@dataclass(frozen=True, slots=True)
class Replayed:
    state: State
    cycles: int
    """Places where at least one decision was applied."""
    differing: tuple[tuple[float, tuple[ev.Event, ...], tuple[ev.Event, ...]], ...]
    """Time, what the journal says, what the cycle decides there."""


def replay(journal: Iterable[tuple[ev.Event, float]], rules: Rules | None = None, state: State | None = None) -> Replayed:
    """Handle every event; wherever a run of decisions begins, ask the cycle and compare, in order.

    A service decides beside its loop, at a time between the last event that it saw and the commit of the decision, which is what
    the journal says. Where a back-off or the like ended in between, the cycle is asked for the earlier of the two as well.
    """
    state = state or State(epoch=1, rules=rules or Rules(tells_all=False))
    cycles = 0
    differing: list[tuple[float, tuple[ev.Event, ...], tuple[ev.Event, ...]]] = []
    expected: list[ev.Event] = []
    before = 0.0
    for event, at in journal:
        if isinstance(event, DECISIONS):
            if not expected:
                state.epoch = getattr(event, "epoch", state.epoch)
                snapshot = state.snapshot()
                expected = list(schedule(snapshot, at).events)
                if expected[:1] != [event]:
                    earlier: list[ev.Event] = list(schedule(snapshot, before).events)
                    expected = earlier if earlier[:1] == [event] else expected
                cycles += 1
            if expected and expected[0] == event:
                expected.pop(0)
            else:
                differing.append((at, (event,), tuple(expected)))
                expected = []
        state.handle(event, at)
        state.take_changes()
        before = at
    return Replayed(state, cycles, tuple(differing))
