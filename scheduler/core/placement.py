"""Where every pod of a gang goes: on nodes, all or nothing, never by sums per resource."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tuttilab.scheduler.core.snapshot import Room
from tuttilab.scheduler.events import Placement
from tuttilab.scheduler.model import MASTER, Cluster, Job, Node, PodSet
from tuttilab.scheduler.resources import GPU, Resources, total


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


def charge_of(job: Job, cluster: Cluster) -> Resources:
    """What quota counts for the whole gang on this cluster: every pod, sidecars and master included."""
    parts = [pod_cost(job, pod_set, cluster) * pod_set.count for pod_set in job.gang.pod_sets]
    return total([*parts, cluster.master_cost] if has_master(job) else parts)


def allowed_clusters(job: Job, clusters: Mapping[str, Cluster]) -> list[Cluster]:
    """The clusters a gang may use: the one it names, else all; only those that answer."""
    return [c for c in clusters.values() if job.cluster in (None, c.name) and c.unreachable_since is None]


def takes(node: Node, pod_set: PodSet) -> bool:
    """Whether labels and taints let the pod on the node, room aside."""
    labelled = all(node.labels.get(key) == value for key, value in pod_set.node_labels.items())
    return labelled and not any(taint.effect in ("NoSchedule", "NoExecute") for taint in node.taints)


def _size(amount: Resources, site: Resources) -> tuple[int, float]:
    return (amount[GPU], amount.dominant_share(site))


def place(job: Job, cluster: Cluster, room: Room) -> Fit | Misfit:
    """Take room for every pod of the gang on this cluster, or leave ``room`` as it was.

    Largest shapes first; each pod goes where least is left over: CPU-only pods keep off GPU nodes while others have room, and the
    node with the fewest free GPUs, then the fewest free cores, is filled first (best fit). Ties by name, so the same input gives
    the same answer.
    """
    nodes = sorted((node for (name, _), node in room.nodes.items() if name == cluster.name), key=lambda node: node.name)
    site = total(node.allocatable for node in nodes)
    undos: list[Callable[[], None]] = []
    placed: list[Placement] = []
    first_rank: dict[int, int] = {}
    rank = 0
    for index, pod_set in enumerate(job.gang.pod_sets):
        first_rank[index] = rank
        rank += pod_set.count
    order = sorted(
        range(len(job.gang.pod_sets)),
        key=lambda i: (_size(job.gang.pod_sets[i].resources, site), -i),
        reverse=True,
    )
    for index in order:
        pod_set = job.gang.pod_sets[index]
        cost = pod_cost(job, pod_set, cluster)
        for number in range(pod_set.count):
            node = _best_node(pod_set, cost, cluster.name, nodes, room, job.avoid_nodes)
            if node is None:
                misfit = _misfit(pod_set, cost, cluster.name, nodes, room, number)
                for undo in reversed(undos):
                    undo()
                return misfit
            undos.append(room.take((cluster.name, node.name), cost))
            placed.append(Placement(pod_set.role, first_rank[index] + number, node.name))
    placed.sort(key=lambda placement: placement.rank)
    if has_master(job):
        master = PodSet(MASTER, 1, cluster.master_cost)
        own = [node for node in nodes if node.name in {p.node for p in placed}]
        node = _best_node(master, cluster.master_cost, cluster.name, own, room, ()) or _best_node(
            master, cluster.master_cost, cluster.name, nodes, room, ()
        )
        if node is None:
            misfit = _misfit(master, cluster.master_cost, cluster.name, nodes, room, 0)
            for undo in reversed(undos):
                undo()
            return misfit
        room.take((cluster.name, node.name), cluster.master_cost)
        placed.insert(0, Placement(MASTER, -1, node.name))
    return Fit(cluster.name, tuple(placed))


def _best_node(
    pod_set: PodSet, cost: Resources, cluster: str, nodes: Iterable[Node], room: Room, avoid: tuple[str, ...]
) -> Node | None:
    fitting = [node for node in nodes if takes(node, pod_set) and cost.fits(room.free[cluster, node.name])]
    wants_gpu = cost[GPU] > 0

    def rank(node: Node) -> tuple[bool, bool, int, int, str]:
        free = room.free[cluster, node.name]
        is_gpu_node = node.allocatable[GPU] > 0
        return (
            node.name in avoid,
            is_gpu_node and not wants_gpu,
            free[GPU] if wants_gpu else 0,
            free["cpu"],
            node.name,
        )

    return min(fitting, key=rank, default=None)


def _misfit(pod_set: PodSet, cost: Resources, cluster: str, nodes: list[Node], room: Room, placed: int) -> Misfit:
    candidates = [node for node in nodes if takes(node, pod_set)] or nodes
    site = total(node.allocatable for node in nodes)

    def lack(node: Node) -> tuple[float, str]:
        return (cost.short_of(room.free[cluster, node.name]).dominant_share(site), node.name)

    closest = min(candidates, key=lack, default=None)
    short = cost.short_of(room.free[cluster, closest.name]) if closest else cost
    return Misfit(pod_set, placed, closest.name if closest else None, short)


def never_fits(job: Job, clusters: Iterable[Cluster]) -> Misfit | None:
    """The misfit when some pod of the gang is larger than every node of every allowed cluster, even empty; else None."""
    worst: Misfit | None = None
    for cluster in clusters:
        room = Room.of({cluster.name: cluster}, ())
        nodes = [node for (name, _), node in room.nodes.items() if name == cluster.name]
        misfit = None
        for pod_set in job.gang.pod_sets:
            cost = pod_cost(job, pod_set, cluster)
            if _best_node(pod_set, cost, cluster.name, nodes, room, ()) is None:
                misfit = _misfit(pod_set, cost, cluster.name, nodes, room, 0)
                break
        if misfit is None:
            return None
        if nodes:
            worst = worst or misfit
    return worst
