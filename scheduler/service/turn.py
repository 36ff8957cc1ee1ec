"""One turn of the loop: handles events against the state, and collects instructions and the batch to commit."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler.core.cycle import Decision
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import DropJob, Instruction
from tuttilab.scheduler.domain.model import Attempt, Job
from tuttilab.scheduler.store.base import ArtifactRow, Batch, Entry, IdempotencyKey

RESULT_AGES_S: Final = 60.0
"""The result of a cycle is computed again after this time, because predicted ends pass."""
LONGEST_REASON: Final = 500
"""Characters kept of why a gang waited."""

DecisionEvent = ev.GangAdmitted | ev.GangPreempted | ev.GangShrunk | ev.GangGrown | ev.SessionGaveWay


@dataclass(slots=True)
class Turn:
    """Collects the effects of one turn. ``now`` is the service time of all its events."""

    state: State
    now: float
    entries: list[Entry] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    keys: dict[tuple[str, str], IdempotencyKey] = field(default_factory=dict)
    """New idempotency keys, by owner and key."""
    artifacts: list[ArtifactRow] = field(default_factory=list)
    """New ones, whose bytes are stored."""
    recently_deleted: Container[str] = frozenset()
    """Jobs that earlier turns deleted."""

    def adopt(self, job: Job, attempts: Sequence[Attempt]) -> bool:
        """Put an ended job from the database back into the state; False when it was deleted since it was read."""
        if job.id in self.recently_deleted or self.state.is_deleted(job.id):
            return False
        self.state.reload_job(job, attempts)
        return True

    def apply(self, event: ev.Event, key: str) -> None:
        """Handle the event and add it to the journal under ``key``, the id of its object."""
        self.instructions.extend(self.state.handle(event, self.now))
        self.entries.append(Entry(event, self.now, key))

    def apply_decision(self, decision: Decision, version: int) -> None:
        """Apply the decision of a cycle on an earlier snapshot. `State.handle` checks each event again and drops stale ones.

        ``version`` is the state's at that snapshot: when the cycle decided nothing and the state is unchanged, no cycle is needed
        before something happens.
        """
        for event in map(self._with_reason, decision.events):
            instructions = self.state.handle(event, self.now)
            # Without instructions the event was stale and changed nothing, so it is not journaled.
            if instructions:
                self.instructions.extend(instructions)
                self.entries.append(Entry(event, self.now, event.job_id))
        until = self.now + RESULT_AGES_S if decision.next_at is None else min(decision.next_at, self.now + RESULT_AGES_S)
        has_changed = bool(decision.events) or self.state.version != version
        self.state.record_decision(decision.waits, self.now, until, has_changed)

    def _with_reason(self, event: DecisionEvent) -> DecisionEvent:
        """An admission with why the gang waited until now, which is in memory only and is forgotten by the admission."""
        if isinstance(event, ev.GangAdmitted) and event.job_id in self.state.waits:
            return replace(event, waited_for=self.state.waits[event.job_id].sentence[:LONGEST_REASON])
        return event

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
            pending_cleanups=tuple(each for each in self.instructions if isinstance(each, DropJob)),
            artifacts=tuple(self.artifacts),
        )
