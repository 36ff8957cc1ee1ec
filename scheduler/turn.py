"""One turn of the service's loop: events handled in order against the state, what they ask for, and the batch to commit."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.cycle import Decision
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.instructions import DropJob, Instruction
from tuttilab.scheduler.model import Attempt, Job
from tuttilab.scheduler.store.base import Batch, Entry, Keyed

AGES_S: Final = 60.0
"""What a cycle found is looked at again after this time, because predicted ends pass."""


@dataclass(slots=True)
class Turn:
    """Collects what one turn did. ``now`` is the service time of every event in it."""

    state: State
    now: float
    entries: list[Entry] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    keys: dict[tuple[str, str], Keyed] = field(default_factory=dict)
    """Idempotency keys that were used for the first time, by owner and key."""
    gone: Container[str] = frozenset()
    """Jobs that were deleted lately, by earlier turns."""

    def adopt(self, job: Job, attempts: Sequence[Attempt]) -> bool:
        """Take an ended job back into memory that was found in the database; False when it was deleted since."""
        if job.id in self.gone or self.state.is_deleted(job.id):
            return False
        self.state.adopt(job, attempts)
        return True

    def apply(self, event: ev.Event, key: str) -> None:
        """Handle the event and note it for the journal under ``key``, the id of what it is about."""
        self.instructions.extend(self.state.handle(event, self.now))
        self.entries.append(Entry(event, self.now, key))

    def take(self, decision: Decision, version: int) -> None:
        """Apply what a cycle decided on an earlier snapshot: `State.handle` checks each part again, and drops a stale one.

        ``version`` is the state's at that snapshot: a cycle that decided nothing, about a state that is still the same, needs no
        other one before something happens.
        """
        for event in decision.events:
            told = self.state.handle(event, self.now)
            # A stale decision changed nothing, and what changed nothing is not journalled.
            if told:
                self.instructions.extend(told)
                self.entries.append(Entry(event, self.now, event.job_id))
        until = self.now + AGES_S if decision.next_at is None else min(decision.next_at, self.now + AGES_S)
        self.state.settle(decision.waits, until, has_changed=bool(decision.events) or self.state.version != version)

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
            keys=tuple(self.keys.values()),
            runs=changes.runs,
            dags=changes.dags,
            profiles=changes.profiles,
            deleted_profiles=changes.deleted_profiles,
            leavings=tuple(each for each in self.instructions if isinstance(each, DropJob)),
        )
