"""How many unfinished jobs each user has, counted at every put, so that a submit is checked without a walk over all jobs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tuttilab.scheduler.domain.model import Job, JobKind, JobPhase, NodePhase, Run


def _per_owner() -> defaultdict[str, set[str]]:
    return defaultdict(set)


@dataclass(slots=True)
class Unfinished:
    """Ids of jobs, those of nodes that wait for their parents among them. Notebook servers are the hub's to limit."""

    _waiting: defaultdict[str, set[str]] = field(default_factory=_per_owner)
    _live: defaultdict[str, set[str]] = field(default_factory=_per_owner)

    def waiting(self, owner: str) -> int:
        return len(self._waiting.get(owner, ()))

    def live(self, owner: str) -> int:
        """Those that wait, start or run."""
        return self.waiting(owner) + len(self._live.get(owner, ()))

    def put(self, job: Job) -> None:
        if job.kind is not JobKind.NOTEBOOK:
            self._set(self._waiting, job, is_in=job.phase is JobPhase.QUEUED)
            self._set(self._live, job, is_in=job.phase is JobPhase.ACTIVE)

    def put_run(self, run: Run) -> None:
        """Jobs of nodes that were submitted are put by themselves."""
        for node in run.nodes:
            if node.phase is not NodePhase.SUBMITTED:
                self._set(self._waiting, node.job, is_in=node.phase is NodePhase.PENDING)

    @staticmethod
    def _set(ids: defaultdict[str, set[str]], job: Job, *, is_in: bool) -> None:
        if is_in:
            ids[job.owner].add(job.id)
        elif job.owner in ids:
            ids[job.owner].discard(job.id)
            if not ids[job.owner]:
                del ids[job.owner]
