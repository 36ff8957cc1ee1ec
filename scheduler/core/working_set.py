"""The working set of one cycle: free room, used quota, what runs and the lines of candidates; and questions about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from tuttilab.scheduler.core.backfill import EndDistribution, Releases
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.lines import Lines
from tuttilab.scheduler.core.ordering.protection import Protection, protection
from tuttilab.scheduler.core.placement.fit import Misfit, allowed_clusters, may_fit
from tuttilab.scheduler.core.placement.room import Room
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.quota import Ledger, Shortage
from tuttilab.scheduler.core.snapshot import Running, Snapshot, usage_of
from tuttilab.scheduler.domain.model import Cluster, Job
from tuttilab.scheduler.domain.resources import Resources, total


@dataclass(slots=True)
class WorkingSet:
    """`Admission` takes room and quota from it and adds to what runs; everything else only reads it."""

    snapshot: Snapshot
    now: float
    room: Room
    ledger: Ledger
    site: Resources
    """Allocatable on all clusters that answer."""
    protection: Protection
    running: list[Running]
    """What ran before this cycle, then what it admitted."""
    lines: Lines
    _idle_ledger: Ledger | None = None
    _ever_allowed: dict[tuple[Shape, str], bool] = field(default_factory=dict)
    """By shape and queue."""
    _releases: dict[str, tuple[int, Releases]] = field(default_factory=dict)
    """By cluster, with the number of running gangs, to which only admission adds."""
    _ends: tuple[int, EndDistribution | None] = (-1, None)

    @classmethod
    def of(cls, snapshot: Snapshot, now: float) -> WorkingSet:
        room = snapshot.room.copy()
        site = total(arrays.total for arrays in room.node_arrays.values())
        ledger = snapshot.ledger.copy()
        protects = snapshot.rules.protects and snapshot.waiting
        protected = _protection(snapshot, now, room, ledger, site) if protects else Protection()
        lines = Lines.of(snapshot, now, room, ledger, protected)
        return cls(snapshot, now, room, ledger, site, protected, list(snapshot.running), lines)

    def releases(self, cluster: str) -> Releases:
        """What the running gangs of the cluster release and when."""
        count, known = self._releases.get(cluster, (-1, None))
        if known is None or count != len(self.running):
            arrays = self.room.node_arrays[cluster]
            known = Releases.of(arrays, self.running, self.now, self.snapshot.rules.end_estimate)
            self._releases[cluster] = len(self.running), known
        return known

    def ends(self) -> EndDistribution:
        """When the running gangs end."""
        count, known = self._ends
        if known is None or count != len(self.running):
            known = EndDistribution.of(self.running, self.now)
            self._ends = len(self.running), known
        return known

    def next_at(self) -> float | None:
        """When the next back-off ends or gang becomes protected: nothing else changes by time alone."""
        times = [job.not_before for job in self.snapshot.waiting if job.not_before > self.now]
        if self.protection.next_at is not None:
            times.append(self.protection.next_at)
        return min(times, default=None)

    def may_start_any(self) -> bool:
        """Whether candidates have to be tried: False when no shape has room, none can preempt and no reasons are wanted."""
        if self.snapshot.rules.explains_all or self.may_preempt():
            return bool(self.lines.by_queue)
        node_arrays = self.room.node_arrays
        return any(
            may_fit(shape.demand(node_arrays[c.name]), node_arrays[c.name], self.room.free[c.name])
            for shape in self.lines.shapes
            for c in shape.clusters
        )

    def may_preempt(self) -> bool:
        """Whether any candidate could preempt: a guaranteed share is lent, or a lower class runs."""
        if not self.snapshot.rules.preempts or self.ledger.borrowable():
            return self.snapshot.rules.preempts
        heads = {line[0].job.priority for line in self.lines.by_queue.values()}
        return bool(heads) and any(runner.job.priority < max(heads) for runner in self.running)

    def claimants(self) -> Iterator[tuple[Candidate, bool]]:
        """Candidates that may preempt if they do not fit, each with whether it is within the guarantee of its queue.

        The others are above a class that runs in their queue.
        """
        lowest: dict[str, int] = {}
        for runner in self.running:
            lowest[runner.queue] = min(runner.job.priority, lowest.get(runner.queue, runner.job.priority))
        for queue, line in self.lines.by_queue.items():
            entitled: dict[Shape, bool] = {}
            least = lowest.get(queue, inf)
            for candidate in line:
                shape = candidate.shape
                is_entitled = entitled.get(shape)
                if is_entitled is None:
                    is_entitled = entitled[shape] = self.is_entitled(candidate)
                if (is_entitled or candidate.job.priority > least) and shape.clusters:
                    yield candidate, is_entitled

    def is_entitled(self, candidate: Candidate) -> bool:
        """Whether the gang is within the guarantee of its queue, so that no hold of a borrower binds it."""
        return is_within_guarantee(self.ledger, candidate)

    def shortage(self, job: Job, charge: Resources, pods: int) -> Shortage | None:
        return self.ledger.shortage(job.queue, charge, pods, job.is_preemptible)

    def is_ever_allowed(self, candidate: Candidate) -> bool:
        """Whether quota allows the gang, at its smallest, when nothing runs. If not, nothing is held for it."""
        job, shape = candidate.job, candidate.shape
        key = (shape, job.queue)
        if key not in self._ever_allowed:
            if self._idle_ledger is None:
                self._idle_ledger = self.ledger.idle()
            idle = self._idle_ledger
            sizes = [shape.smallest(cluster)[1:] for cluster in shape.clusters]
            self._ever_allowed[key] = any(idle.shortage(job.queue, *size, job.is_preemptible) is None for size in sizes)
        return self._ever_allowed[key]

    def misfit_when_empty(self, shape: Shape, cluster: Cluster) -> Misfit | None:
        """What gangs of this shape, at their smallest, lack where nothing of ours runs; None when they fit there."""
        return shape.misfit_when_empty(self.room.node_arrays[cluster.name])

    def queues_below(self, name: str) -> set[str]:
        """The queue and every queue below it."""
        return {queue for queue in self.snapshot.queues if any(step.name == name for step in self.ledger.path(queue))}


def is_within_guarantee(ledger: Ledger, candidate: Candidate) -> bool:
    """Whether the gang, at its smallest, would be within the guaranteed share of its queue, so that it may reclaim it."""
    shape = candidate.shape
    if not shape.clusters or not ledger.borrowable():
        return False
    return ledger.may_reclaim(candidate.job.queue, shape.smallest(shape.clusters[0])[1])


def _protection(snapshot: Snapshot, now: float, room: Room, ledger: Ledger, site: Resources) -> Protection:
    weights = {name: arrays.total.dominant_share(site) for name, arrays in room.node_arrays.items()}
    in_use = [usage_of(runner, now) for runner in snapshot.running]
    usable: dict[str, frozenset[str]] = {}
    if len(weights) > 1:
        for job in snapshot.waiting:
            names = frozenset(c.name for c in allowed_clusters(job, snapshot.clusters, ledger.path(job.queue)))
            if len(names) < len(weights):
                usable[job.id] = names
    return protection(snapshot.waiting, snapshot.accounts, in_use, snapshot.queues, weights, usable, now, snapshot.rules)
