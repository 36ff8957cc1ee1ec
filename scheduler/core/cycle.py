"""One scheduling cycle: from a snapshot and a time to a decision; the same input gives the same decision.

Why preemption ends and how long a gang can wait is argued in docs/scheduling-proof.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuttilab.scheduler.core import giving_way, preemption
from tuttilab.scheduler.core.admission import Admission
from tuttilab.scheduler.core.elastic import growths, next_growth_at, shrinks
from tuttilab.scheduler.core.explain.text import explain
from tuttilab.scheduler.core.holds import Holds
from tuttilab.scheduler.core.ordering.queues import QueueOrder
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.core.told.waits import NO_WAITS, Waits
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.events import GangAdmitted, GangGrown, GangPreempted, GangShrunk, SessionGaveWay


@dataclass(frozen=True, slots=True)
class Decision:
    """``admitted`` in the order of admission; one `Wait` for every other waiting job; when to run the next cycle at the latest."""

    admitted: tuple[GangAdmitted, ...]
    waits: Waits
    next_at: float | None = None
    preempted: tuple[GangPreempted, ...] = ()
    shrunk: tuple[GangShrunk, ...] = ()
    grown: tuple[GangGrown, ...] = ()
    gave_way: tuple[SessionGaveWay, ...] = ()

    @property
    def events(self) -> tuple[GangAdmitted | GangPreempted | GangShrunk | GangGrown | SessionGaveWay, ...]:
        """All events of the decision, in the order in which they are to be applied."""
        return (*self.preempted, *self.shrunk, *self.gave_way, *self.admitted, *self.grown)


Watch = Callable[[WorkingSet, Holds, Decision], None]
"""Sees what a cycle held and decided, and changes nothing."""


def schedule(snapshot: Snapshot, now: float, watch: Watch | None = None) -> Decision:
    """Decide who starts, stops, shrinks and grows now, and why every other gang waits."""
    working_set = WorkingSet.of(snapshot, now)
    holds = Holds(working_set)
    admission = Admission.of(working_set, holds)
    if working_set.may_start_any():
        holds.hold_for_claimants()
        holds.hold_for_protected()
        _admit_all(admission)
    preempted, given_back = preemption.decide(working_set, holds)
    shrunk = (*given_back, *shrinks(working_set, holds, preempted, given_back))
    gave_way = giving_way.decide(working_set, preempted)
    # No gang grows while room is being freed for another.
    grown = () if preempted or shrunk or gave_way else growths(working_set, holds)
    waits = explain(working_set) if snapshot.rules.explains_all else NO_WAITS
    times = (working_set.next_at(), next_growth_at(working_set), preemption.next_idle_at(working_set))
    next_at = min((at for at in times if at is not None), default=None)
    decision = Decision(tuple(admission.admitted), waits, next_at, preempted, shrunk, grown, gave_way)
    if watch is not None:
        watch(working_set, holds, decision)
    return decision


def _admit_all(admission: Admission) -> None:
    """Try class-exempt gangs first, then one queue at a time; which one is next is decided again after each admission."""
    working_set = admission.working_set
    lines = working_set.lines
    for candidate in sorted((c for c in lines.candidates() if c.is_class_exempt), key=lambda c: c.job.order):
        admission.admit_next([candidate], 0)
    turns = QueueOrder(working_set.snapshot.queues, working_set.ledger.use, working_set.site)
    left = {queue: [c for c in line if not c.is_class_exempt] for queue, line in lines.by_queue.items()}
    places = {queue: 0 for queue, line in left.items() if line}
    turns.head_shares = {queue: left[queue][0].shape.share for queue in places}
    while places:
        queue = min(places, key=turns.rank)
        place = places[queue] = admission.admit_next(left[queue], places[queue])
        turns.invalidate(queue)
        if place < len(left[queue]):
            turns.head_shares[queue] = left[queue][place].shape.share
        else:
            del places[queue]
    admission.lookahead.record_closest_nodes()
