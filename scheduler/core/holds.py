"""The holds of one cycle on room and quota: who gets one, and which of them bind a candidate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.backfill import Hold, QuotaHold, end_of, hold_for, quota_hold, quota_hold_beside
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.ordering.queues import diverging_queues
from tuttilab.scheduler.core.placement.fit import Fit, place_demand
from tuttilab.scheduler.core.placement.node_arrays import Amounts
from tuttilab.scheduler.core.placement.room import Room
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.quota import JOBS, PODS, Ledger, Shortage, counts_of
from tuttilab.scheduler.core.rules import Reservation
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.model import Cluster, Job, Past, Promise
from tuttilab.scheduler.domain.resources import Resources

MOST_PROTECTED_TRIED: Final = 32
"""Protected gangs tried for the hold in one cycle; the first of them that does not fit gets it."""


@dataclass(slots=True)
class Holds:
    working_set: WorkingSet
    on_room: dict[str, Hold] = field(default_factory=dict)
    """By cluster."""
    on_quota: dict[str, QuotaHold] = field(default_factory=dict)
    """By queue."""
    _beside_room: dict[str, list[tuple[QuotaHold, Hold]]] = field(default_factory=dict)
    """By queue: the part of its limits that is held for a gang with a hold on room."""
    for_claimants: dict[str, Hold] = field(default_factory=dict)
    """By cluster: the room of stopping gangs, held for those that preempted them."""
    _claimants: set[str] = field(default_factory=set)
    """Jobs that may use that room and quota: claimants that fit now, or will when the stopping gangs have ended."""
    _claimed_ledger: Ledger | None = None
    """What queues will use when the stopping gangs have ended and the claimants have started."""

    # --- who gets a hold ---------------------------------------------------------------------------------------------

    def hold_for_protected(self) -> None:
        """Give the hold to the first protected gang that quota allows and that does not fit: they come before all others."""
        working_set = self.working_set
        if working_set.snapshot.rules.reservation is not Reservation.HOLD:
            return
        urgent = sorted((c for c in working_set.lines.candidates() if c.is_protected), key=lambda c: c.protected_rank)
        for candidate in urgent[:MOST_PROTECTED_TRIED]:
            shape, job = candidate.shape, candidate.job
            charges = [shape.charges[c.name] for c in shape.clusters]
            if not charges or all(working_set.shortage(job, charge, shape.pods) is not None for charge in charges):
                continue
            if not any(self._has_room_now(shape, c) for c in shape.clusters):
                self.hold_room(candidate)
                return

    def hold_for_claimants(self) -> None:
        """Hold the room of stopping gangs for the claimants: others that took it would be preempted next."""
        working_set = self.working_set
        room, now = working_set.room, working_set.now
        stopping = [runner for runner in working_set.running if runner.is_stopping]
        if not stopping or not working_set.snapshot.rules.preempts:
            return
        free = {name: amounts.copy() for name, amounts in room.free.items()}
        future = Room(room.node_arrays, free)
        ledger = working_set.ledger.copy()
        for runner in stopping:
            for key, amount in runner.allocations:
                future.give(key, amount)
            ledger.remove(runner.queue, runner.charge, runner.pods)
        failed: set[tuple[Shape, str]] = set()
        fits_now: dict[tuple[Shape, str], bool] = {}
        for candidate, _ in working_set.claimants():
            shape, job = candidate.shape, candidate.job
            claim = (shape, job.queue)
            if claim in failed:
                continue
            if claim not in fits_now:
                fits_now[claim] = any(self._fits_now(candidate, c) for c in shape.clusters)
            if fits_now[claim]:
                self._claimants.add(job.id)
                continue
            cluster = next((c for c in shape.clusters if self._takes_future(candidate, c, ledger, free[c.name])), None)
            if cluster is None:
                failed.add(claim)
                continue
            self._claimants.add(job.id)
            _, charge, pods = shape.smallest(cluster)
            ledger.add(job.queue, charge, pods)
            self._claimed_ledger = ledger
            if cluster.name not in self.for_claimants:
                ends = [end_of(runner, now) for runner in stopping if runner.cluster == cluster.name]
                start = max(ends, default=now)
                self.for_claimants[cluster.name] = Hold(job, cluster.name, start, free[cluster.name], margin=None)

    def hold_room(self, candidate: Candidate) -> Hold | None:
        """The hold for a gang that does not fit, on the cluster where it starts first; None when no cluster has one left."""
        working_set = self.working_set
        rules, room = working_set.snapshot.rules, working_set.room
        if rules.reservation is Reservation.NOTHING:
            return None
        own = next((hold for hold in self.on_room.values() if hold.job is candidate.job), None)
        if own is not None:
            return own
        shape = candidate.shape
        if all(cluster.name in self.on_room for cluster in shape.clusters) or not working_set.is_ever_allowed(candidate):
            return None
        best: Hold | None = None
        for cluster in shape.clusters:
            if cluster.name in self.on_room or self._never_fits(shape, cluster):
                continue
            arrays, free = room.node_arrays[cluster.name], room.free[cluster.name]
            releases = working_set.releases(cluster.name)
            counts = shape.reduced_counts(shape.slack) if shape.is_elastic else None
            hold = hold_for(candidate.job, shape.demand(arrays), arrays, free, releases, counts)
            if hold is not None:
                hold.start = max(hold.start, working_set.now)
                hold.is_protected = candidate.is_protected
                hold.is_entitled = working_set.is_entitled(candidate)
                hold.margin = self._margin(candidate)
                hold.holder_rank = candidate.protected_rank
                hold.blocks_all = rules.reservation is Reservation.EVERYTHING
                if best is None or hold.start < best.start:
                    best = hold
        if best is not None:
            self.on_room[best.cluster] = best
            self._hold_quota_beside(candidate, best)
        return best

    def hold_quota(self, candidate: Candidate, shortage: Shortage) -> QuotaHold | None:
        """The hold on a queue's limit for a gang that lacks only quota; None when the limit is held already or never suffices."""
        working_set = self.working_set
        rules = working_set.snapshot.rules
        if (
            rules.reservation is Reservation.NOTHING
            or shortage.queue in self.on_quota
            or not working_set.is_ever_allowed(candidate)
        ):
            return None
        below = working_set.queues_below(shortage.queue)
        users = [runner for runner in working_set.running if runner.queue in below]
        over, margin = shortage.over + shortage.counted, self._margin(candidate)
        hold = quota_hold(candidate.job, over, users, working_set.now, margin, rules.end_estimate)
        if hold is not None:
            self.on_quota[shortage.queue] = hold
        return hold

    def _hold_quota_beside(self, candidate: Candidate, hold: Hold) -> None:
        """Hold what the gang will need of the limits on its queue's path at the start of its hold on room."""
        working_set = self.working_set
        ledger, rules = working_set.ledger, working_set.snapshot.rules
        _, charge, pods = candidate.shape.smallest(working_set.snapshot.clusters[hold.cluster])
        needs = charge + counts_of(pods)
        for step in ledger.path(candidate.job.queue):
            left = {key: most - ledger.use[step.name][key] for key, most in step.max if needs[key]}
            if step.max_jobs is not None:
                left[JOBS] = step.max_jobs - ledger.jobs[step.name]
            if step.max_pods is not None:
                left[PODS] = step.max_pods - ledger.pods[step.name]
            if left:
                below = working_set.queues_below(step.name)
                users = [runner for runner in working_set.running if runner.queue in below]
                beside = quota_hold_beside(hold, left, needs, users, working_set.now, rules.end_estimate)
                self._beside_room.setdefault(step.name, []).append((beside, hold))

    def _margin(self, candidate: Candidate) -> float | None:
        """How far the gang's hold trusts predictions: the less, the more the gang was overtaken."""
        protection = self.working_set.protection
        if candidate.is_class_exempt or candidate.job.id in protection.strict:
            return None
        return 1.0 if candidate.job.id in protection.overdue else 0.0

    def _has_room_now(self, shape: Shape, cluster: Cluster) -> bool:
        room = self.working_set.room
        arrays, free = room.node_arrays[cluster.name], room.free[cluster.name].copy()
        return isinstance(place_demand(shape.demand(arrays), arrays, free, shape.smallest(cluster)[0], False), Fit)

    def _fits_now(self, candidate: Candidate, cluster: Cluster) -> bool:
        """Whether the gang, at its smallest, has room and quota now."""
        shape = candidate.shape
        _, charge, pods = shape.smallest(cluster)
        return self.working_set.shortage(candidate.job, charge, pods) is None and self._has_room_now(shape, cluster)

    def _takes_future(self, candidate: Candidate, cluster: Cluster, ledger: Ledger, free: Amounts) -> bool:
        """Whether the gang, at its smallest, has quota and room once the stopping gangs have ended; takes that room if so."""
        job, shape, arrays = candidate.job, candidate.shape, self.working_set.room.node_arrays[cluster.name]
        counts, charge, pods = shape.smallest(cluster)
        if ledger.shortage(job.queue, charge, pods, job.is_preemptible) is not None:
            return False
        return isinstance(place_demand(shape.demand(arrays), arrays, free, counts, False), Fit)

    def _never_fits(self, shape: Shape, cluster: Cluster) -> bool:
        misfit = self.working_set.misfit_when_empty(shape, cluster)
        return misfit is not None and misfit.is_certain

    # --- what binds a candidate --------------------------------------------------------------------------------------

    def quota_holds_against(self, candidate: Candidate) -> Iterator[QuotaHold]:
        return (hold for _, hold in self.quota_holds_by_queue(candidate))

    def quota_holds_by_queue(self, candidate: Candidate) -> Iterator[tuple[str, QuotaHold]]:
        """`quota_holds_against`, each with the queue whose limit it is about."""
        for step in self.working_set.ledger.path(candidate.job.queue):
            quota = self.on_quota.get(step.name)
            if quota is not None and quota.job is not candidate.job:
                yield step.name, quota
            for beside, hold in self._beside_room.get(step.name, ()):
                if not self._precedes(candidate, hold):
                    yield step.name, beside

    def room_holds_against(self, candidate: Candidate, cluster: Cluster) -> list[Hold]:
        claimed = None if candidate.job.id in self._claimants else self.for_claimants.get(cluster.name)
        hold = self.on_room.get(cluster.name)
        binding = [] if claimed is None else [claimed]
        return binding if hold is None or self._precedes(candidate, hold) else [*binding, hold]

    def passed_by(self, candidate: Candidate, cluster: Cluster) -> tuple[Past, ...]:
        """The gang whose hold an admitted one, submitted later, goes past."""
        hold = self.on_room.get(cluster.name)
        if hold is None or hold.job.order >= candidate.job.order:
            return ()
        now = self.working_set.now
        promise = Promise.ORDER if self._precedes(candidate, hold) else hold.promise_of(candidate.job, candidate.prediction, now)
        return (Past(hold.job.id, promise, hold.start),)

    def claimed_shortage(self, job: Job, charge: Resources, pods: int) -> Shortage | None:
        """What the gang lacks of quota that is held for claimants."""
        if self._claimed_ledger is None or job.id in self._claimants:
            return None
        return self._claimed_ledger.shortage(job.queue, charge, pods, job.is_preemptible)

    def note_admitted(self, job: Job, charge: Resources, pods: int) -> None:
        """Count an admitted gang against the quota that is held for claimants."""
        if self._claimed_ledger is not None and job.id not in self._claimants:
            self._claimed_ledger.add(job.queue, charge, pods)

    def _precedes(self, candidate: Candidate, hold: Hold) -> bool:
        """Whether a gang goes before the holder, so that the hold does not bind it."""
        holder = hold.holder_rank
        if candidate.job is hold.job or (self.working_set.is_entitled(candidate) and not hold.is_entitled):
            return True
        if not hold.is_protected:
            return False
        if candidate.is_protected and candidate.protected_rank < holder:
            return True
        if not holder[0]:
            return False
        if candidate.job.queue == hold.job.queue:
            return candidate.job.priority > hold.job.priority
        parts = diverging_queues(self.working_set.snapshot.queues, candidate.job.queue, hold.job.queue)
        return parts is not None and parts[0].priority > parts[1].priority
