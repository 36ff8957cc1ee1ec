"""What a gang asks for, apart from who asks: gangs of one shape fit or do not fit together, so one try answers for all of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import is_

from tuttilab.scheduler.core.layout import Layout
from tuttilab.scheduler.core.placement import (
    Counts,
    Demand,
    Misfit,
    charge_of,
    demand_of,
    has_master,
    place_demand,
    surely_fits_empty,
)
from tuttilab.scheduler.model import Cluster, Job
from tuttilab.scheduler.resources import Resources


def shape_key(job: Job) -> Hashable:
    """Equal for jobs whose placement and quota depend on nothing but the room there is."""
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
    return sets, job.work.sidecar, job.cluster, job.avoid_nodes, job.is_preemptible


@dataclass(slots=True)
class Shapes:
    """A number for every shape that waits, so that a cycle compares numbers."""

    numbers: dict[str, int] = field(default_factory=dict)
    """By job id."""
    _known: dict[Hashable, int] = field(default_factory=dict)
    _next: int = 0
    kept: Kept = field(default_factory=dict)

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
            # A list first: a cycle may be adding to it just now.
            for key in [key for key in list(self.kept) if key[0] not in waiting]:
                del self.kept[key]


@dataclass(slots=True, eq=False)
class Shape:
    """One shape in one cycle: its clusters, what it costs on each, and what the cycle found out about it.

    What follows from the shape and the clusters alone is kept for the cycles after it (`again`).
    """

    job: Job
    """Any one of this shape."""
    clusters: tuple[Cluster, ...]
    """Where it may go; empty when none of them answers."""
    pods: int
    asked: Resources
    """By all pods together, without our own pods."""
    is_elastic: bool
    share: float = 0.0
    """Dominant share of the clusters it may use."""
    demands: dict[str, Demand] = field(default_factory=dict)
    charges: dict[str, Resources] = field(default_factory=dict)
    _smallest: dict[str, tuple[Counts | None, Resources, int]] = field(default_factory=dict)
    _alone: dict[str, Misfit | None] = field(default_factory=dict)
    misfits: tuple[tuple[Cluster, Misfit], ...] = ()
    """What each cluster lacked, once none had room: within a cycle room only shrinks."""
    count: int = 0
    """Gangs of this shape that wait and may be considered."""

    @classmethod
    def of(cls, job: Job, clusters: tuple[Cluster, ...], site: Resources) -> Shape:
        is_elastic = any(one.min_count is not None and one.min_count < one.count for one in job.gang.pod_sets)
        shape = cls(job, clusters, job.gang.size + int(has_master(job)), job.gang.resources, is_elastic)
        for cluster in clusters:
            shape.charges[cluster.name] = charge_of(job, cluster)
        charge = shape.charges[clusters[0].name] if clusters else shape.asked
        shape.share = min(charge.dominant_share(site), 1e9) if site else 0.0
        return shape

    def again(self) -> Shape:
        """The same in another cycle, with what does not depend on the room shared."""
        return Shape(
            self.job,
            self.clusters,
            self.pods,
            self.asked,
            self.is_elastic,
            self.share,
            self.demands,
            self.charges,
            self._smallest,
            self._alone,
        )

    def is_of(self, clusters: tuple[Cluster, ...]) -> bool:
        """Whether it was made for these clusters as they are now."""
        return len(clusters) == len(self.clusters) and all(map(is_, clusters, self.clusters))

    def smallest(self, cluster: Cluster) -> tuple[Counts | None, Resources, int]:
        """The fewest pods with which it starts: by role (None: all of them), what they cost there, and how many in all."""
        if not self.is_elastic:
            return None, self.charges[cluster.name], self.pods
        if cluster.name not in self._smallest:
            counts = self.counts_less(self.slack)
            pods = self.pods - self.job.gang.size + sum(counts.values())
            self._smallest[cluster.name] = counts, charge_of(self.job, cluster, counts), pods
        return self._smallest[cluster.name]

    def demand(self, layout: Layout) -> Demand:
        name = layout.cluster.name
        if name not in self.demands:
            self.demands[name] = demand_of(self.job, layout)
        return self.demands[name]

    def alone(self, layout: Layout) -> Misfit | None:
        """What gangs of this shape, at their smallest, would lack were the cluster empty; None for those that would fit."""
        name = layout.cluster.name
        if name not in self._alone:
            demand = self.demand(layout)
            counts = self.counts_less(self.slack) if self.is_elastic else None
            outcome = None
            if not surely_fits_empty(demand, layout, counts):
                outcome = place_demand(demand, layout, layout.allocatable.copy(), counts)
            self._alone[name] = outcome if isinstance(outcome, Misfit) else None
        return self._alone[name]

    def counts_less(self, fewer: int) -> Counts:
        """Pods by role with ``fewer`` less of each set that may be smaller, down to its minimum."""
        return {s.role: max(s.count - fewer, s.min_count if s.min_count is not None else s.count) for s in self.job.gang.pod_sets}

    @property
    def slack(self) -> int:
        """How many pods the most elastic set may do without."""
        return max(s.count - (s.min_count if s.min_count is not None else s.count) for s in self.job.gang.pod_sets)


Kept = dict[tuple[int, tuple[str, ...]], Shape]
"""By number and names of clusters: shapes as the last cycles made them, to begin with. No answer depends on what is in it."""
