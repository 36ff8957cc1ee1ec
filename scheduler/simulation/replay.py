"""A journal replayed: into a `State`, and through the production cycle at each place where decisions were applied.

A simulated run and a service write the same events, so either's journal can be read here, and the comparison says whether the
other would have decided the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.rules import Rules
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.store.base import Checkpoint, Store
from tuttilab.scheduler.verify import Replay, read_since

Decided = ev.GangAdmitted | ev.GangPreempted | ev.GangShrunk | ev.GangGrown

TURNS_BACK: Final = 8
"""A service decides beside its loop, which makes so many turns at most while a cycle runs; more would be a cycle of seconds."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place of the journal, and what the cycle decides there."""

    at: float
    written: tuple[Decided, ...]
    decided: tuple[Decided, ...]

    def __str__(self) -> str:
        return f"At {self.at:.3f} the journal says {_told(self.written)}, and the cycle decides {_told(self.decided)}."


@dataclass(slots=True)
class Decisions:
    """Takes a journal line by line, and asks the cycle wherever decisions were written.

    A service decides on a snapshot of some turn before the commit, at that turn's time; what has become stale meanwhile is not
    written. So where the cycle decides otherwise at the place itself, it is asked for the turns before as well.
    """

    lived: Replay = field(default_factory=Replay)
    cycles: int = 0
    """Places where at least one decision was applied."""
    differing: list[Difference] = field(default_factory=list)
    _turns: deque[tuple[Snapshot, float]] = field(default_factory=lambda: deque(maxlen=TURNS_BACK))
    """The last turns since the last decision, as each left the state, and when the next began."""
    _now: float = 0.0
    _here: tuple[Snapshot, float] | None = None
    """The state before the decisions that are being read, and the time of the line before."""
    _written: list[Decided] = field(default_factory=list)
    _expected: list[Decided] = field(default_factory=list)

    def take(self, event: ev.Event, at: float) -> None:
        if self._here is not None and at != self._now:
            self._judge()
        if isinstance(event, Decided):
            if self._here is not None and self._written == self._expected:
                self._judge()
            if self._here is None:
                self._begin(at)
            self._written.append(_plain(event))
        elif self._here is None and at != self._now and self.lived.state.has_decisions():
            self._turns.append((self.lived.state.snapshot(), self._now))
        self._as_a_new_leader_sees(event)
        self.lived.take(event, at)
        self._now = at

    @classmethod
    def begin(cls, checkpoint: Checkpoint | None) -> Decisions:
        """Where the journal begins: at the checkpoint, or before the first event. The reasons of waits are no decisions."""
        decisions = cls(Replay.begin(checkpoint))
        decisions.lived.state.rules = replace(decisions.lived.state.rules, tells_all=False)
        return decisions

    def end(self) -> None:
        """No more lines come."""
        if self._here is not None:
            self._judge()

    def _begin(self, at: float) -> None:
        self._here = (self.lived.state.snapshot(), self._now)
        self._expected = _ask(self._here[0], at)
        self._written = []
        self.cycles += 1

    def _judge(self) -> None:
        """What was written from one place on is complete: is it what the cycle decides there, or for a turn before?"""
        here, self._here = self._here, None
        if self._written != self._expected and here is not None and not any(self._could_be(one) for one in self._others(here)):
            self.differing.append(Difference(self._now, tuple(self._written), tuple(self._expected)))
        self._turns.clear()

    def _others(self, here: tuple[Snapshot, float]) -> Iterator[list[Decided]]:
        snapshot, before = here
        yield _ask(snapshot, before)
        until = before
        for snapshot, at in reversed(self._turns):
            yield _ask(snapshot, at)
            yield _ask(snapshot, until)
            until = at

    def _could_be(self, decided: list[Decided]) -> bool:
        """Whether all that was written stands there in this order; the rest has become stale before it was written."""
        rest = iter(decided)
        return all(one in rest for one in self._written)

    def _as_a_new_leader_sees(self, event: ev.Event) -> None:
        """One that leads on says that a cluster is back before it says what is there; a new one never knew that it was lost."""
        clusters = self.lived.state.clusters
        if isinstance(event, ev.ClusterObserved) and event.cluster.name in clusters:
            clusters[event.cluster.name] = replace(clusters[event.cluster.name], unreachable_since=None)


def _ask(snapshot: Snapshot, at: float) -> list[Decided]:
    return [_plain(event) for event in schedule(snapshot, at).events]


def _plain(event: Decided) -> Decided:
    """Without the epoch, which says who led, and what was predicted, which a run that ended meanwhile makes another."""
    if isinstance(event, ev.GangAdmitted):
        return replace(event, epoch=0, prediction=None)
    return replace(event, epoch=0) if isinstance(event, ev.GangGrown) else event


def _told(events: tuple[Decided, ...]) -> str:
    return ", ".join(map(_short, events)) or "nothing"


def _short(event: Decided) -> str:
    match event:
        case ev.GangAdmitted():
            nodes = ", ".join(dict.fromkeys(placement.node for placement in event.placements))
            return f"{event.job_id} starts on {event.cluster} ({nodes})"
        case ev.GangPreempted():
            return f"{event.job_id} stops for {event.by}"
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
    """All of a journal that begins with the first event."""
    decisions = Decisions(Replay(State(rules=rules or Rules(tells_all=False))))
    for event, at in journal:
        decisions.take(event, at)
    decisions.end()
    return Replayed(decisions.lived.state, decisions.cycles, tuple(decisions.differing))


async def replay_store(store: Store) -> Decisions:
    """The journal of a service from its last checkpoint on."""
    checkpoint = await store.last_checkpoint()
    decisions = Decisions.begin(checkpoint)
    await read_since(store, checkpoint, decisions)
    decisions.end()
    return decisions
