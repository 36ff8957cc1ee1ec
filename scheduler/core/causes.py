"""Why a gang was not started, as the cycle met it; `explain` turns it into words."""

from __future__ import annotations

from dataclasses import dataclass

from tuttilab.scheduler.core.backfill import Hold, QuotaHold, latest_end
from tuttilab.scheduler.core.placement import Misfit
from tuttilab.scheduler.core.quota import Shortage
from tuttilab.scheduler.model import Cluster, Job, Prediction, Why


@dataclass(frozen=True, slots=True, eq=False)
class Cause:
    """Shared by every gang that waits for the same thing."""

    why: Why
    shortage: Shortage | None = None
    misfits: tuple[tuple[Cluster, Misfit], ...] = ()
    hold: Hold | QuotaHold | None = None
    clusters: tuple[str, ...] = ()
    first: Cause | None = None
    """Of a gang that only stands behind an equal one: what that one waits for."""

    def again(self) -> Cause:
        """The cause of the next gang of the same shape and queue."""
        return Cause(Why.BEHIND, first=self) if self.why is Why.NO_ROOM else self


@dataclass(frozen=True, slots=True)
class Refusal:
    """A shape was refused in a queue; room and quota only shrink within a cycle, so its equals need no new try."""

    cause: Cause
    again: Cause
    is_for_all: bool
    """Whatever their predictions: nobody is stopped by a hold."""
    ends_at: float
    """The refused gang would have ended then; one that ends earlier may pass a hold that stopped it."""
    margin: float | None

    def holds_for(self, prediction: Prediction, job: Job, now: float) -> bool:
        """Whether it is for a gang with this prediction too; those for all need not be asked."""
        return latest_end(job, prediction, now, self.margin) >= self.ends_at
