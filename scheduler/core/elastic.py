"""Gangs that can grow get more pods while nobody waits for room, and give them back to the first who does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from tuttilab.scheduler.core.backfill import Hold, QuotaHold
from tuttilab.scheduler.core.desk import Desk
from tuttilab.scheduler.core.layout import Amounts
from tuttilab.scheduler.core.line import Candidate
from tuttilab.scheduler.core.placement import Demand, Fit, Misfit, Part, place_demand
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.shapes import Shape
from tuttilab.scheduler.core.snapshot import NodeKey, Room, Running
from tuttilab.scheduler.events import GangGrown, GangPreempted, GangShrunk, Placement
from tuttilab.scheduler.model import Cluster, Why
from tuttilab.scheduler.resources import Resources


def shrinks(desk: Desk, stopped: Iterable[GangPreempted] = (), given_back: Iterable[GangShrunk] = ()) -> tuple[GangShrunk, ...]:
    """Spare pods, last ranks first, of whom it takes so that the first gang that waits fits at once; nothing when it would not.

    The first for room is the one with the hold, the first for quota the one for which the limit is kept. ``stopped`` and
    ``given_back``: who was told to go in this cycle already, which may be enough.
    """
    stopping = {each.job_id for each in stopped}
    going = {pod for each in given_back for pod in each.pods}
    chosen: list[GangShrunk] = []
    for hold in desk.holds.values():
        chosen += _for_hold(desk, hold, stopping, going)
    going |= {pod for each in chosen for pod in each.pods}
    for queue, kept in desk.quota_holds.items():
        chosen += _for_quota(desk, queue, kept, stopping, going)
    return tuple(chosen)


def _for_hold(desk: Desk, hold: Hold, stopping: Set[str], going: Set[str]) -> list[GangShrunk]:
    candidate = next(c for line in desk.lines_.values() for c in line if c.job is hold.job)
    if candidate.cause is None or candidate.cause.why is not Why.NO_ROOM:
        return []
    layout = desk.room.layouts[hold.cluster]
    free = desk.room.free[hold.cluster].copy()
    demand, counts = candidate.shape.demand(layout), candidate.shape.smallest(layout.cluster)[0]
    here = [r for r in desk.running if r.cluster == hold.cluster and (r.spare or r.going or _is_to_stop(r, stopping))]
    coming = False
    for runner in here:
        for (_, node), amount in _leaving(runner, stopping, going):
            _give(free, layout.index.get(node), layout.vector(amount))
            coming = True
    if coming and isinstance(place_demand(demand, layout, free.copy(), counts), Fit):
        return []  # What was told to go is enough.
    taken: dict[str, tuple[Running, list[str]]] = {}
    for runner in here:
        for name, (_, node), amount in () if _is_to_stop(runner, stopping) else runner.spare:
            if name in going:
                continue
            _give(free, layout.index.get(node), layout.vector(amount))
            taken.setdefault(runner.job_id, (runner, []))[1].append(name)
            if isinstance(place_demand(demand, layout, free.copy(), counts), Fit):
                reason = "given back to a job that waits for room"
                return [GangShrunk(r.job_id, r.attempt, tuple(names), reason) for r, names in taken.values()]
    return []


def _for_quota(desk: Desk, queue: str, kept: QuotaHold, stopping: Set[str], going: set[str]) -> list[GangShrunk]:
    """From gangs that count against the limit of ``queue``; notes in ``going`` what it chose."""
    candidate = next(c for line in desk.lines_.values() for c in line if c.job is kept.job)
    below = desk.queues_below(queue)
    if candidate.cause is None or candidate.cause.why is not Why.QUOTA:
        return []
    if not any(runner.spare and runner.queue in below for runner in desk.running):
        return []
    room, ledger = desk.room.copy(), desk.ledger.copy()
    for runner in desk.running:
        if _is_to_stop(runner, stopping):
            ledger.remove(runner.queue, runner.charge, runner.pods)
        for place, amount in _leaving(runner, stopping, going):
            room.give(place, amount)
            if not _is_to_stop(runner, stopping):
                ledger.remove(runner.queue, amount, 1, 0)
    if _would_start(desk, candidate, room, ledger):
        return []  # What was told to go is enough.
    taken: dict[str, tuple[Running, list[str]]] = {}
    for runner in desk.running:
        for name, place, amount in runner.spare if runner.queue in below and not _is_to_stop(runner, stopping) else ():
            if name in going:
                continue
            room.give(place, amount)
            ledger.remove(runner.queue, amount, 1, 0)
            taken.setdefault(runner.job_id, (runner, []))[1].append(name)
            if _would_start(desk, candidate, room, ledger):
                going |= {name for _, names in taken.values() for name in names}
                reason = f"given back to a job that waits for quota of queue {queue}"
                return [GangShrunk(r.job_id, r.attempt, tuple(names), reason) for r, names in taken.values()]
    return []


def _would_start(desk: Desk, candidate: Candidate, room: Room, ledger: Ledger) -> bool:
    """Whether the gang, at its smallest, would have quota and room."""
    job, shape = candidate.job, candidate.shape
    for cluster in shape.clusters:
        counts, charge, pods = shape.smallest(cluster)
        if ledger.shortage(job.queue, charge, pods, job.is_preemptible) is None:
            layout = desk.room.layouts[cluster.name]
            fit = place_demand(shape.demand(layout), layout, room.free[cluster.name].copy(), counts)
            if isinstance(fit, Fit):
                return True
    return False


def _is_to_stop(runner: Running, stopping: Set[str]) -> bool:
    return runner.is_stopping or runner.job_id in stopping


def _leaving(runner: Running, stopping: Set[str], going: Set[str]) -> Iterable[tuple[NodeKey, Resources]]:
    """What it holds and will give up by itself: everything, or the pods that were told to go."""
    if _is_to_stop(runner, stopping):
        return runner.holds
    told = (*runner.going, *(spare for spare in runner.spare if spare[0] in going))
    return [(place, amount) for _, place, amount in told]


def _give(free: Amounts, row: int | None, amount: Amounts | None) -> None:
    if row is not None and amount is not None:
        free[row] += amount


def growths(desk: Desk) -> tuple[GangGrown, ...]:
    """More pods for running gangs that asked for them, as far as quota and room go; none where another gang waits for either."""
    able = [runner for runner in desk.running if _may_grow(desk, runner) and runner.grows_at <= desk.now]
    return tuple(_growths(desk, able)) if able else ()


def _growths(desk: Desk, able: Iterable[Running]) -> Iterator[GangGrown]:
    waiting = [c for line in desk.lines_.values() for c in line if c.cause is not None and desk.is_ever_allowed(c)]
    # Those that wait for quota wait for these queues' limits, which nobody below is to use up by growing.
    short = {c.cause.shortage.queue for c in waiting if c.cause is not None and c.cause.shortage is not None}
    # Others wait for room on the clusters where they could run at all; those of which none answers wait for none of what is here.
    hopeful = {
        (c.shape, c.job.queue): [cluster for cluster in c.shape.clusters if desk.alone(c.shape, cluster) is None]
        for c in waiting
        if c.cause is not None and c.cause.why is not Why.QUOTA
    }
    wanted = {cluster.name for clusters in hopeful.values() for cluster in clusters} | set(desk.holds)
    for runner in able:
        if runner.cluster in wanted or any(step.name in short for step in desk.ledger.path(runner.queue)):
            continue
        placements: list[Placement] = []
        for pod_set, ranks in runner.missing:
            for rank in ranks:
                layout = desk.room.layouts[runner.cluster]
                cluster = layout.cluster
                cost: Resources = pod_set.resources + (cluster.sidecar_cost if runner.job.work.sidecar else Resources())
                if desk.ledger.shortage(runner.queue, cost, 1, runner.job.is_preemptible, jobs=0) is not None:
                    break
                desk.ledger.add(runner.queue, cost, 1, 0)
                fit: Fit | Misfit | None = None
                if all(not clusters or _has_quota(desk, *key, clusters) for key, clusters in hopeful.items()):
                    part = Part.of(pod_set, rank, cost, layout)
                    demand = Demand((part,), None, runner.job.avoid_nodes)
                    fit = place_demand(demand, layout, desk.room.free[runner.cluster], {pod_set.role: 1})
                if not isinstance(fit, Fit):
                    desk.ledger.remove(runner.queue, cost, 1, 0)
                    break
                placements += fit.placements
        if placements:
            yield GangGrown(runner.job_id, runner.attempt, tuple(placements), desk.snapshot.epoch)


def _has_quota(desk: Desk, shape: Shape, queue: str, clusters: Iterable[Cluster]) -> bool:
    """Whether a gang that waits for room on another cluster has still the quota to start there."""
    smallest = (shape.smallest(cluster) for cluster in clusters)
    return any(desk.ledger.shortage(queue, charge, pods, shape.job.is_preemptible) is None for _, charge, pods in smallest)


def _may_grow(desk: Desk, runner: Running) -> bool:
    """A queue that moved to other clusters ends its work where it is, but takes nothing more there."""
    if not runner.missing or not runner.is_running or runner.is_stopping or runner.cluster not in desk.room.layouts:
        return False
    return all(not step.clusters or runner.cluster in step.clusters for step in desk.ledger.path(runner.queue))


def next_growth_at(desk: Desk) -> float | None:
    """When the first gang that lacks pods may be given some again, after those it was given last did not start."""
    return min((r.grows_at for r in desk.running if r.grows_at > desk.now and _may_grow(desk, r)), default=None)
