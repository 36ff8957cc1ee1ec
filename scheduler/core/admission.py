"""Admission: tries candidates one by one, admits those that have quota and room and notes why the others wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tuttilab.scheduler.core.backfill import Hold, QuotaHold, latest_end
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.causes import Cause, Refusal
from tuttilab.scheduler.core.holds import Holds
from tuttilab.scheduler.core.lookahead import Lookahead
from tuttilab.scheduler.core.placement.fit import Counts, Fit, Misfit, charge_of, permitted_clusters, place_demand, pod_cost
from tuttilab.scheduler.core.placement.node_arrays import Amounts
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.quota import Shortage, counts_of
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.events import GangAdmitted
from tuttilab.scheduler.domain.model import MASTER, Cluster, Why
from tuttilab.scheduler.domain.resources import GPU, Resources


@dataclass(slots=True)
class Admission:
    working_set: WorkingSet
    holds: Holds
    lookahead: Lookahead
    admitted: list[GangAdmitted] = field(default_factory=list)
    _refusals: dict[str, dict[Shape, Refusal]] = field(default_factory=dict)
    """By queue and shape."""
    _free_totals: dict[str, Resources] = field(default_factory=dict)
    """By cluster, until its room changes."""

    @classmethod
    def of(cls, working_set: WorkingSet, holds: Holds) -> Admission:
        return cls(working_set, holds, Lookahead(working_set.room, len(working_set.lines.shapes)))

    def admit_next(self, line: Sequence[Candidate], begin: int) -> int:
        """Try the gangs of one queue from place ``begin`` on until one is admitted; returns the place after it."""
        refusals = self._refusals.setdefault(line[begin].job.queue, {})
        now, before = self.working_set.now, len(self.admitted)
        for place in range(begin, len(line)):
            candidate = line[place]
            refusal = refusals.get(candidate.shape)
            if refusal is not None and (refusal.is_unconditional or refusal.applies_to(candidate.prediction, candidate.job, now)):
                candidate.cause = refusal.repeated
                continue
            self.lookahead.evaluate(line, place, before)
            self._consider(candidate)
            if len(self.admitted) > before:
                self.lookahead.stop()
                return place + 1
            self.lookahead.start()
        return len(line)

    def _consider(self, candidate: Candidate) -> None:
        """Admit the gang, or note its cause for waiting; the first that lacks only room gets a hold."""
        job, shape, working_set = candidate.job, candidate.shape, self.working_set
        if not shape.clusters:
            permitted = permitted_clusters(job, working_set.snapshot.clusters, working_set.ledger.path(job.queue))
            self._refuse(candidate, Cause(Why.CLUSTER_DOWN, clusters=tuple(sorted(cluster.name for cluster in permitted))))
            return
        misfits = shape.misfits
        if misfits and all(working_set.shortage(job, shape.charges[c.name], shape.pods) is None for c, _ in misfits):
            # An equal gang of another queue did not fit, and room only shrinks within a cycle.
            self._refuse(candidate, Cause(Why.NO_ROOM, misfits=misfits, hold=self.holds.hold_room(candidate)))
            return
        shortages: list[Shortage] = []
        found: list[tuple[Cluster, Misfit]] = []
        held: Hold | QuotaHold | None = None
        for cluster in self._by_room(shape):
            outcome = self._try(candidate, cluster)
            if isinstance(outcome, Fit):
                return
            if isinstance(outcome, Shortage):
                shortages.append(outcome)
            elif isinstance(outcome, Misfit):
                found.append((cluster, outcome))
            else:
                held = held or outcome
        if held is not None:
            ends_at = latest_end(job, candidate.prediction, working_set.now, held.margin)
            self._refuse(candidate, Cause(Why.HOLD, hold=held), ends_at, held.margin)
        elif found:
            hold = self.holds.hold_room(candidate)
            shape.misfits = tuple(found) if not shortages else ()
            self._refuse(candidate, Cause(Why.NO_ROOM, misfits=tuple(found), hold=hold))
        else:
            shortage = shortages[0]
            self._refuse(candidate, Cause(Why.QUOTA, shortage=shortage, hold=self.holds.hold_quota(candidate, shortage)))

    def _refuse(self, candidate: Candidate, cause: Cause, ends_at: float = 0.0, margin: float | None = 0.0) -> None:
        candidate.cause = cause
        refusal = Refusal(cause, cause.repeated(), cause.why is not Why.HOLD, ends_at, margin)
        self._refusals.setdefault(candidate.job.queue, {})[candidate.shape] = refusal

    def _by_room(self, shape: Shape) -> Iterable[Cluster]:
        """Clusters by free share, largest first; those with GPUs last for gangs that want none; ties by name."""
        if len(shape.clusters) == 1:
            return shape.clusters
        node_arrays, wants_gpu = self.working_set.room.node_arrays, shape.asked[GPU] > 0
        return sorted(
            shape.clusters,
            key=lambda cluster: (
                not wants_gpu and node_arrays[cluster.name].total[GPU] > 0,
                -self._free_share(shape, cluster),
                cluster.name,
            ),
        )

    def _free_share(self, shape: Shape, cluster: Cluster) -> float:
        """The free part of the scarcest resource that the shape asks for."""
        room = self.working_set.room
        arrays, free = room.node_arrays[cluster.name], self._free_totals.get(cluster.name)
        if free is None:
            free = self._free_totals[cluster.name] = room.free_total(cluster.name)
        asked = shape.charges[cluster.name]
        return min((free[key] / arrays.total[key] if arrays.total[key] else 0.0 for key, _ in asked), default=0.0)

    def _try(self, candidate: Candidate, cluster: Cluster) -> Fit | Shortage | Misfit | Hold | QuotaHold:
        """Admit at full size, else at the largest size that an elastic gang can start with (found by halving)."""
        outcome = self._try_size(candidate, cluster, None)
        shape = candidate.shape
        if isinstance(outcome, Fit) or not shape.is_elastic:
            return outcome
        low, high = 1, shape.slack
        best: Fit | None = None
        while low <= high:
            middle = (low + high) // 2
            smaller = self._try_size(candidate, cluster, shape.reduced_counts(middle), is_trial=True)
            if isinstance(smaller, Fit):
                best, high = smaller, middle - 1
            else:
                low = middle + 1
        return outcome if best is None else self._try_size(candidate, cluster, shape.reduced_counts(low))

    def _try_size(
        self, candidate: Candidate, cluster: Cluster, counts: Counts | None, is_trial: bool = False
    ) -> Fit | Shortage | Misfit | Hold | QuotaHold:
        working_set, holds = self.working_set, self.holds
        job, shape, arrays = candidate.job, candidate.shape, working_set.room.node_arrays[cluster.name]
        now, explains_all = working_set.now, working_set.snapshot.rules.explains_all
        charge = shape.charges[cluster.name] if counts is None else charge_of(job, cluster, counts)
        pods = shape.pods if counts is None else shape.pods - job.gang.size + sum(counts.values())
        shortage = working_set.shortage(job, charge, pods)
        if shortage is None:
            shortage = holds.claimed_shortage(job, charge, pods)
        if shortage is not None:
            return shortage
        passed: list[tuple[QuotaHold, float]] = []
        for quota in holds.quota_holds_against(candidate):
            ends_at = latest_end(job, candidate.prediction, now, quota.margin)
            if not quota.allows(charge + counts_of(pods), ends_at, is_trial=True):
                return quota
            passed.append((quota, ends_at))
        misfit = self.lookahead.misfit(shape, cluster, counts, explains_all and not is_trial)
        if misfit is not None:
            return misfit
        free = working_set.room.free[cluster.name]
        trial = free.copy()
        fit = place_demand(shape.demand(arrays), arrays, trial, counts, explains_all)
        if isinstance(fit, Misfit):
            return fit
        used, binding = free - trial, holds.room_holds_against(candidate, cluster)
        ends = [latest_end(job, candidate.prediction, now, hold.margin) for hold in binding]
        for hold, ends_at in zip(binding, ends, strict=True):
            if not hold.allows(used, ends_at, is_trial=True):
                return hold
        if not is_trial:
            # Only an admitted gang uses up what the holds leave to others.
            for quota, ends_at in passed:
                quota.allows(charge + counts_of(pods), ends_at)
            for hold, ends_at in zip(binding, ends, strict=True):
                hold.allows(used, ends_at)
            self._admit(candidate, cluster, fit, trial, charge)
        return fit

    def _admit(self, candidate: Candidate, cluster: Cluster, fit: Fit, free: Amounts, charge: Resources) -> None:
        job, working_set = candidate.job, self.working_set
        self.lookahead.record_closest_nodes(cluster.name)
        working_set.room.free[cluster.name][:] = free
        self._free_totals.pop(cluster.name, None)
        working_set.ledger.add(job.queue, charge, len(fit.placements))
        self.holds.note_admitted(job, charge, len(fit.placements))
        self.admitted.append(
            GangAdmitted(
                job.id,
                job.attempts + 1,
                cluster.name,
                fit.placements,
                working_set.snapshot.epoch,
                candidate.is_class_exempt,
                candidate.prediction,
                past=self.holds.passed_by(candidate, cluster),
            )
        )
        costs = {pod_set.role: pod_cost(job, pod_set, cluster) for pod_set in job.gang.pod_sets}
        costs[MASTER] = cluster.master_cost
        now = working_set.now
        working_set.running.append(
            Running(
                job,
                job.attempts + 1,
                cluster.name,
                tuple(((cluster.name, place.node), costs[place.role]) for place in fit.placements),
                charge,
                now,
                now,
                None if job.timeout_s is None else now + job.timeout_s,
                candidate.prediction,
                working_set.room.node_arrays[cluster.name].share_of(charge),
                pods=len(fit.placements),
            )
        )
