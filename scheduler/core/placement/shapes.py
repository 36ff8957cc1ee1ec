"""Shapes: what a gang asks for, apart from its owner. Gangs of equal shape fit or do not fit alike, so one try answers for all."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import is_

from tuttilab.scheduler.core.placement.fit import (
    Counts,
    Demand,
    Misfit,
    charge_of,
    demand_of,
    has_master,
    place_demand,
    surely_fits_empty,
)
from tuttilab.scheduler.core.placement.node_arrays import NodeArrays
from tuttilab.scheduler.domain.model import Cluster, Job
from tuttilab.scheduler.domain.resources import Resources


def shape_key(job: Job) -> Hashable:
    """Equal for jobs that ask for the same: their placement and quota then depend on the free room alone."""
    sets = tuple(
        (
            pod_set.role,
            pod_set.count,
            pod_set.min_count,
            pod_set.resources.amounts,
            tuple(sorted(pod_set.node_labels.items())),
            pod_set.cluster,
            pod_set.tolerations,
        )
        for pod_set in job.gang.pod_sets
    )
    beside = job.work.sidecars_cost.amounts if job.work.sidecars else ()
    return sets, job.work.sidecar, beside, job.cluster, job.avoid_nodes, job.is_preemptible


@dataclass(slots=True)
class Shapes:
    """Numbers of the waiting jobs' shapes, so that a cycle compares integers."""

    numbers: dict[str, int] = field(default_factory=dict)
    """By job id."""
    _known: dict[Hashable, int] = field(default_factory=dict)
    _next: int = 0
    cache: ShapeCache = field(default_factory=dict)

    def add(self, job: Job) -> None:
        key = shape_key(job)
        if key not in self._known:
            self._known[key] = self._next
            self._next += 1
        self.numbers[job.id] = self._known[key]

    def remove(self, job_id: str) -> None:
        del self.numbers[job_id]
        if len(self._known) > 1000 + 2 * len(self.numbers):
            waiting = set(self.numbers.values())
            self._known = {key: number for key, number in self._known.items() if number in waiting}
            # Iterate over a copy: a cycle may be adding to the cache in another thread.
            for key in [key for key in list(self.cache) if key[0] not in waiting]:
                del self.cache[key]


@dataclass(slots=True, eq=False)
class Shape:
    """One shape in one cycle: its clusters, its cost on each, and what the cycle found out about it.

    Results that depend only on the shape and the clusters are shared with later cycles (`for_new_cycle`).
    """

    job: Job
    """Any job of this shape."""
    clusters: tuple[Cluster, ...]
    """The reachable clusters that it may use."""
    pods: int
    """Number of pods, the master included."""
    asked: Resources
    """Sum over all pods, without sidecars and master."""
    is_elastic: bool
    share: float = 0.0
    """Dominant share of the clusters it may use."""
    nodes: float = 0.0
    """The same in nodes: how many of their mean size it fills."""
    widest: float = 0.0
    """The same of its largest pod."""
    demands: dict[str, Demand] = field(default_factory=dict)
    charges: dict[str, Resources] = field(default_factory=dict)
    _smallest: dict[str, tuple[Counts | None, Resources, int]] = field(default_factory=dict)
    _misfits_when_empty: dict[str, Misfit | None] = field(default_factory=dict)
    misfits: tuple[tuple[Cluster, Misfit], ...] = ()
    """Why no cluster has room, once that is known; it stays true, as room only shrinks within a cycle."""
    count: int = 0
    """Number of candidates of this shape."""

    @classmethod
    def of(cls, job: Job, clusters: tuple[Cluster, ...], site: Resources) -> Shape:
        is_elastic = any(one.min_count is not None and one.min_count < one.count for one in job.gang.pod_sets)
        shape = cls(job, clusters, job.gang.size + int(has_master(job)), job.gang.resources, is_elastic)
        for cluster in clusters:
            shape.charges[cluster.name] = charge_of(job, cluster)
        charge = shape.charges[clusters[0].name] if clusters else shape.asked
        shape.share = min(charge.dominant_share(site), 1e9) if site else 0.0
        nodes = sum(len(cluster.nodes) for cluster in clusters)
        shape.nodes = shape.share * nodes
        shape.widest = max(one.resources.dominant_share(site) for one in job.gang.pod_sets) * nodes if site else 0.0
        return shape

    def for_new_cycle(self) -> Shape:
        """The same shape for another cycle, sharing everything that does not depend on free room."""
        return Shape(
            self.job,
            self.clusters,
            self.pods,
            self.asked,
            self.is_elastic,
            self.share,
            self.nodes,
            self.widest,
            self.demands,
            self.charges,
            self._smallest,
            self._misfits_when_empty,
        )

    def is_for(self, clusters: tuple[Cluster, ...]) -> bool:
        """Whether it was made for exactly these cluster objects."""
        return len(clusters) == len(self.clusters) and all(map(is_, clusters, self.clusters))

    def smallest(self, cluster: Cluster) -> tuple[Counts | None, Resources, int]:
        """Smallest size at which it starts on the cluster: pods by role (None: all), their charge, and the number of pods."""
        if not self.is_elastic:
            return None, self.charges[cluster.name], self.pods
        if cluster.name not in self._smallest:
            counts = self.reduced_counts(self.slack)
            pods = self.pods - self.job.gang.size + sum(counts.values())
            self._smallest[cluster.name] = counts, charge_of(self.job, cluster, counts), pods
        return self._smallest[cluster.name]

    def demand(self, arrays: NodeArrays) -> Demand:
        name = arrays.cluster.name
        if name not in self.demands:
            self.demands[name] = demand_of(self.job, arrays)
        return self.demands[name]

    def misfit_when_empty(self, arrays: NodeArrays) -> Misfit | None:
        """What a gang of this shape, at its smallest, would lack if nothing of ours ran on the cluster; None if it would fit."""
        name = arrays.cluster.name
        if name not in self._misfits_when_empty:
            demand = self.demand(arrays)
            counts = self.reduced_counts(self.slack) if self.is_elastic else None
            outcome = None
            if not surely_fits_empty(demand, arrays, counts):
                outcome = place_demand(demand, arrays, arrays.ours.copy(), counts)
            self._misfits_when_empty[name] = outcome if isinstance(outcome, Misfit) else None
        return self._misfits_when_empty[name]

    def reduced_counts(self, fewer: int) -> Counts:
        """Pods by role with ``fewer`` pods less in each elastic set, down to its minimum."""
        return {s.role: max(s.count - fewer, s.min_count if s.min_count is not None else s.count) for s in self.job.gang.pod_sets}

    @property
    def slack(self) -> int:
        """The largest number of pods that any one set can do without."""
        return max(s.count - (s.min_count if s.min_count is not None else s.count) for s in self.job.gang.pod_sets)


ShapeCache = dict[tuple[int, tuple[str, ...]], Shape]
"""Shapes of earlier cycles by shape number and names of clusters. Only a cache: no decision depends on its content."""
