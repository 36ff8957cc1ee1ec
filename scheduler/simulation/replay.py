"""Replays a journal into a `State`, and repeats the cycle at each place where decisions were applied.

A simulation and a service write the same events, so the journal of either can be replayed; the comparison shows whether the cycle
decides the same now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.rules import Rules
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.store.base import Checkpoint, Store
from tuttilab.scheduler.store.verify import Replay, read_since

DecisionEvent = ev.GangAdmitted | ev.GangPreempted | ev.GangShrunk | ev.GangGrown | ev.SessionGaveWay

TURNS_BACK: Final = 8
"""A service runs the cycle beside its loop, which makes at most so many turns meanwhile; more would be a cycle of seconds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place of the journal where the cycle decides otherwise than what was written."""

    at: float
    written: tuple[DecisionEvent, ...]
    decided: tuple[DecisionEvent, ...]

    def __str__(self) -> str:
        return (
            f"At {self.at:.3f} the journal says {_describe_all(self.written)}, and the cycle decides {_describe_all(self.decided)}."
        )


@dataclass(slots=True)
class Decisions:
    """Reads a journal line by line, and runs the cycle wherever decisions were written.

    A service decides on the snapshot of a turn before the commit, at that turn's time; decisions that have become stale meanwhile
    are not written. So when the cycle decides otherwise at the place itself, it is run for the turns before as well.
    """

    replay: Replay = field(default_factory=Replay)
    cycles: int = 0
    """Places where at least one decision was applied."""
    differing: list[Difference] = field(default_factory=list)
    _turns: deque[tuple[Snapshot, float]] = field(default_factory=lambda: deque(maxlen=TURNS_BACK))
    """The last turns since the last decision: the state after each, and when the next began."""
    _now: float = 0.0
    _place: tuple[Snapshot, float] | None = None
    """The state before the decisions that are now read, and the time of the line before."""
    _written: list[DecisionEvent] = field(default_factory=list)
    _expected: list[DecisionEvent] = field(default_factory=list)

    def take(self, event: ev.Event, at: float) -> None:
        if self._place is not None and at != self._now:
            self._compare()
        if isinstance(event, DecisionEvent):
            if self._place is not None and self._written == self._expected:
                self._compare()
            if self._place is None:
                self._begin(at)
            self._written.append(_comparable(event))
        elif self._place is None and at != self._now and self.replay.state.has_demand():
            self._turns.append((self.replay.state.snapshot(), self._now))
        self._forget_outage(event)
        self.replay.take(event, at)
        self._now = at

    @classmethod
    def begin(cls, checkpoint: Checkpoint | None) -> Decisions:
        """Start at the checkpoint, or before the first event. The cycle explains no waits here: causes are not compared."""
        decisions = cls(Replay.begin(checkpoint))
        decisions.replay.state.rules = replace(decisions.replay.state.rules, explains_all=False)
        return decisions

    def end(self) -> None:
        """Compare the last decisions, after the last line."""
        if self._place is not None:
            self._compare()

    def _begin(self, at: float) -> None:
        self._place = (self.replay.state.snapshot(), self._now)
        self._expected = _decide(self._place[0], at)
        self._written = []
        self.cycles += 1

    def _compare(self) -> None:
        """Compare the complete decisions of one place with what the cycle decides there or for a turn before."""
        here, self._place = self._place, None
        if (
            self._written != self._expected
            and here is not None
            and not any(self._is_possible(one) for one in self._alternatives(here))
        ):
            self.differing.append(Difference(self._now, tuple(self._written), tuple(self._expected)))
        self._turns.clear()

    def _alternatives(self, here: tuple[Snapshot, float]) -> Iterator[list[DecisionEvent]]:
        snapshot, before = here
        yield _decide(snapshot, before)
        until = before
        for snapshot, at in reversed(self._turns):
            yield _decide(snapshot, at)
            yield _decide(snapshot, until)
            until = at

    def _is_possible(self, decided: list[DecisionEvent]) -> bool:
        """Whether the written decisions are a subsequence of ``decided``; the others became stale before they were written."""
        rest = iter(decided)
        return all(one in rest for one in self._written)

    def _forget_outage(self, event: ev.Event) -> None:
        """A new leader does not know that a cluster was lost, so it writes no `ClusterBack` before it observes the cluster."""
        clusters = self.replay.state.clusters
        if isinstance(event, ev.ClusterObserved) and event.cluster.name in clusters:
            clusters[event.cluster.name] = replace(clusters[event.cluster.name], unreachable_since=None)


def _decide(snapshot: Snapshot, at: float) -> list[DecisionEvent]:
    return [_comparable(event) for event in schedule(snapshot, at).events]


def _comparable(event: DecisionEvent) -> DecisionEvent:
    """Without the epoch, which depends on the leader, the prediction, which changes when another run ends meanwhile, and the reason
    of the wait, which no cycle decides."""
    if isinstance(event, ev.GangAdmitted):
        return replace(event, epoch=0, prediction=None, waited_for="", past=())
    return replace(event, epoch=0) if isinstance(event, ev.GangGrown) else event


def _describe_all(events: tuple[DecisionEvent, ...]) -> str:
    return ", ".join(map(_describe, events)) or "nothing"


def _describe(event: DecisionEvent) -> str:
    match event:
        case ev.GangAdmitted():
            nodes = ", ".join(dict.fromkeys(placement.node for placement in event.placements))
            return f"{event.job_id} starts on {event.cluster} ({nodes})"
        case ev.GangPreempted():
            return f"{event.job_id} stops for {event.by}"
        case ev.SessionGaveWay():
            return f"session {event.job_id} gives way to {event.by}"
        case ev.GangGrown():
            return f"{event.job_id} grows by {len(event.placements)}"
        case ev.GangShrunk():
            return f"{event.job_id} shrinks by {len(event.pods)}"


@dataclass(frozen=True, slots=True)
class Replayed:
    state: State
    cycles: int
    differing: tuple[Difference, ...]


def replay(journal: Iterable[tuple[ev.Event, float]], rules: Rules | None = None) -> Replayed:
    """Replay a whole journal, from its first event on."""
    decisions = Decisions(Replay(State(rules=rules or Rules(explains_all=False))))
    for event, at in journal:
        decisions.take(event, at)
    decisions.end()
    return Replayed(decisions.replay.state, decisions.cycles, tuple(decisions.differing))


async def replay_store(store: Store) -> Decisions:
    """Replay the journal of a service from its last checkpoint on."""
    checkpoint = await store.last_checkpoint()
    decisions = Decisions.begin(checkpoint)
    await read_since(store, checkpoint, decisions)
    decisions.end()
    return decisions
