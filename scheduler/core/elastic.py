"""Resizing of elastic gangs: they grow while no gang waits for room, and shrink for the first gang that does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from tuttilab.scheduler.core.backfill import Hold, QuotaHold
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.holds import Holds
from tuttilab.scheduler.core.placement.fit import Demand, Fit, Misfit, Part, place_demand, pod_cost
from tuttilab.scheduler.core.placement.node_arrays import Amounts
from tuttilab.scheduler.core.placement.room import NodeKey, Room
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.events import GangGrown, GangPreempted, GangShrunk, Placement
from tuttilab.scheduler.domain.model import Cluster, Why
from tuttilab.scheduler.domain.resources import Resources


def shrinks(
    working_set: WorkingSet, holds: Holds, stopped: Iterable[GangPreempted] = (), given_back: Iterable[GangShrunk] = ()
) -> tuple[GangShrunk, ...]:
    """Spare pods to give back, last ranks first, so that the gang with a hold on room or on quota fits; none where it would not.

    ``stopped`` and ``given_back`` are what preemption stops in this cycle, which may be enough.
    """
    stopping = {each.job_id for each in stopped}
    leaving = {pod for each in given_back for pod in each.pods}
    chosen: list[GangShrunk] = []
    for hold in holds.on_room.values():
        chosen += _for_hold(working_set, hold, stopping, leaving)
    leaving |= {pod for each in chosen for pod in each.pods}
    for queue, kept in holds.on_quota.items():
        chosen += _for_quota(working_set, queue, kept, stopping, leaving)
    return tuple(chosen)


def _for_hold(working_set: WorkingSet, hold: Hold, stopping: Set[str], leaving: Set[str]) -> list[GangShrunk]:
    candidate = next(c for c in working_set.lines.candidates() if c.job is hold.job)
    if candidate.cause is None or candidate.cause.why is not Why.NO_ROOM:
        return []
    arrays = working_set.room.node_arrays[hold.cluster]
    free = working_set.room.free[hold.cluster].copy()
    demand, counts = candidate.shape.demand(arrays), candidate.shape.smallest(arrays.cluster)[0]
    here = [r for r in working_set.running if r.cluster == hold.cluster and (r.spare or r.releasing or _is_to_stop(r, stopping))]
    is_any_leaving = False
    for runner in here:
        for (_, node), amount in _releases(runner, stopping, leaving):
            _give(free, arrays.index.get(node), arrays.vector(amount))
            is_any_leaving = True
    if is_any_leaving and isinstance(place_demand(demand, arrays, free.copy(), counts), Fit):
        return []  # What stops already is enough.
    taken: dict[str, tuple[Running, list[str]]] = {}
    for runner in here:
        for name, (_, node), amount in () if _is_to_stop(runner, stopping) else runner.spare:
            if name in leaving:
                continue
            _give(free, arrays.index.get(node), arrays.vector(amount))
            taken.setdefault(runner.job_id, (runner, []))[1].append(name)
            if isinstance(place_demand(demand, arrays, free.copy(), counts), Fit):
                reason = "given back to a job that waits for room"
                return [GangShrunk(r.job_id, r.attempt, tuple(names), reason) for r, names in taken.values()]
    return []


def _for_quota(working_set: WorkingSet, queue: str, kept: QuotaHold, stopping: Set[str], leaving: set[str]) -> list[GangShrunk]:
    """Shrinks gangs that count against the limit of ``queue``; adds the chosen pods to ``leaving``."""
    candidate = next(c for c in working_set.lines.candidates() if c.job is kept.job)
    below = working_set.queues_below(queue)
    if candidate.cause is None or candidate.cause.why is not Why.QUOTA:
        return []
    if not any(runner.spare and runner.queue in below for runner in working_set.running):
        return []
    room, ledger = working_set.room.copy(), working_set.ledger.copy()
    for runner in working_set.running:
        if _is_to_stop(runner, stopping):
            ledger.remove(runner.queue, runner.charge, runner.pods)
        for place, amount in _releases(runner, stopping, leaving):
            room.give(place, amount)
            if not _is_to_stop(runner, stopping):
                ledger.remove(runner.queue, amount, 1, 0)
    if _would_start(working_set, candidate, room, ledger):
        return []  # What stops already is enough.
    taken: dict[str, tuple[Running, list[str]]] = {}
    for runner in working_set.running:
        for name, place, amount in runner.spare if runner.queue in below and not _is_to_stop(runner, stopping) else ():
            if name in leaving:
                continue
            room.give(place, amount)
            ledger.remove(runner.queue, amount, 1, 0)
            taken.setdefault(runner.job_id, (runner, []))[1].append(name)
            if _would_start(working_set, candidate, room, ledger):
                leaving |= {name for _, names in taken.values() for name in names}
                reason = f"given back to a job that waits for quota of queue {queue}"
                return [GangShrunk(r.job_id, r.attempt, tuple(names), reason) for r, names in taken.values()]
    return []


def _would_start(working_set: WorkingSet, candidate: Candidate, room: Room, ledger: Ledger) -> bool:
    """Whether the gang, at its smallest, would have quota and room."""
    job, shape = candidate.job, candidate.shape
    for cluster in shape.clusters:
        counts, charge, pods = shape.smallest(cluster)
        if ledger.shortage(job.queue, charge, pods, job.is_preemptible) is None:
            arrays = working_set.room.node_arrays[cluster.name]
            fit = place_demand(shape.demand(arrays), arrays, room.free[cluster.name].copy(), counts)
            if isinstance(fit, Fit):
                return True
    return False


def _is_to_stop(runner: Running, stopping: Set[str]) -> bool:
    return runner.is_stopping or runner.job_id in stopping


def _releases(runner: Running, stopping: Set[str], leaving: Set[str]) -> Iterable[tuple[NodeKey, Resources]]:
    """What it holds and releases without another decision: everything, or the pods that are stopping."""
    if _is_to_stop(runner, stopping):
        return runner.allocations
    pods = (*runner.releasing, *(spare for spare in runner.spare if spare[0] in leaving))
    return [(place, amount) for _, place, amount in pods]


def _give(free: Amounts, row: int | None, amount: Amounts | None) -> None:
    if row is not None and amount is not None:
        free[row] += amount


def growths(working_set: WorkingSet, holds: Holds) -> tuple[GangGrown, ...]:
    """More pods for running gangs that lack some, as far as quota and room go; none where another gang waits for either."""
    growable = [runner for runner in working_set.running if _may_grow(working_set, runner) and runner.grows_at <= working_set.now]
    return tuple(_growths(working_set, holds, growable)) if growable else ()


def _growths(working_set: WorkingSet, holds: Holds, growable: Iterable[Running]) -> Iterator[GangGrown]:
    waiting = [c for c in working_set.lines.candidates() if c.cause is not None and working_set.is_ever_allowed(c)]
    # Gangs wait for the limits of these queues, so no gang below them grows.
    short = {c.cause.shortage.queue for c in waiting if c.cause is not None and c.cause.shortage is not None}
    # Gangs wait for room on the clusters where they fit when those are empty. With no such cluster they wait for nothing here.
    possible = {
        (c.shape, c.job.queue): [cluster for cluster in c.shape.clusters if working_set.misfit_when_empty(c.shape, cluster) is None]
        for c in waiting
        if c.cause is not None and c.cause.why is not Why.QUOTA
    }
    wanted = {cluster.name for clusters in possible.values() for cluster in clusters} | set(holds.on_room)
    for runner in growable:
        if runner.cluster in wanted or any(step.name in short for step in working_set.ledger.path(runner.queue)):
            continue
        placements: list[Placement] = []
        for pod_set, ranks in runner.missing:
            for rank in ranks:
                arrays = working_set.room.node_arrays[runner.cluster]
                cluster = arrays.cluster
                cost = pod_cost(runner.job, pod_set, cluster)
                if working_set.ledger.shortage(runner.queue, cost, 1, runner.job.is_preemptible, jobs=0) is not None:
                    break
                working_set.ledger.add(runner.queue, cost, 1, 0)
                fit: Fit | Misfit | None = None
                if all(not clusters or _has_quota(working_set, *key, clusters) for key, clusters in possible.items()):
                    part = Part.of(pod_set, rank, cost, arrays)
                    demand = Demand((part,), None, runner.job.avoid_nodes)
                    fit = place_demand(demand, arrays, working_set.room.free[runner.cluster], {pod_set.role: 1})
                if not isinstance(fit, Fit):
                    working_set.ledger.remove(runner.queue, cost, 1, 0)
                    break
                placements += fit.placements
        if placements:
            yield GangGrown(runner.job_id, runner.attempt, tuple(placements), working_set.snapshot.epoch)


def _has_quota(working_set: WorkingSet, shape: Shape, queue: str, clusters: Iterable[Cluster]) -> bool:
    """Whether a gang that waits for room on these clusters still has the quota to start on one of them."""
    smallest = (shape.smallest(cluster) for cluster in clusters)
    return any(working_set.ledger.shortage(queue, charge, pods, shape.job.is_preemptible) is None for _, charge, pods in smallest)


def _may_grow(working_set: WorkingSet, runner: Running) -> bool:
    """Whether it lacks pods and may get more. Where its queue may no longer use the cluster, it ends at its present size."""
    if not runner.missing or not runner.is_running or runner.is_stopping or runner.cluster not in working_set.room.node_arrays:
        return False
    return all(not step.clusters or runner.cluster in step.clusters for step in working_set.ledger.path(runner.queue))


def next_growth_at(working_set: WorkingSet) -> float | None:
    """When the next back-off of a gang's growth ends, after the pods it got last did not start."""
    return min(
        (r.grows_at for r in working_set.running if r.grows_at > working_set.now and _may_grow(working_set, r)), default=None
    )
