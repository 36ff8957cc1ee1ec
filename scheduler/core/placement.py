"""Where every pod of a gang goes: on nodes, all or nothing, never by sums per resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.layout import Amounts, Layout, Mask, Terms, layout_of, terms_of
from tuttilab.scheduler.core.snapshot import Room
from tuttilab.scheduler.events import Placement
from tuttilab.scheduler.model import MASTER, Cluster, Job, PodSet, Queue
from tuttilab.scheduler.resources import GPU, NOTHING, Resources, total

_MOST: Final = 1 << 40
Counts = Mapping[str, int]
"""Pods by role, where fewer than asked for are placed."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A gang's places on one cluster, the master's first if it has one."""

    cluster: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class Misfit:
    """The first pod shape that found no node: how many of its pods did, which node came closest and what it lacks."""

    pod_set: PodSet
    placed: int
    closest: str | None
    short: Resources

    def sentence(self) -> str:
        role, each = self.pod_set.role, self.pod_set.resources
        count = f"{self.placed} of {self.pod_set.count} {role} pods fit" if self.placed else f"no node takes a {role} pod"
        if self.closest is None:
            return f"{count} ({each} each); no node is ready"
        if not self.short:
            wanted = ", ".join(f"{key}={value}" for key, value in self.pod_set.node_labels.items())
            return f"{count} ({each} each); no node with {wanted or 'matching labels'} and room"
        return f"{count} ({each} each); node {self.closest} comes closest, short of {self.short}"


def has_master(job: Job) -> bool:
    """A distributed job gets a master; a job of one pod, or one without sidecars, has none."""
    return job.gang.size > 1 and job.work.sidecar


def pod_cost(job: Job, pod_set: PodSet, cluster: Cluster) -> Resources:
    """What one pod holds on its node: the user's part and our sidecar."""
    return pod_set.resources + cluster.sidecar_cost if job.work.sidecar else pod_set.resources


def charge_of(job: Job, cluster: Cluster, counts: Counts | None = None) -> Resources:
    """What quota counts for the whole gang on this cluster: every pod, sidecars and master included."""
    counts = counts or {}
    parts = [pod_cost(job, pod_set, cluster) * counts.get(pod_set.role, pod_set.count) for pod_set in job.gang.pod_sets]
    return total([*parts, cluster.master_cost] if has_master(job) else parts)


def allowed_clusters(job: Job, clusters: Mapping[str, Cluster], path: Iterable[Queue] = ()) -> list[Cluster]:
    """The clusters that answer and that the job, each of its pod sets and every queue on its ``path`` allow."""
    named = {name for name in (job.cluster, *(pod_set.cluster for pod_set in job.gang.pod_sets)) if name is not None}
    limits = [set(queue.clusters) for queue in path if queue.clusters]
    return [
        cluster
        for cluster in clusters.values()
        if cluster.unreachable_since is None and named <= {cluster.name} and all(cluster.name in limit for limit in limits)
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """One pod set (or the master) as arrays. ``cost`` is None when no node has one of its resources."""

    pod_set: PodSet
    first_rank: int
    cost: Amounts | None
    terms: Terms
    wants_gpu: bool

    @classmethod
    def of(cls, pod_set: PodSet, first_rank: int, cost: Resources, layout: Layout) -> Part:
        return cls(pod_set, first_rank, layout.vector(cost), terms_of(pod_set), cost[GPU] > 0)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a gang asks of one cluster, in the order in which its parts are placed: largest pods first."""

    parts: tuple[Part, ...]
    master: Part | None
    avoid: tuple[str, ...]


def demand_of(job: Job, layout: Layout) -> Demand:
    cluster = layout.cluster
    parts: list[Part] = []
    rank = 0
    for pod_set in job.gang.pod_sets:
        parts.append(Part.of(pod_set, rank, pod_cost(job, pod_set, cluster), layout))
        rank += pod_set.count
    parts.sort(key=lambda part: (part.pod_set.resources[GPU], part.pod_set.resources.dominant_share(layout.total)), reverse=True)
    master = Part.of(PodSet(MASTER, 1, cluster.master_cost), -1, cluster.master_cost, layout) if has_master(job) else None
    return Demand(tuple(parts), master, job.avoid_nodes)


def place(job: Job, cluster: Cluster, room: Room, counts: Counts | None = None) -> Fit | Misfit:
    """Take room for every pod of the gang on this cluster, or leave ``room`` as it was. See `place_demand`."""
    layout = room.layouts[cluster.name]
    return place_demand(demand_of(job, layout), layout, room.free[cluster.name], counts)


def place_demand(demand: Demand, layout: Layout, free: Amounts, counts: Counts | None = None, tells: bool = True) -> Fit | Misfit:
    """Largest pods first. Equal pods go into one node if one takes them all, else one rack, else one zone, else anywhere.

    Pods without GPU keep off GPU nodes while others have room. One pod goes where least is left over (fewest free GPUs, then
    fewest free cores); many pods fill the nodes that take most of them. Ties by name, so the same input gives the same answer.
    ``free`` is changed only by a fit. Without ``tells`` a misfit does not look for the node that comes closest.
    """
    trial = free.copy()
    placed: list[Placement] = []
    used: list[int] = []
    for part in demand.parts:
        count = (counts or {}).get(part.pod_set.role, part.pod_set.count)
        rows = _rows_for(part, count, layout, trial, demand.avoid)
        if len(rows) < count:
            if not tells:
                return Misfit(part.pod_set, len(rows), None, NOTHING)
            for row in rows:
                trial[row] -= part.cost
            return _misfit(part, layout, trial, len(rows))
        assert part.cost is not None
        for offset, row in enumerate(rows):
            trial[row] -= part.cost
            placed.append(Placement(part.pod_set.role, part.first_rank + offset, layout.nodes[row].name))
        used += rows
    placed.sort(key=lambda placement: placement.rank)
    if demand.master is not None:
        own = np.zeros(len(layout.nodes), dtype=np.bool_)
        own[used] = True
        rows = _rows_for(demand.master, 1, layout, trial, (), own) or _rows_for(demand.master, 1, layout, trial, ())
        if not rows or demand.master.cost is None:
            return _misfit(demand.master, layout, trial, 0)
        trial[rows[0]] -= demand.master.cost
        placed.insert(0, Placement(MASTER, -1, layout.nodes[rows[0]].name))
    free[:] = trial
    return Fit(layout.cluster.name, tuple(placed))


def _capacity(part: Part, layout: Layout, free: Amounts, own: Mask | None = None) -> npt.NDArray[np.int64]:
    """How many pods of the part each node takes now."""
    if part.cost is None or not len(free):
        return np.zeros(len(free), dtype=np.int64)
    asked = part.cost > 0
    each: npt.NDArray[np.int64]
    if asked.any():
        each = np.maximum((free[:, asked] // part.cost[asked]).min(axis=1), 0)
    else:
        each = np.full(len(free), _MOST)
    takes = layout.takes(part.terms)
    each[~takes if own is None else ~(takes & own)] = 0
    return each


def _rows_for(part: Part, count: int, layout: Layout, free: Amounts, avoid: tuple[str, ...], own: Mask | None = None) -> list[int]:
    """A node's row for each of ``count`` pods; fewer when not all of them fit (as many as do)."""
    each = _capacity(part, layout, free, own)
    if avoid:
        kept = each.copy()
        kept[[layout.index[name] for name in avoid if name in layout.index]] = 0
        if kept.sum() >= count:
            each = kept
    if layout.gpu is not None and not part.wants_gpu:
        plain = np.where(layout.allocatable[:, layout.gpu] > 0, 0, each)
        if plain.sum() >= count:
            each = plain
    if each.sum() < count:
        return [row for row in np.nonzero(each)[0].tolist() for _ in range(int(each[row]))]
    whole = np.nonzero(each >= count)[0]
    if len(whole):
        return [_tightest(whole, part, layout, free)] * count
    each = _together(each, count, layout)
    rows: list[int] = []
    while len(rows) < count:
        left = count - len(rows)
        enough = np.nonzero(each >= left)[0]
        if len(enough):
            rows += [_tightest(enough, part, layout, free)] * left
            break
        most = int(each.max())
        row = _tightest(np.nonzero(each == most)[0], part, layout, free)
        rows += [row] * most
        each[row] = 0
    return rows


def _together(each: npt.NDArray[np.int64], count: int, layout: Layout) -> npt.NDArray[np.int64]:
    """Only the nodes of the fullest rack that takes all pods, else of the fullest zone, else all nodes."""
    for groups in (layout.racks, layout.zones):
        labelled = groups >= 0
        if not labelled.any():
            continue
        sums = np.bincount(groups[labelled], weights=np.minimum(each[labelled], count)).astype(np.int64)
        enough = np.nonzero(sums >= count)[0]
        if len(enough):
            chosen = enough[np.argmin(sums[enough])]
            return np.where(groups == chosen, each, 0)
    return each.copy()


def _tightest(rows: npt.NDArray[np.intp], part: Part, layout: Layout, free: Amounts) -> int:
    """Of these nodes the one with least left over."""
    if len(rows) > 1 and layout.gpu is not None:
        # Without GPU in the request: the node with fewest GPUs is the one whose loss hurts others least.
        values = free[rows, layout.gpu] if part.wants_gpu else layout.allocatable[rows, layout.gpu]
        rows = rows[values == values.min()]
    if len(rows) > 1:
        values = free[rows, layout.cpu]
        rows = rows[values == values.min()]
    return int(rows[0])


def _misfit(part: Part, layout: Layout, free: Amounts, placed: int) -> Misfit:
    takes = np.nonzero(layout.takes(part.terms))[0] if len(layout.nodes) else np.zeros(0, dtype=np.intp)
    rows = takes if len(takes) else np.arange(len(layout.nodes))
    asked = part.pod_set.resources if part.cost is None else layout.amounts(part.cost)
    if not len(rows):
        return Misfit(part.pod_set, placed, None, asked)
    if part.cost is None:
        best = int(rows[0])
        return Misfit(part.pod_set, placed, layout.nodes[best].name, asked.short_of(layout.amounts(free[best])))
    lack = np.maximum(part.cost - free[rows], 0) / np.maximum(layout.allocatable.sum(axis=0), 1)
    best = int(rows[np.argmin(lack.max(axis=1))])
    short = layout.amounts(np.maximum(part.cost - free[best], 0))
    return Misfit(part.pod_set, placed, layout.nodes[best].name, short)


def never_fits(job: Job, clusters: Iterable[Cluster]) -> Misfit | None:
    """The misfit when some pod of the gang is larger than every node of every allowed cluster, even empty; else None."""
    worst: Misfit | None = None
    for cluster in clusters:
        layout = layout_of(cluster)
        parts = demand_of(job, layout).parts
        misfit = next(
            (_misfit(p, layout, layout.allocatable, 0) for p in parts if not _capacity(p, layout, layout.allocatable).any()), None
        )
        if misfit is None:
            return None
        if layout.nodes:
            worst = worst or misfit
    return worst


def fits_somewhere(demand: Demand, layout: Layout, free: Amounts) -> bool:
    """Whether each part alone has room for its pods: necessary for a fit, and quick."""
    for part in demand.parts:
        least = part.pod_set.count if part.pod_set.min_count is None else part.pod_set.min_count
        if int(np.minimum(_capacity(part, layout, free), least).sum()) < least:
            return False
    return True
