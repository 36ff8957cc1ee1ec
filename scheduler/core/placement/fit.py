"""Placement of a gang's pods on nodes: all or nothing, by node, never by sums per resource."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.placement.exact_search import Bins, pack
from tuttilab.scheduler.core.placement.node_arrays import Amounts, Mask, NodeArrays, Terms, terms_of
from tuttilab.scheduler.core.placement.room import Room
from tuttilab.scheduler.core.placement.work_places import fitting
from tuttilab.scheduler.domain.events import Placement
from tuttilab.scheduler.domain.model import MASTER, Cluster, Job, PodSet, Queue
from tuttilab.scheduler.domain.resources import GPU, NOTHING, Resources, total

_UNBOUNDED: Final = 1 << 40
MAX_PODS_SEARCHED: Final = 48
"""Above this size a gang of unlike pods gets no exact search, only tries in a few orders of its sets."""
MAX_GROUPS_TRIED: Final = 4
"""How many racks, and zones, are tried for a gang of unlike pods as a whole."""
Counts = Mapping[str, int]
"""Pods by role, for a gang placed with fewer pods than it asks for; a missing role has all its pods."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The placements of a gang on one cluster, the master's first if it has one."""

    cluster: str
    placements: tuple[Placement, ...]


@dataclass(slots=True)
class Misfit:
    """The first pod set that found no room: how many of its pods did, which node came closest and what that node lacks.

    For gangs refused by the prefilter, all but ``pod_set`` is filled in later, before the room changes.
    """

    pod_set: PodSet
    placed: int
    closest: str | None
    short: Resources
    is_certain: bool = True
    """Whether it is proven that the gang cannot be placed; if False, the search gave up."""

    def sentence(self, names_shortage: bool = True) -> str:
        """``names_shortage``: whether it ends with what the closest node lacks (`short`)."""
        role, each = self.pod_set.role, self.pod_set.resources
        count = f"{self.placed} of {self.pod_set.count} {role} pods fit" if self.placed else f"no node takes a {role} pod"
        if self.closest is None:
            return f"{count} ({each} each); no node is ready"
        if not self.short:
            wanted = ", ".join(f"{key}={value}" for key, value in self.pod_set.node_labels.items())
            return f"{count} ({each} each); no node with {wanted or 'matching labels'} and room"
        return f"{count} ({each} each); node {self.closest} comes closest" + (f", short of {self.short}" if names_shortage else "")


def has_master(job: Job) -> bool:
    """Whether the job gets a master: a job of one pod, or one without sidecars, has none."""
    return job.gang.size > 1 and job.work.sidecar


def pod_cost(job: Job, pod_set: PodSet, cluster: Cluster) -> Resources:
    """What one pod takes on its node: the user's request, the sidecar and those of the site."""
    cost = pod_set.resources + cluster.sidecar_cost if job.work.sidecar else pod_set.resources
    return cost + job.work.sidecars_cost if job.work.sidecars else cost


def charge_of(job: Job, cluster: Cluster, counts: Counts | None = None) -> Resources:
    """What quota counts for the whole gang on this cluster: every pod, sidecars and master included."""
    counts = counts or {}
    parts = [pod_cost(job, pod_set, cluster) * counts.get(pod_set.role, pod_set.count) for pod_set in job.gang.pod_sets]
    return total([*parts, cluster.master_cost] if has_master(job) else parts)


def named_clusters(job: Job) -> set[str]:
    """The clusters that the job or its pod sets name. A gang runs on one cluster, so with two names it can run nowhere."""
    names = {pod_set.cluster for pod_set in job.gang.pod_sets}
    names.add(job.cluster)
    return {name for name in names if name is not None}


def possible_clusters(job: Job, path: Iterable[Queue]) -> set[str] | None:
    """The names of the clusters that the job and the queues of its ``path`` allow, existing or not; None if all."""
    bounds = [{name} for name in named_clusters(job)] + [set(queue.clusters) for queue in path if queue.clusters]
    return set.intersection(*bounds) if bounds else None


def permitted_clusters(job: Job, clusters: Mapping[str, Cluster], path: Iterable[Queue] = ()) -> list[Cluster]:
    """The clusters that run such jobs and that the job, its pod sets and every queue on its ``path`` allow, reachable or not."""
    possible = possible_clusters(job, path)
    found = [cluster for cluster in clusters.values() if possible is None or cluster.name in possible]
    return fitting(job, found, is_named=bool(named_clusters(job)))


def allowed_clusters(job: Job, clusters: Mapping[str, Cluster], path: Iterable[Queue] = ()) -> list[Cluster]:
    """The reachable clusters among `permitted_clusters`."""
    return [cluster for cluster in permitted_clusters(job, clusters, path) if cluster.unreachable_since is None]


@dataclass(frozen=True, slots=True)
class Part:
    """One pod set (or the master) as arrays. ``cost`` is None if no node has one of its resources."""

    pod_set: PodSet
    first_rank: int
    cost: Amounts | None
    terms: Terms
    wants_gpu: bool

    @classmethod
    def of(cls, pod_set: PodSet, first_rank: int, cost: Resources, arrays: NodeArrays) -> Part:
        return cls(pod_set, first_rank, arrays.vector(cost), terms_of(pod_set), cost[GPU] > 0)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a gang asks of one cluster. Parts in placement order: those that fewest nodes take first, then largest pods first."""

    parts: tuple[Part, ...]
    master: Part | None
    avoid: tuple[str, ...]


PartCounts = Sequence[tuple[Part, int]]
"""Parts with their number of pods, in placement order."""


def demand_of(job: Job, arrays: NodeArrays) -> Demand:
    cluster = arrays.cluster
    parts: list[Part] = []
    rank = 0
    for pod_set in job.gang.pod_sets:
        parts.append(Part.of(pod_set, rank, pod_cost(job, pod_set, cluster), arrays))
        rank += pod_set.count
    parts.sort(key=lambda part: (part.pod_set.resources[GPU], part.pod_set.resources.dominant_share(arrays.total)), reverse=True)
    if len(parts) > 1:
        # Parts that few nodes take go first, before others fill those nodes.
        parts.sort(key=lambda part: int(np.count_nonzero(_capacity(part, arrays, arrays.allocatable))))
    master = Part.of(PodSet(MASTER, 1, cluster.master_cost), -1, cluster.master_cost, arrays) if has_master(job) else None
    return Demand(tuple(parts), master, job.avoid_nodes)


def place(job: Job, cluster: Cluster, room: Room, counts: Counts | None = None) -> Fit | Misfit:
    """Place the gang on this cluster and take its room, or leave ``room`` unchanged. See `place_demand`."""
    arrays = room.node_arrays[cluster.name]
    return place_demand(demand_of(job, arrays), arrays, room.free[cluster.name], counts)


def place_demand(
    demand: Demand, arrays: NodeArrays, free: Amounts, counts: Counts | None = None, explains: bool = True
) -> Fit | Misfit:
    """Place every pod of the gang, most constrained parts first, then largest pods; a misfit leaves ``free`` unchanged.

    Equal pods go to one node if it takes them all, else to one rack, else to one zone, else anywhere; so does a gang of unlike
    pods as a whole. If one order of its sets fails, other orders are tried, then the exact search. Pods without GPU avoid GPU
    nodes while other nodes have room. A single pod goes to the node with least left over (fewest free GPUs, then fewest free
    cores); several pods fill the nodes that take most of them. Ties are broken by name, so the result is deterministic. Without
    ``explains`` a misfit does not name the closest node.
    """
    given = counts or {}
    wanted = [(part, given.get(part.pod_set.role, part.pod_set.count)) for part in demand.parts]
    found: _Solution | _DeadEnd | None = _colocated(wanted, demand, arrays, free) if len(wanted) > 1 else None
    if found is None:
        found = _in_order(wanted, demand, arrays, free)
    is_certain = True
    if isinstance(found, _DeadEnd) and (len(wanted) > 1 or found.part is demand.master):
        other, is_certain = _in_other_orders(wanted, found, demand, arrays, free)
        found = found if other is None else other
    if isinstance(found, _DeadEnd):
        if not explains:
            return Misfit(found.part.pod_set, found.placed, None, NOTHING, is_certain)
        return misfit_of(found.part, arrays, found.free, found.placed, is_certain)
    placed = [
        Placement(part.pod_set.role, part.first_rank + offset, arrays.nodes[row].name)
        for part, rows in found.rows
        for offset, row in enumerate(rows)
    ]
    placed.sort(key=lambda placement: placement.rank)
    free[:] = found.free
    return Fit(arrays.cluster.name, tuple(placed))


@dataclass(frozen=True, slots=True)
class _Solution:
    """The node row of every pod, the master included, and the free room after them."""

    rows: list[tuple[Part, list[int]]]
    free: Amounts


@dataclass(frozen=True, slots=True)
class _DeadEnd:
    """The part that did not fit, how many of its pods did, and the free room at that point."""

    part: Part
    placed: int
    free: Amounts


def _in_order(
    wanted: PartCounts, demand: Demand, arrays: NodeArrays, free: Amounts, within: Mask | None = None
) -> _Solution | _DeadEnd:
    """Greedy, without backtracking: part after part, then the master, on a node of the gang if possible."""
    trial = free.copy()
    placed: list[tuple[Part, list[int]]] = []
    used: list[int] = []
    for part, count in wanted:
        own_nodes = _rows_mask(used, arrays) if used else None
        rows = _rows_for(part, count, arrays, trial, demand.avoid, within, own_nodes)
        if len(rows) < count:
            for row in rows:
                trial[row] -= part.cost
            return _DeadEnd(part, len(rows), trial)
        assert part.cost is not None
        for row in rows:
            trial[row] -= part.cost
        placed.append((part, rows))
        used += rows
    if demand.master is not None:
        own_nodes = _rows_mask(used, arrays)
        rows = _rows_for(demand.master, 1, arrays, trial, (), own_nodes) or _rows_for(demand.master, 1, arrays, trial, (), within)
        if not rows or demand.master.cost is None:
            return _DeadEnd(demand.master, 0, trial)
        trial[rows[0]] -= demand.master.cost
        placed.append((demand.master, rows))
    return _Solution(placed, trial)


def _rows_mask(rows: Iterable[int], arrays: NodeArrays) -> Mask:
    mask = np.zeros(len(arrays.nodes), dtype=np.bool_)
    mask[list(rows)] = True
    return mask


def _colocated(wanted: PartCounts, demand: Demand, arrays: NodeArrays, free: Amounts) -> _Solution | None:
    """A gang of unlike pods on the best-fitting node that takes all of it, else in one rack, else in one zone; else None."""
    costs = [part.cost * count for part, count in wanted if part.cost is not None]
    if len(costs) < len(wanted) or not len(arrays.nodes):
        return None
    whole = np.sum(costs, axis=0)
    first = next((part for part, _ in wanted if part.wants_gpu), wanted[0][0])
    roomy = (free >= whole)[:, whole > 0].all(axis=1) & ~_rows_mask(_rows_of(demand.avoid, arrays), arrays)
    each = [_avoid_gpu_nodes(part, count, arrays, _capacity(part, arrays, free)) for part, count in wanted]
    rows = np.nonzero(roomy & np.logical_and.reduce([one > 0 for one in each]))[0]
    if len(rows):
        outcome = _in_order(wanted, demand, arrays, free, _rows_mask([_best_fit_row(rows, first, arrays, free)], arrays))
        if isinstance(outcome, _Solution):
            return outcome
    for groups in (arrays.racks, arrays.zones):
        for within in _sufficient_groups(wanted, each, groups):
            outcome = _in_order(wanted, demand, arrays, free, within)
            if isinstance(outcome, _Solution):
                return outcome
    return None


def _sufficient_groups(wanted: PartCounts, each: Sequence[npt.NDArray[np.int64]], groups: npt.NDArray[np.int64]) -> Iterator[Mask]:
    """Masks of the racks (or zones) with room for each part alone; those with least room for the first part come first."""
    labelled = groups >= 0
    if not labelled.any():
        return
    sums = [
        np.bincount(groups[labelled], weights=np.minimum(takes[labelled], count))
        for takes, (_, count) in zip(each, wanted, strict=True)
    ]
    enough = np.logical_and.reduce([sum_ >= count for sum_, (_, count) in zip(sums, wanted, strict=True)])
    chosen = sorted(np.nonzero(enough)[0].tolist(), key=lambda group: (float(sums[0][group]), group))
    for group in chosen[:MAX_GROUPS_TRIED]:
        yield groups == group


def _in_other_orders(
    wanted: PartCounts, failed: _DeadEnd, demand: Demand, arrays: NodeArrays, free: Amounts
) -> tuple[_Solution | None, bool]:
    """Place the gang with the failed part moved to the front, again and again, then by exact search.

    Returns the solution or None, and whether that is certain. Fails fast if one part alone, or the sum of all, has too little room.
    """
    master = demand.master
    everything = [*wanted, (master, 1)] if master is not None else list(wanted)
    costs = [part.cost * count for part, count in everything if part.cost is not None]
    if len(costs) < len(everything) or (np.sum(costs, axis=0) > np.maximum(free, 0).sum(axis=0)).any():
        return None, True
    if any(int(np.minimum(_capacity(part, arrays, free), count).sum()) < count for part, count in everything):
        return None, True
    order = list(wanted)
    for _ in range(len(order)):
        place = next((number for number, (part, _) in enumerate(order) if part is failed.part), 0)
        if place == 0:
            break
        order.insert(0, order.pop(place))
        outcome = _in_order(order, demand, arrays, free)
        if isinstance(outcome, _Solution):
            return outcome, True
        failed = outcome
    if sum(count for _, count in everything) > MAX_PODS_SEARCHED:
        return None, False
    return _exact_search(everything, arrays, free)


def _exact_search(everything: PartCounts, arrays: NodeArrays, free: Amounts) -> tuple[_Solution | None, bool]:
    parts = [part for part, _ in everything]
    costs = np.array([part.cost for part in parts], dtype=np.int64)
    takes = np.array([_capacity(part, arrays, free) > 0 for part in parts])
    bins = Bins.of(costs, [count for _, count in everything], free, takes)
    found, is_certain = pack(bins)
    if found is None:
        return None, is_certain
    trial = free.copy()
    for part, rows in zip(parts, found, strict=True):
        for row in rows:
            trial[row] -= part.cost
    return _Solution(list(zip(parts, found, strict=True)), trial), True


def _rows_of(names: Iterable[str], arrays: NodeArrays) -> list[int]:
    return [arrays.index[name] for name in names if name in arrays.index]


def _capacity(part: Part, arrays: NodeArrays, free: Amounts, within: Mask | None = None) -> npt.NDArray[np.int64]:
    """How many pods of the part each node has room for, only nodes of ``within`` if given."""
    if part.cost is None or not len(free):
        return np.zeros(len(free), dtype=np.int64)
    asked = part.cost > 0
    each: npt.NDArray[np.int64]
    if asked.any():
        each = np.maximum((free[:, asked] // part.cost[asked]).min(axis=1), 0)
    else:
        each = np.full(len(free), _UNBOUNDED)
    takes = arrays.takes(part.terms)
    each[~takes if within is None else ~(takes & within)] = 0
    return each


def _rows_for(
    part: Part,
    count: int,
    arrays: NodeArrays,
    free: Amounts,
    avoid: tuple[str, ...],
    within: Mask | None = None,
    preferred: Mask | None = None,
) -> list[int]:
    """Node rows for ``count`` pods, fewer if not all fit. Of ``within`` only; of ``preferred`` if these have room for all."""
    each = _capacity(part, arrays, free, within)
    if avoid:
        kept = each.copy()
        kept[_rows_of(avoid, arrays)] = 0
        if kept.sum() >= count:
            each = kept
    each = _avoid_gpu_nodes(part, count, arrays, each)
    if preferred is not None:
        kept = np.where(preferred, each, 0)
        if kept.sum() >= count:
            each = kept
    if each.sum() < count:
        return [row for row in np.nonzero(each)[0].tolist() for _ in range(int(each[row]))]
    whole = np.nonzero(each >= count)[0]
    if len(whole):
        return [_best_fit_row(whole, part, arrays, free)] * count
    each = _within_one_group(each, count, arrays)
    rows: list[int] = []
    while len(rows) < count:
        left = count - len(rows)
        enough = np.nonzero(each >= left)[0]
        if len(enough):
            rows += [_best_fit_row(enough, part, arrays, free)] * left
            break
        most = int(each.max())
        row = _best_fit_row(np.nonzero(each == most)[0], part, arrays, free)
        rows += [row] * most
        each[row] = 0
    return rows


def _avoid_gpu_nodes(part: Part, count: int, arrays: NodeArrays, each: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Without the GPU nodes, for pods without GPU, if the other nodes have room for all of them."""
    if arrays.gpu is None or part.wants_gpu:
        return each
    plain = np.where(arrays.allocatable[:, arrays.gpu] > 0, 0, each)
    return plain if plain.sum() >= count else each


def _within_one_group(each: npt.NDArray[np.int64], count: int, arrays: NodeArrays) -> npt.NDArray[np.int64]:
    """Only the nodes of the fullest rack that takes all pods, else of the fullest such zone, else all nodes."""
    for groups in (arrays.racks, arrays.zones):
        labelled = groups >= 0
        if not labelled.any():
            continue
        sums = np.bincount(groups[labelled], weights=np.minimum(each[labelled], count)).astype(np.int64)
        enough = np.nonzero(sums >= count)[0]
        if len(enough):
            chosen = enough[np.argmin(sums[enough])]
            return np.where(groups == chosen, each, 0)
    return each.copy()


def _best_fit_row(rows: npt.NDArray[np.intp], part: Part, arrays: NodeArrays, free: Amounts) -> int:
    """The row, among ``rows``, of the node with least left over."""
    if len(rows) > 1 and arrays.gpu is not None:
        # A pod without GPU takes the node with fewest GPUs, which others miss least.
        values = free[rows, arrays.gpu] if part.wants_gpu else arrays.allocatable[rows, arrays.gpu]
        rows = rows[values == values.min()]
    if len(rows) > 1:
        values = free[rows, arrays.cpu]
        rows = rows[values == values.min()]
    return int(rows[0])


def misfit_of(part: Part, arrays: NodeArrays, free: Amounts, placed: int, is_certain: bool = True) -> Misfit:
    takes = np.nonzero(arrays.takes(part.terms))[0] if len(arrays.nodes) else np.zeros(0, dtype=np.intp)
    rows = takes if len(takes) else np.arange(len(arrays.nodes))
    asked = part.pod_set.resources if part.cost is None else arrays.amounts(part.cost)
    if not len(rows):
        return Misfit(part.pod_set, placed, None, asked, is_certain)
    if part.cost is None:
        best = int(rows[0])
        return Misfit(part.pod_set, placed, arrays.nodes[best].name, asked.short_of(arrays.amounts(free[best])), is_certain)
    lack = np.maximum(part.cost - free[rows], 0) / np.maximum(arrays.allocatable.sum(axis=0), 1)
    best = int(rows[np.argmin(lack.max(axis=1))])
    short = arrays.amounts(np.maximum(part.cost - free[best], 0))
    return Misfit(part.pod_set, placed, arrays.nodes[best].name, short, is_certain)


def surely_fits_empty(demand: Demand, arrays: NodeArrays, counts: Counts | None) -> bool:
    """Whether a gang of equal pods certainly fits on the empty cluster, by the classes of its nodes; False for unlike pods."""
    if len(demand.parts) != 1:
        return False
    (part,) = demand.parts
    count = (counts or {}).get(part.pod_set.role, part.pod_set.count)
    if demand.master is not None and _pods_when_empty(demand.master, 1, arrays) <= count:
        return False  # With room for more masters than there are pods, one place is left wherever the pods go.
    return _pods_when_empty(part, count, arrays) >= count


def _pods_when_empty(part: Part, most: int, arrays: NodeArrays) -> int:
    """For how many pods the empty nodes have room, counting at most ``most`` per node."""
    if part.cost is None or not arrays.nodes:
        return 0
    node_classes, numbers = arrays.node_classes(part.terms)
    asked = part.cost > 0
    each = (node_classes[:, asked] // part.cost[asked]).min(axis=1) if asked.any() else np.full(len(node_classes), most)
    return int(np.minimum(each, most) @ numbers)


def may_fit(demand: Demand, arrays: NodeArrays, free: Amounts) -> bool:
    """Whether each part alone, at its minimum, has room: a fast, necessary condition for a fit."""
    for part in demand.parts:
        least = part.pod_set.count if part.pod_set.min_count is None else part.pod_set.min_count
        if int(np.minimum(_capacity(part, arrays, free), least).sum()) < least:
            return False
    return True
