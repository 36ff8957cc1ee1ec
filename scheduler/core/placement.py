"""Where every pod of a gang goes: on nodes, all or nothing, never by sums per resource."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.layout import Amounts, Layout, Mask, Terms, layout_of, terms_of
from tuttilab.scheduler.core.packing import Bins, pack
from tuttilab.scheduler.core.snapshot import Room
from tuttilab.scheduler.events import Placement
from tuttilab.scheduler.model import MASTER, Cluster, Job, PodSet, Queue
from tuttilab.scheduler.resources import GPU, NOTHING, Resources, total

_MOST: Final = 1 << 40
MOST_PODS_SEARCHED: Final = 48
"""Larger gangs of unlike pods are placed in a few orders of their sets only."""
MOST_PLACES_TRIED: Final = 4
"""Racks, and zones, into which a gang of unlike pods is tried as a whole."""
Counts = Mapping[str, int]
"""Pods by role, where fewer than asked for are placed."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A gang's places on one cluster, the master's first if it has one."""

    cluster: str
    placements: tuple[Placement, ...]


@dataclass(slots=True)
class Misfit:
    """The first pod shape that found no node: how many of its pods did, which node came closest and what it lacks.

    Of those refused by a sieve, all but the shape is filled in before the room changes.
    """

    pod_set: PodSet
    placed: int
    closest: str | None
    short: Resources
    is_certain: bool = True
    """Whether there is no way to place the gang; else none was found."""

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


def named_clusters(job: Job) -> set[str]:
    """The clusters that the job or one of its pod sets asks for by name: a gang runs on one, so two of them are none."""
    names = {pod_set.cluster for pod_set in job.gang.pod_sets}
    names.add(job.cluster)
    return {name for name in names if name is not None}


def possible_clusters(job: Job, path: Iterable[Queue]) -> set[str] | None:
    """The names of the clusters that the job and its queues leave, whether or not they are there; None for any."""
    bounds = [{name} for name in named_clusters(job)] + [set(queue.clusters) for queue in path if queue.clusters]
    return set.intersection(*bounds) if bounds else None


def permitted_clusters(job: Job, clusters: Mapping[str, Cluster], path: Iterable[Queue] = ()) -> list[Cluster]:
    """The clusters that the job, each of its pod sets and every queue on its ``path`` allow, whether or not they answer."""
    possible = possible_clusters(job, path)
    return [cluster for cluster in clusters.values() if possible is None or cluster.name in possible]


def allowed_clusters(job: Job, clusters: Mapping[str, Cluster], path: Iterable[Queue] = ()) -> list[Cluster]:
    """The clusters that answer and that the job, each of its pod sets and every queue on its ``path`` allow."""
    return [cluster for cluster in permitted_clusters(job, clusters, path) if cluster.unreachable_since is None]


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
    """What a gang asks of one cluster, in the order in which its parts are placed: those that fewest nodes take, largest pods."""

    parts: tuple[Part, ...]
    master: Part | None
    avoid: tuple[str, ...]


Wanted = Sequence[tuple[Part, int]]
"""Parts and how many pods of each, in the order in which they are placed."""


def demand_of(job: Job, layout: Layout) -> Demand:
    cluster = layout.cluster
    parts: list[Part] = []
    rank = 0
    for pod_set in job.gang.pod_sets:
        parts.append(Part.of(pod_set, rank, pod_cost(job, pod_set, cluster), layout))
        rank += pod_set.count
    parts.sort(key=lambda part: (part.pod_set.resources[GPU], part.pod_set.resources.dominant_share(layout.total)), reverse=True)
    if len(parts) > 1:
        # Whoever may go to few nodes goes before those that would fill just these.
        parts.sort(key=lambda part: int(np.count_nonzero(_capacity(part, layout, layout.allocatable))))
    master = Part.of(PodSet(MASTER, 1, cluster.master_cost), -1, cluster.master_cost, layout) if has_master(job) else None
    return Demand(tuple(parts), master, job.avoid_nodes)


def place(job: Job, cluster: Cluster, room: Room, counts: Counts | None = None) -> Fit | Misfit:
    """Take room for every pod of the gang on this cluster, or leave ``room`` as it was. See `place_demand`."""
    layout = room.layouts[cluster.name]
    return place_demand(demand_of(job, layout), layout, room.free[cluster.name], counts)


def place_demand(demand: Demand, layout: Layout, free: Amounts, counts: Counts | None = None, tells: bool = True) -> Fit | Misfit:
    """Most constrained, then largest pods first. Equal pods go into one node if one takes them all, else one rack, else one zone.

    So does a gang of unlike pods as a whole; where one order of its sets finds no way, others are tried, and then all there are.
    Pods without GPU keep off GPU nodes while others have room. One pod goes where least is left over (fewest free GPUs, then
    fewest free cores); many pods fill the nodes that take most of them. Ties by name, so the same input gives the same answer.
    ``free`` is changed only by a fit. Without ``tells`` a misfit does not look for the node that comes closest.
    """
    given = counts or {}
    wanted = [(part, given.get(part.pod_set.role, part.pod_set.count)) for part in demand.parts]
    found: _Way | _Stuck | None = _as_a_whole(wanted, demand, layout, free) if len(wanted) > 1 else None
    if found is None:
        found = _in_order(wanted, demand, layout, free)
    is_certain = True
    if isinstance(found, _Stuck) and (len(wanted) > 1 or found.part is demand.master):
        other, is_certain = _otherwise(wanted, found, demand, layout, free)
        found = found if other is None else other
    if isinstance(found, _Stuck):
        if not tells:
            return Misfit(found.part.pod_set, found.placed, None, NOTHING, is_certain)
        return misfit_of(found.part, layout, found.free, found.placed, is_certain)
    placed = [
        Placement(part.pod_set.role, part.first_rank + offset, layout.nodes[row].name)
        for part, rows in found.rows
        for offset, row in enumerate(rows)
    ]
    placed.sort(key=lambda placement: placement.rank)
    free[:] = found.free
    return Fit(layout.cluster.name, tuple(placed))


@dataclass(frozen=True, slots=True)
class _Way:
    """A node's row for every pod, the master's among them, and what is free then."""

    rows: list[tuple[Part, list[int]]]
    free: Amounts


@dataclass(frozen=True, slots=True)
class _Stuck:
    """The part that found no room for all of its pods, for how many it did, and what was free for the next of them."""

    part: Part
    placed: int
    free: Amounts


def _in_order(wanted: Wanted, demand: Demand, layout: Layout, free: Amounts, within: Mask | None = None) -> _Way | _Stuck:
    """Part after part, the master last and with the others if it can: each where it stands best, none is moved again."""
    trial = free.copy()
    ways: list[tuple[Part, list[int]]] = []
    used: list[int] = []
    for part, count in wanted:
        own = _rows_mask(used, layout) if used else None
        rows = _rows_for(part, count, layout, trial, demand.avoid, within, own)
        if len(rows) < count:
            for row in rows:
                trial[row] -= part.cost
            return _Stuck(part, len(rows), trial)
        assert part.cost is not None
        for row in rows:
            trial[row] -= part.cost
        ways.append((part, rows))
        used += rows
    if demand.master is not None:
        own = _rows_mask(used, layout)
        rows = _rows_for(demand.master, 1, layout, trial, (), own) or _rows_for(demand.master, 1, layout, trial, (), within)
        if not rows or demand.master.cost is None:
            return _Stuck(demand.master, 0, trial)
        trial[rows[0]] -= demand.master.cost
        ways.append((demand.master, rows))
    return _Way(ways, trial)


def _rows_mask(rows: Iterable[int], layout: Layout) -> Mask:
    mask = np.zeros(len(layout.nodes), dtype=np.bool_)
    mask[list(rows)] = True
    return mask


def _as_a_whole(wanted: Wanted, demand: Demand, layout: Layout, free: Amounts) -> _Way | None:
    """The gang of unlike pods on the tightest node that takes all of it, else in one rack, else in one zone; None to spread it."""
    costs = [part.cost * count for part, count in wanted if part.cost is not None]
    if len(costs) < len(wanted) or not len(layout.nodes):
        return None
    whole = np.sum(costs, axis=0)
    first = next((part for part, _ in wanted if part.wants_gpu), wanted[0][0])
    roomy = (free >= whole)[:, whole > 0].all(axis=1) & ~_rows_mask(_rows_of(demand.avoid, layout), layout)
    each = [_off_gpus(part, count, layout, _capacity(part, layout, free)) for part, count in wanted]
    rows = np.nonzero(roomy & np.logical_and.reduce([one > 0 for one in each]))[0]
    if len(rows):
        way = _in_order(wanted, demand, layout, free, _rows_mask([_tightest(rows, first, layout, free)], layout))
        if isinstance(way, _Way):
            return way
    for groups in (layout.racks, layout.zones):
        for within in _roomiest_last(wanted, each, groups):
            way = _in_order(wanted, demand, layout, free, within)
            if isinstance(way, _Way):
                return way
    return None


def _roomiest_last(wanted: Wanted, each: Sequence[npt.NDArray[np.int64]], groups: npt.NDArray[np.int64]) -> Iterator[Mask]:
    """The racks (or zones) that take each part alone, those with least room for the first part first."""
    labelled = groups >= 0
    if not labelled.any():
        return
    sums = [
        np.bincount(groups[labelled], weights=np.minimum(takes[labelled], count))
        for takes, (_, count) in zip(each, wanted, strict=True)
    ]
    enough = np.logical_and.reduce([sum_ >= count for sum_, (_, count) in zip(sums, wanted, strict=True)])
    chosen = sorted(np.nonzero(enough)[0].tolist(), key=lambda group: (float(sums[0][group]), group))
    for group in chosen[:MOST_PLACES_TRIED]:
        yield groups == group


def _otherwise(wanted: Wanted, stuck: _Stuck, demand: Demand, layout: Layout, free: Amounts) -> tuple[_Way | None, bool]:
    """Another way to place the gang, and whether, without one, there is none: first the part that got stuck goes first, and so on.

    Quick to say no: each part alone and all of them together have to fit.
    """
    master = demand.master
    everything = [*wanted, (master, 1)] if master is not None else list(wanted)
    costs = [part.cost * count for part, count in everything if part.cost is not None]
    if len(costs) < len(everything) or (np.sum(costs, axis=0) > np.maximum(free, 0).sum(axis=0)).any():
        return None, True
    if any(int(np.minimum(_capacity(part, layout, free), count).sum()) < count for part, count in everything):
        return None, True
    order = list(wanted)
    for _ in range(len(order)):
        place = next((number for number, (part, _) in enumerate(order) if part is stuck.part), 0)
        if place == 0:
            break
        order.insert(0, order.pop(place))
        way = _in_order(order, demand, layout, free)
        if isinstance(way, _Way):
            return way, True
        stuck = way
    if sum(count for _, count in everything) > MOST_PODS_SEARCHED:
        return None, False
    return _search(everything, layout, free)


def _search(everything: Wanted, layout: Layout, free: Amounts) -> tuple[_Way | None, bool]:
    parts = [part for part, _ in everything]
    costs = np.array([part.cost for part in parts], dtype=np.int64)
    takes = np.array([_capacity(part, layout, free) > 0 for part in parts])
    bins = Bins.of(costs, [count for _, count in everything], free, takes)
    found, is_certain = pack(bins)
    if found is None:
        return None, is_certain
    trial = free.copy()
    for part, rows in zip(parts, found, strict=True):
        for row in rows:
            trial[row] -= part.cost
    return _Way(list(zip(parts, found, strict=True)), trial), True


def _rows_of(names: Iterable[str], layout: Layout) -> list[int]:
    return [layout.index[name] for name in names if name in layout.index]


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


def _rows_for(
    part: Part,
    count: int,
    layout: Layout,
    free: Amounts,
    avoid: tuple[str, ...],
    own: Mask | None = None,
    beside: Mask | None = None,
) -> list[int]:
    """A node's row for each of ``count`` pods, of ``own`` only, ``beside`` the others if these have room; fewer if not all fit."""
    each = _capacity(part, layout, free, own)
    if avoid:
        kept = each.copy()
        kept[_rows_of(avoid, layout)] = 0
        if kept.sum() >= count:
            each = kept
    each = _off_gpus(part, count, layout, each)
    if beside is not None:
        kept = np.where(beside, each, 0)
        if kept.sum() >= count:
            each = kept
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


def _off_gpus(part: Part, count: int, layout: Layout, each: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pods without GPU have a place of their own off the GPU nodes, as long as there is room for them."""
    if layout.gpu is None or part.wants_gpu:
        return each
    plain = np.where(layout.allocatable[:, layout.gpu] > 0, 0, each)
    return plain if plain.sum() >= count else each


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


def misfit_of(part: Part, layout: Layout, free: Amounts, placed: int, is_certain: bool = True) -> Misfit:
    takes = np.nonzero(layout.takes(part.terms))[0] if len(layout.nodes) else np.zeros(0, dtype=np.intp)
    rows = takes if len(takes) else np.arange(len(layout.nodes))
    asked = part.pod_set.resources if part.cost is None else layout.amounts(part.cost)
    if not len(rows):
        return Misfit(part.pod_set, placed, None, asked, is_certain)
    if part.cost is None:
        best = int(rows[0])
        return Misfit(part.pod_set, placed, layout.nodes[best].name, asked.short_of(layout.amounts(free[best])), is_certain)
    lack = np.maximum(part.cost - free[rows], 0) / np.maximum(layout.allocatable.sum(axis=0), 1)
    best = int(rows[np.argmin(lack.max(axis=1))])
    short = layout.amounts(np.maximum(part.cost - free[best], 0))
    return Misfit(part.pod_set, placed, layout.nodes[best].name, short, is_certain)


def never_fits(job: Job, clusters: Iterable[Cluster]) -> Misfit | None:
    """The misfit when some pod of the gang is larger than every node of every allowed cluster, even empty; else None."""
    worst: Misfit | None = None
    for cluster in clusters:
        layout = layout_of(cluster)
        parts = demand_of(job, layout).parts
        misfit = next(
            (misfit_of(p, layout, layout.allocatable, 0) for p in parts if not _capacity(p, layout, layout.allocatable).any()), None
        )
        if misfit is None:
            return None
        if layout.nodes:
            worst = worst or misfit
    return worst


def surely_fits_empty(demand: Demand, layout: Layout, counts: Counts | None) -> bool:
    """Whether a gang of equal pods has room on the empty cluster, told by the kinds of its nodes; of others it is not known."""
    if len(demand.parts) != 1:
        return False
    (part,) = demand.parts
    count = (counts or {}).get(part.pod_set.role, part.pod_set.count)
    if demand.master is not None and _pods_when_empty(demand.master, 1, layout) <= count:
        return False  # With more than these, one is left to the master wherever the pods are.
    return _pods_when_empty(part, count, layout) >= count


def _pods_when_empty(part: Part, most: int, layout: Layout) -> int:
    """For how many pods the empty nodes have room, counting no more than ``most`` on each."""
    if part.cost is None or not layout.nodes:
        return 0
    kinds, numbers = layout.kinds(part.terms)
    asked = part.cost > 0
    each = (kinds[:, asked] // part.cost[asked]).min(axis=1) if asked.any() else np.full(len(kinds), most)
    return int(np.minimum(each, most) @ numbers)


def fits_somewhere(demand: Demand, layout: Layout, free: Amounts) -> bool:
    """Whether each part alone has room for its pods: necessary for a fit, and quick."""
    for part in demand.parts:
        least = part.pod_set.count if part.pod_set.min_count is None else part.pod_set.min_count
        if int(np.minimum(_capacity(part, layout, free), least).sum()) < least:
            return False
    return True
