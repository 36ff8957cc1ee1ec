"""Causes: why a gang was not started, as data. `explain` turns them into sentences."""

from __future__ import annotations

from dataclasses import dataclass

from tuttilab.scheduler.core.backfill import Hold, QuotaHold, latest_end
from tuttilab.scheduler.core.placement.fit import Misfit
from tuttilab.scheduler.core.quota import Shortage
from tuttilab.scheduler.domain.model import Cluster, Job, Prediction, Why


@dataclass(frozen=True, slots=True, eq=False)
class Cause:
    """One cause; gangs that wait for the same thing share the object."""

    why: Why
    shortage: Shortage | None = None
    misfits: tuple[tuple[Cluster, Misfit], ...] = ()
    hold: Hold | QuotaHold | None = None
    clusters: tuple[str, ...] = ()
    first: Cause | None = None
    """For a gang behind an equal one (BEHIND): the cause of that one."""

    def repeated(self) -> Cause:
        """The cause of the next gang of the same shape and queue."""
        return Cause(Why.BEHIND, first=self) if self.why is Why.NO_ROOM else self


@dataclass(frozen=True, slots=True)
class Refusal:
    """A shape was refused in a queue. Room and quota only shrink within a cycle, so equal gangs need no new try."""

    cause: Cause
    repeated: Cause
    """`Cause.repeated` of ``cause``, for the equal gangs behind."""
    is_unconditional: bool
    """Whether it holds for any prediction, as no hold was the cause."""
    ends_at: float
    """When the refused gang would have ended; a gang that ends earlier may pass the hold."""
    margin: float | None
    """``margin`` of the hold (`latest_end`)."""

    def applies_to(self, prediction: Prediction, job: Job, now: float) -> bool:
        """Whether a conditional refusal also applies to an equal gang with this prediction."""
        return latest_end(job, prediction, now, self.margin) >= self.ends_at
