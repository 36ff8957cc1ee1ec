"""One scheduling cycle: from a snapshot and a time to a decision; the same input gives the same decision (scheduling.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuttilab.scheduler.core import preemption
from tuttilab.scheduler.core.desk import Desk
from tuttilab.scheduler.core.elastic import growths, next_growth_at, shrinks
from tuttilab.scheduler.core.explain import explain
from tuttilab.scheduler.core.line import Candidate
from tuttilab.scheduler.core.queues import Turns
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.events import GangAdmitted, GangGrown, GangPreempted, GangShrunk
from tuttilab.scheduler.model import Wait


@dataclass(frozen=True, slots=True)
class Decision:
    """``admitted`` in the order of admission; one `Wait` for every other waiting job; when to look again if nothing happens."""

    admitted: tuple[GangAdmitted, ...]
    waits: tuple[Wait, ...]
    next_at: float | None = None
    preempted: tuple[GangPreempted, ...] = ()
    shrunk: tuple[GangShrunk, ...] = ()
    grown: tuple[GangGrown, ...] = ()

    @property
    def events(self) -> tuple[GangAdmitted | GangPreempted | GangShrunk | GangGrown, ...]:
        """Everything that was decided, in the order in which it is to be applied."""
        return (*self.preempted, *self.shrunk, *self.admitted, *self.grown)


def schedule(snapshot: Snapshot, now: float) -> Decision:
    # 1. Snapshot: what is free, what is used, who waits and may be considered at all.
    desk = Desk.of(snapshot, now)

    # 2. Order queues, 3. order gangs in each: the heads are looked at again after every admission.
    lines = desk.lines()
    if desk.may_start_any():
        desk.hold_for_claimants(lines)
        desk.hold_for_protected(lines)

        # 4. Try each: quota along the path, then clusters and nodes. 5. Who is allowed and does not fit gets a hold.
        _serve(desk, lines)

    # 6. Preempt for those under guarantee or of a higher class, resize what can grow, and give every other gang its reasons.
    preempted, given_back = preemption.decide(desk)
    shrunk = (*given_back, *shrinks(desk, preempted, given_back))
    # Nobody grows while room is being fetched for somebody else.
    grown = () if preempted or shrunk else growths(desk)
    waits = explain(desk) if snapshot.rules.tells_all else ()
    times = (desk.next_at(), next_growth_at(desk), preemption.next_idle_at(desk))
    next_at = min((at for at in times if at is not None), default=None)
    return Decision(tuple(desk.admitted), waits, next_at, preempted, shrunk, grown)


def _serve(desk: Desk, lines: Mapping[str, Sequence[Candidate]]) -> None:
    """Those lifted above all classes first, then queue by queue as their use stands after each admission."""
    for candidate in sorted((c for line in lines.values() for c in line if c.is_lifted), key=lambda c: c.job.order):
        desk.serve([candidate], 0)
    turns = Turns(desk.snapshot.queues, desk.ledger.use, desk.site)
    left = {queue: [c for c in line if not c.is_lifted] for queue, line in lines.items()}
    places = {queue: 0 for queue, line in left.items() if line}
    turns.heads = {queue: left[queue][0].shape.share for queue in places}
    while places:
        queue = min(places, key=turns.rank)
        place = places[queue] = desk.serve(left[queue], places[queue])
        turns.changed(queue)
        if place < len(left[queue]):
            turns.heads[queue] = left[queue][place].shape.share
        else:
            del places[queue]
    desk.tell_closest()
