"""Leases of notebook servers: when the hub last renewed each live server, and which leases have expired.

Renewals are in memory only: after a restart every lease counts as just renewed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tuttilab.scheduler.core.kinds.notebook import TTL_S, may_expire
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Attempt, Job, JobKind


@dataclass(slots=True)
class NotebookLeases:
    """Time of the last renewal of each live server. ``since``: when this memory began."""

    since: float = 0.0
    _renewed_at: dict[str, float] = field(default_factory=dict)

    def renew(self, job_id: str, at: float) -> None:
        self._renewed_at[job_id] = at

    def reset(self, state: State, at: float) -> None:
        """Count every live server as renewed at that time."""
        self.since = at
        live = [job.id for job in state.jobs.values() if job.kind is JobKind.NOTEBOOK and not job.phase.is_terminal]
        self._renewed_at = dict.fromkeys(live, at)

    def expires_at(self, job_id: str, attempt: Attempt | None) -> float | None:
        """When the lease ends; None while the server runs."""
        if not may_expire(attempt):
            return None
        stopping = attempt.stopping_at if attempt is not None else None
        return max(self._renewed_at.get(job_id, self.since), stopping or 0.0) + TTL_S

    def silent(self, state: State, before: float) -> list[Job]:
        """Servers that run and were last renewed before that time."""
        silent_ids = [job_id for job_id, at in self._renewed_at.items() if at <= before]
        live = ((state.jobs.get(job_id), state.live_attempt(job_id)) for job_id in silent_ids)
        return [job for job, attempt in live if job is not None and attempt is not None and not may_expire(attempt)]

    def expired(self, state: State, now: float) -> tuple[list[ev.NotebookExpired], float | None]:
        """Servers whose lease has ended, and when the next lease ends."""
        due: list[ev.NotebookExpired] = []
        upcoming: list[float] = []
        for job_id in list(self._renewed_at):
            job = state.jobs.get(job_id)
            if job is None or job.phase.is_terminal:
                del self._renewed_at[job_id]
                continue
            at = self.expires_at(job_id, state.live_attempt(job_id))
            if at is not None and at <= now:
                due.append(ev.NotebookExpired(job_id))
            elif at is not None:
                upcoming.append(at)
        return due, min(upcoming, default=None)
