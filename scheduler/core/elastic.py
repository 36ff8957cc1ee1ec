"""Gangs that can grow get more pods while nobody waits for room, and give them back to the first who does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from tuttilab.scheduler.core.backfill import Hold
from tuttilab.scheduler.core.desk import Desk
from tuttilab.scheduler.core.layout import Amounts
from tuttilab.scheduler.core.placement import Demand, Fit, Part, place_demand
from tuttilab.scheduler.core.snapshot import NodeKey, Running
from tuttilab.scheduler.events import GangGrown, GangPreempted, GangShrunk, Placement
from tuttilab.scheduler.model import Why
from tuttilab.scheduler.resources import Resources


def shrinks(desk: Desk, stopped: Iterable[GangPreempted] = (), given_back: Iterable[GangShrunk] = ()) -> tuple[GangShrunk, ...]:
    """Spare pods, last ranks first, of whom it takes so that the gang with the hold fits at once; nothing when it would not.

    ``stopped`` and ``given_back``: who was told to go in this cycle already, which may be enough.
    """
    stopping = {each.job_id for each in stopped}
    going = {pod for each in given_back for pod in each.pods}
    chosen: list[GangShrunk] = []
    for hold in desk.holds.values():
        chosen += _for_hold(desk, hold, stopping, going)
    return tuple(chosen)


def _for_hold(desk: Desk, hold: Hold, stopping: Set[str], going: Set[str]) -> list[GangShrunk]:
    candidate = next(c for line in desk.lines_.values() for c in line if c.job is hold.job)
    if candidate.cause is None or candidate.cause.why is not Why.NO_ROOM:
        return []
    layout = desk.room.layouts[hold.cluster]
    free = desk.room.free[hold.cluster].copy()
    demand = candidate.shape.demand(layout)
    here = [r for r in desk.running if r.cluster == hold.cluster and (r.spare or r.going or _is_to_stop(r, stopping))]
    coming = False
    for runner in here:
        for (_, node), amount in _leaving(runner, stopping, going):
            _give(free, layout.index.get(node), layout.vector(amount))
            coming = True
    if coming and isinstance(place_demand(demand, layout, free.copy()), Fit):
        return []  # What was told to go is enough.
    taken: dict[str, tuple[Running, list[str]]] = {}
    for runner in here:
        for name, (_, node), amount in () if _is_to_stop(runner, stopping) else runner.spare:
            if name in going:
                continue
            _give(free, layout.index.get(node), layout.vector(amount))
            taken.setdefault(runner.job_id, (runner, []))[1].append(name)
            if isinstance(place_demand(demand, layout, free.copy()), Fit):
                reason = "given back to a job that waits for room"
                return [GangShrunk(r.job_id, r.attempt, tuple(names), reason) for r, names in taken.values()]
    return []


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
    waiting = [(c.shape, c.cause) for line in desk.lines_.values() for c in line if c.cause is not None]
    # Those that wait for quota wait for these queues' limits, which nobody below is to use up by growing.
    short = {cause.shortage.queue for _, cause in waiting if cause.shortage is not None}
    # Others wait for room on the clusters where they could run at all; those of which none answers wait for none of what is here.
    hopeful = {shape: None for shape, cause in waiting if cause.why is not Why.QUOTA}
    wanted = {c.name for shape in hopeful for c in shape.clusters if isinstance(desk.alone(shape, c), Fit)} | set(desk.holds)
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
                part = Part.of(pod_set, rank, cost, layout)
                demand = Demand((part,), None, runner.job.avoid_nodes)
                fit = place_demand(demand, layout, desk.room.free[runner.cluster], {pod_set.role: 1})
                if not isinstance(fit, Fit):
                    break
                desk.ledger.add(runner.queue, cost, 1, 0)
                placements += fit.placements
        if placements:
            yield GangGrown(runner.job_id, runner.attempt, tuple(placements), desk.snapshot.epoch)


def _may_grow(desk: Desk, runner: Running) -> bool:
    return bool(runner.missing) and runner.is_running and not runner.is_stopping and runner.cluster in desk.room.layouts


def next_growth_at(desk: Desk) -> float | None:
    """When the first gang that lacks pods may be given some again, after those it was given last did not start."""
    return min((r.grows_at for r in desk.running if r.grows_at > desk.now and _may_grow(desk, r)), default=None)
