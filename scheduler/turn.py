"""One turn of the service's loop: events handled in order against the state, what they ask for, and the batch to commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.instructions import Instruction
from tuttilab.scheduler.store.base import Batch, Entry, Keyed


@dataclass(slots=True)
class Turn:
    """Collects what one turn did. ``now`` is the service time of every event in it."""

    state: State
    now: float
    entries: list[Entry] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    keys: list[Keyed] = field(default_factory=list)

    def apply(self, event: ev.Event, key: str) -> None:
        """Handle the event and note it for the journal under ``key``, the id of what it is about."""
        self.instructions.extend(self.state.handle(event, self.now))
        self.entries.append(Entry(event, self.now, key))

    def schedule(self) -> float | None:
        """Run a cycle and apply its decision; answers when to look again if nothing happens.

        Costs nothing while nothing changed since the last cycle and no timer of its decision has run out.
        """
        if self.state.is_settled(self.now):
            return self.state.settled_until
        decision = schedule(self.state.snapshot(), self.now)
        for event in decision.events:
            self.apply(event, event.job_id)
        is_final = all(self.state.live_attempt(admitted.job_id) is not None for admitted in decision.admitted)
        self.state.settle(decision.waits, decision.next_at, is_final)
        return decision.next_at

    def batch(self) -> Batch:
        changes = self.state.take_changes()
        return Batch(
            epoch=self.state.epoch,
            entries=tuple(self.entries),
            jobs=changes.jobs,
            attempts=changes.attempts,
            queues=changes.queues,
            deleted_jobs=changes.deleted_jobs,
            accounts=changes.accounts,
            ended_accounts=changes.ended_accounts,
            history=changes.history,
            dropped_history=changes.dropped_history,
            keys=tuple(self.keys),
        )
