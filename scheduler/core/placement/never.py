"""What can never fit: a gang for which the clusters have no room even when they are empty and all of their nodes are up.

Waiting cannot help there, so such a gang is refused when it is submitted, with the largest that is possible. It waits where that is
not certain: on a cluster that grows, on one whose nodes were never seen or where one has not said yet what it has (a node that just
joined), and where the search for a placement gave up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from tuttilab.scheduler.core.placement.fit import Counts, Demand, Misfit, demand_of, place_demand, surely_fits_empty
from tuttilab.scheduler.core.placement.node_arrays import NodeArrays, node_arrays_of
from tuttilab.scheduler.domain.model import MASTER, Cluster, Job, PodSet
from tuttilab.scheduler.domain.resources import NOTHING, PODS, Resources


@dataclass(frozen=True, slots=True)
class NeverFit:
    """A gang that does not fit on the empty cluster, and how many pods of the set that found no room would."""

    cluster: str
    misfit: Misfit
    most: int
    has: Resources
    """What the closest node has of what one pod asks for."""
    is_alone_possible: bool
    """Whether one pod of the set alone fits."""

    def sentence(self) -> str:
        """What does not fit, the largest that would, and what to do."""
        pod_set = self.misfit.pod_set
        if pod_set.role == MASTER:
            return (
                f"the gang's master ({pod_set.resources}) has no room beside its pods on cluster {self.cluster} even when that is "
                "empty; ask for less per pod or for fewer pods."
            )
        if not self.is_alone_possible:
            has = f": it has {self.has}" if self.has else ""
            return f"{self.misfit.sentence()} when empty{has}; ask for less per pod or for more, smaller workers."
        if self.most == 0:
            return (
                f"its pods do not fit together on cluster {self.cluster} even when that is empty: beside the others it has no "
                f"room for a {pod_set.role} pod ({pod_set.resources}); ask for less per pod or for fewer pods."
            )
        least = pod_set.count if pod_set.min_count is None else pod_set.min_count
        wanted = f"{least} at least are" if least < pod_set.count else f"{pod_set.count} {'is' if pod_set.count == 1 else 'are'}"
        fit = f"{self.most} {pod_set.role} {'pod' if self.most == 1 else 'pods'} ({pod_set.resources} each)"
        return (
            f"{wanted} asked for, and cluster {self.cluster} has room for at most {fit} even when it is empty; "
            f"ask for at most {self.most}, or for less per pod."
        )


def never_fit(job: Job, clusters: Iterable[Cluster], growing: Collection[str] = ()) -> NeverFit | None:
    """Why the gang, at its smallest, fits on none of the clusters; None if it may fit on one of them. ``growing``: by name."""
    best: NeverFit | None = None
    for cluster in clusters:
        if cluster.name in growing or not cluster.nodes or not all(node.allocatable for node in cluster.nodes):
            return None
        found = _on(job, _all_up(cluster))
        if found is None:
            return None
        if best is None or found.most > best.most:
            best = found
    return best


def _all_up(cluster: Cluster) -> Cluster:
    """The cluster with all its nodes and devices ready and nothing of others on them; the same object if they are."""
    if all(node.is_ready and not node.others and not node.failing for node in cluster.nodes):
        return cluster
    up = (
        replace(node, allocatable=node.allocatable + node.failing, is_ready=True, others=NOTHING, failing=NOTHING)
        for node in cluster.nodes
    )
    return replace(cluster, nodes=tuple(up))


def _on(job: Job, cluster: Cluster) -> NeverFit | None:
    arrays = node_arrays_of(cluster)
    demand = demand_of(job, arrays)
    smallest = {one.role: one.count if one.min_count is None else one.min_count for one in job.gang.pod_sets}
    misfit = _misfit(demand, arrays, smallest)
    if misfit is None or not misfit.is_certain:
        return None
    pod_set = misfit.pod_set
    most = 0 if pod_set.role == MASTER else _most(demand, arrays, smallest, pod_set)
    closest = next((node for node in cluster.nodes if node.name == misfit.closest), None)
    asked = pod_set.resources
    has = (
        Resources.of((key, closest.allocatable[key]) for key, _ in misfit.short if asked[key] or key == PODS)
        if closest
        else NOTHING
    )
    alone = {one.role: int(one.role == pod_set.role) for one in job.gang.pod_sets}
    is_alone_possible = pod_set.role == MASTER or most > 0 or _misfit(replace(demand, master=None), arrays, alone) is None
    return NeverFit(cluster.name, misfit, most, has, is_alone_possible)


def _misfit(demand: Demand, arrays: NodeArrays, counts: Counts) -> Misfit | None:
    """Why so many pods do not fit on the empty cluster; None if they do."""
    if surely_fits_empty(demand, arrays, counts):
        return None
    outcome = place_demand(demand, arrays, arrays.allocatable.copy(), counts)
    return outcome if isinstance(outcome, Misfit) else None


def _most(demand: Demand, arrays: NodeArrays, counts: Counts, pod_set: PodSet) -> int:
    """How many pods of the set fit beside the smallest number of all others; 0 if none does."""
    low, high = 0, counts[pod_set.role] - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _misfit(demand, arrays, {**counts, pod_set.role: middle}) is None:
            low = middle
        else:
            high = middle - 1
    return low
