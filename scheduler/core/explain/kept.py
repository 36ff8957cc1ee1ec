"""What is held for a gang, with the nodes by name: for its owner, and for the story of a simulated one."""

from __future__ import annotations

from tuttilab.scheduler.core.backfill import Hold
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.placement.fit import Fit, place_demand
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.model import Kept


def kept_by(hold: Hold, own: Candidate, working_set: WorkingSet) -> Kept:
    """``own``: the gang with the hold."""
    return Kept(hold.cluster, _nodes(own, hold, working_set), hold.start, _trusts(hold.margin))


def _trusts(margin: float | None) -> str:
    return "limits" if margin is None else "predictions with their spread" if margin else "predictions"


def _nodes(own: Candidate, hold: Hold, working_set: WorkingSet) -> tuple[str, ...]:
    """The nodes that the gang would take at its hold's start; none where a backfilled gang has to end first."""
    arrays = working_set.room.node_arrays[hold.cluster]
    for room in (working_set.room, working_set.snapshot.room):
        free = room.free[hold.cluster]
        future = hold.releases.free_after(free, hold.pods_to_end) if hold.releases is not None else free.copy()
        counts = own.shape.reduced_counts(own.shape.slack) if own.shape.is_elastic else None
        fit = place_demand(own.shape.demand(arrays), arrays, future, counts, False)
        if isinstance(fit, Fit):
            return tuple(dict.fromkeys(place.node for place in fit.placements))
    return ()
