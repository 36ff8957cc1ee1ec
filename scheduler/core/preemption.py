"""Who is stopped so that a gang gets its queue's guaranteed share, or goes before a lower class of its queue.

Victims are strictly lower: gangs of another branch that use more than that branch is guaranteed, for a gang within the guarantee of
its own; or gangs of a lower priority class of the same queue, for a gang that is not worse placed (a borrowing gang never stops one
within the guarantee), unless they were lifted above all classes. So every move replaces live gangs by one of a higher (standing,
class), and no chain of moves comes back to where it was: docs/scheduling-proof.md. Nothing is stopped unless the gang then fits.
Least work lost goes first; a notebook goes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.desk import Desk, is_within_guarantee
from tuttilab.scheduler.core.line import Candidate
from tuttilab.scheduler.core.placement import Fit, place_demand
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.snapshot import NodeKey, Room, Running
from tuttilab.scheduler.core.standing import Level, Standing
from tuttilab.scheduler.events import GangPreempted, GangShrunk
from tuttilab.scheduler.model import Cluster, JobKind, Why
from tuttilab.scheduler.resources import Resources, total

MOST_CLAIMS: Final = 64
"""Shapes tried in vain in one cycle, of those that claim a guaranteed share and of those of a higher class each."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A whole running gang, as far as it is not on its way out, or one pod that it can do without."""

    runner: Running
    pod: str | None
    holds: tuple[tuple[NodeKey, Resources], ...]
    charge: Resources
    pods: int
    lost: float
    """Room-seconds of work that stopping it throws away."""
    borrows: bool
    """Whether it stands on borrowed room at any level."""


def _pod(runner: Running, name: str, place: NodeKey, amount: Resources) -> Victim:
    return Victim(runner, name, ((place, amount),), amount, 1, 0.0, _borrows(runner))


def _gang(runner: Running, now: float) -> Victim:
    lost = runner.share * max(now - runner.started_at, 0.0)
    return Victim(runner, None, runner.holds, runner.charge, runner.pods, lost, _borrows(runner))


def _borrows(runner: Running) -> bool:
    return min(runner.standing, default=Level.WITHIN) < Level.WITHIN


@dataclass(slots=True)
class _WhatIf:
    """Room and quota as they will be once everything that stops has ended. `without` answers its undo by `back`."""

    room: Room
    ledger: Ledger
    gone: dict[str, dict[str | None, Victim]] = field(default_factory=dict)
    """By job, and by pod (None: all of it)."""

    def copy(self) -> _WhatIf:
        return _WhatIf(self.room.copy(), self.ledger.copy(), {job_id: dict(parts) for job_id, parts in self.gone.items()})

    def is_gone(self, victim: Victim) -> bool:
        parts = self.gone.get(victim.runner.job_id)
        return parts is not None and (victim.pod in parts or None in parts)

    def whole(self, victim: Victim) -> Victim:
        """The gang without those of its pods that are gone already."""
        runner = victim.runner
        parts = [part for pod, part in self.gone.get(runner.job_id, {}).items() if pod is not None]
        if not parts:
            return victim
        holds = list(runner.holds)
        for hold in [hold for part in parts for hold in part.holds if hold in holds]:
            holds.remove(hold)
        charge = runner.charge - total(part.charge for part in parts)
        return Victim(runner, None, tuple(holds), charge, runner.pods - len(parts), victim.lost, victim.borrows)

    def spares(self, runner: Running) -> list[Victim]:
        """Its pods that it can do without and that are not gone."""
        gone = self.gone.get(runner.job_id, {})
        return [_pod(runner, *spare) for spare in runner.spare if spare[0] not in gone]

    def without(self, victim: Victim) -> None:
        for key, amount in victim.holds:
            self.room.give(key, amount)
        self.ledger.remove(victim.runner.queue, victim.charge, victim.pods, 0 if victim.pod else 1)
        self.gone.setdefault(victim.runner.job_id, {})[victim.pod] = victim

    def back(self, victim: Victim) -> None:
        for key, amount in victim.holds:
            self.room.give(key, amount, -1)
        self.ledger.add(victim.runner.queue, victim.charge, victim.pods, 0 if victim.pod else 1)
        del self.gone[victim.runner.job_id][victim.pod]


def decide(desk: Desk) -> tuple[tuple[GangPreempted, ...], tuple[GangShrunk, ...]]:
    """Who is stopped now, whole gangs and spare pods. Gangs told to stop earlier count as room that comes."""
    claimants = list(_claimants(desk)) if desk.may_preempt() else []
    if not claimants:
        return (), ()
    future = _WhatIf(desk.room.copy(), desk.ledger.copy())
    for runner in desk.running:
        if runner.is_stopping:
            future.without(_gang(runner, desk.now))
            continue
        for going in runner.going:
            future.without(_pod(runner, *going))
    stoppable = _stoppable(desk)
    preempted: list[GangPreempted] = []
    shrunk: dict[str, tuple[Running, list[str], str]] = {}
    failed: dict[bool, set[tuple[int, str, int]]] = {True: set(), False: set()}
    served: set[str] = set()
    for candidate, is_entitled, reason in claimants:
        key = (id(candidate.shape), candidate.job.queue, candidate.job.priority)
        in_vain = failed[is_entitled]
        if key in in_vain or len(in_vain) >= MOST_CLAIMS or _is_held_back(candidate, served):
            continue
        chosen = _victims_for(desk, future, candidate, stoppable)
        if chosen is None:
            in_vain.add(key)
            continue
        served.add(candidate.job.id)
        for victim in chosen:
            if victim.pod is None:
                shrunk.pop(victim.runner.job_id, None)
                preempted.append(GangPreempted(victim.runner.job_id, victim.runner.attempt, candidate.job.id, reason))
            else:
                shrunk.setdefault(victim.runner.job_id, (victim.runner, [], reason))[1].append(victim.pod)
    given_back = [GangShrunk(r.job_id, r.attempt, tuple(pods), why) for r, pods, why in shrunk.values()]
    return tuple(preempted), tuple(given_back)


def _is_held_back(candidate: Candidate, served: set[str]) -> bool:
    """Whether room is kept for another gang that is not served here: whatever stops, the gang would not start."""
    cause = candidate.cause
    return cause is not None and cause.why is Why.HOLD and cause.hold is not None and cause.hold.job.id not in served


def _claimants(desk: Desk) -> Iterator[tuple[Candidate, bool, str]]:
    """Waiting gangs that may stop others, those within a guarantee first, each with whether it is, and what a victim is told."""
    waiting = [(candidate, is_entitled) for candidate, is_entitled in desk.claimants(desk.lines_) if candidate.cause is not None]
    for wanted in (True, False):
        for candidate, is_entitled in waiting:
            if is_entitled is wanted:
                what = (
                    f"so that queue {candidate.job.queue} gets its guaranteed share"
                    if is_entitled
                    else "for a job of a higher priority class of its queue"
                )
                yield candidate, is_entitled, f"stopped {what}; it starts again when there is room"


def _victims_for(desk: Desk, future: _WhatIf, candidate: Candidate, stoppable: Sequence[Victim]) -> list[Victim] | None:
    """The least that has to stop so that the gang fits, taken off ``future``; None when stopping everything would not help."""
    clusters = candidate.shape.clusters
    if len(clusters) == 1:
        return _on_cluster(desk, future, candidate, clusters[0], stoppable)
    best: tuple[float, list[Victim], _WhatIf] | None = None
    for cluster in clusters:
        trial = future.copy()
        chosen = _on_cluster(desk, trial, candidate, cluster, stoppable)
        lost = sum(victim.lost for victim in chosen or ())
        if chosen is not None and (best is None or lost < best[0]):
            best = lost, chosen, trial
    if best is None:
        return None
    future.room, future.ledger, future.gone = best[2].room, best[2].ledger, best[2].gone
    return best[1]


def _on_cluster(
    desk: Desk, future: _WhatIf, candidate: Candidate, cluster: Cluster, stoppable: Sequence[Victim]
) -> list[Victim] | None:
    if _fits(desk, future, candidate, cluster, take=True):
        return []
    taken: list[Victim] = []
    claims: dict[str, tuple[int, Level, frozenset[str]]] = {}
    for victim in _eligible(future, candidate, cluster, stoppable):
        if not _is_lower(future, candidate, cluster, victim, claims):
            continue
        if victim.pod is None:
            for spare in [spare for spare in taken if spare.runner is victim.runner]:
                future.back(spare)
                taken.remove(spare)
            victim = future.whole(victim)
        future.without(victim)
        taken.append(victim)
        if len(taken) & (len(taken) - 1) == 0 and _serves(desk, future, candidate, cluster, taken):
            break
    if _serves(desk, future, candidate, cluster, taken):
        _let_stay(desk, future, candidate, cluster, taken)
        _fits(desk, future, candidate, cluster, take=True)
        return taken
    for victim in reversed(taken):
        future.back(victim)
    return None


def _let_stay(desk: Desk, future: _WhatIf, candidate: Candidate, cluster: Cluster, taken: list[Victim]) -> None:
    """Whoever need not stop does not, most to lose first; of a gang whose spare pods are enough, only those."""
    for victim in sorted(taken, key=lambda v: (v.pod is not None, -v.lost, v.runner.job_id, v.pod or "")):
        future.back(victim)
        taken.remove(victim)
        if _serves(desk, future, candidate, cluster, taken):
            continue
        spares = future.spares(victim.runner) if victim.pod is None else []
        for spare in spares:
            future.without(spare)
        if spares and _serves(desk, future, candidate, cluster, [*taken, *spares]):
            taken += spares
            continue
        for spare in reversed(spares):
            future.back(spare)
        future.without(victim)
        taken.append(victim)
    for spare in [victim for victim in taken if victim.pod is not None]:
        future.back(spare)
        taken.remove(spare)
        if not _serves(desk, future, candidate, cluster, taken):
            future.without(spare)
            taken.append(spare)


def _serves(desk: Desk, future: _WhatIf, candidate: Candidate, cluster: Cluster, taken: Iterable[Victim]) -> bool:
    return _fits(desk, future, candidate, cluster) and _are_lower(future, candidate, cluster, taken)


def _fits(desk: Desk, future: _WhatIf, candidate: Candidate, cluster: Cluster, take: bool = False) -> bool:
    """Whether the gang, at its smallest, has room and quota."""
    shape, job, layout = candidate.shape, candidate.job, desk.room.layouts[cluster.name]
    counts, charge, pods = shape.smallest(cluster)
    if future.ledger.shortage(job.queue, charge, pods, job.is_preemptible) is not None:
        return False
    free = future.room.free[cluster.name]
    fit = place_demand(shape.demand(layout), layout, free if take else free.copy(), counts)
    if take and isinstance(fit, Fit):
        future.ledger.add(job.queue, charge, pods)
    return isinstance(fit, Fit)


def _stoppable(desk: Desk) -> list[Victim]:
    """Everything that may ever be stopped for anybody, cheapest first: spare pods, gangs, notebooks last."""
    found: list[Victim] = []
    for runner in desk.snapshot.running:
        if not runner.is_stopping and _may_be_stopped(desk, runner):
            found += (_pod(runner, *spare) for spare in runner.spare)
            found.append(_gang(runner, desk.now))
    return sorted(found, key=lambda v: (v.runner.job.kind is JobKind.NOTEBOOK, v.pod is None, v.lost, v.runner.job_id, v.pod or ""))


def _eligible(future: _WhatIf, candidate: Candidate, cluster: Cluster, stoppable: Sequence[Victim]) -> Iterator[Victim]:
    """Of those that may be stopped, who may be for this gang. What runs on other clusters only counts against the same limits."""
    job, ledger = candidate.job, future.ledger
    _, charge, pods = candidate.shape.smallest(cluster)
    is_short = ledger.shortage(job.queue, charge, pods, job.is_preemptible) is not None
    limited = {step.name for step in ledger.path(job.queue)} if is_short else set()
    is_entitled = is_within_guarantee(ledger, candidate)
    for victim in stoppable:
        runner = victim.runner
        if not (is_entitled and victim.borrows) and not (runner.job.queue == job.queue and runner.job.priority < job.priority):
            continue
        if runner.cluster != cluster.name and not any(step.name in limited for step in ledger.path(runner.queue)):
            continue
        if not future.is_gone(victim):
            yield victim


def _may_be_stopped(desk: Desk, runner: Running) -> bool:
    job = runner.job
    if not job.is_preemptible:
        return False
    return _idle_at(desk, runner) <= desk.now


def _idle_at(desk: Desk, runner: Running) -> float:
    """When a notebook's silence will have lasted long enough for it to be stopped; nothing keeps other work."""
    queue = desk.snapshot.queues.get(runner.queue)
    if runner.job.kind is not JobKind.NOTEBOOK or (queue is not None and queue.stops_busy_notebooks):
        return desk.now
    return (runner.started_at if runner.active_at is None else runner.active_at) + desk.snapshot.rules.idle_notebook_s


def next_idle_at(desk: Desk) -> float | None:
    """When the first notebook becomes idle that may be stopped then, where somebody waits who could ask for that."""
    if not desk.lines_ or not desk.may_preempt():
        return None
    times = (_idle_at(desk, runner) for runner in desk.running if runner.job.is_preemptible and not runner.is_stopping)
    return min((at for at in times if at > desk.now), default=None)


def _is_lower(
    future: _WhatIf,
    candidate: Candidate,
    cluster: Cluster,
    victim: Victim,
    claims: dict[str, tuple[int, Level, frozenset[str]]],
) -> bool:
    """Whether the victim is strictly below the gang, as things stand with those already chosen gone.

    ``claims`` keeps, by queue on the gang's path: how deep it is, the gang's level there and what it may fetch back.
    """
    runner, job, ledger = victim.runner, candidate.job, future.ledger
    charge = candidate.shape.smallest(cluster)[1]
    parts = ledger.parting(job.queue, runner.queue)
    if parts is not None:
        mine, its = parts
        if mine.name not in claims:
            level, keys = ledger.shares.level(mine, charge, ledger.use), ledger.shares.named(mine, charge)
            claims[mine.name] = len(ledger.path(mine.name)) - 1, level, keys
        depth, level, keys = claims[mine.name]
        if len(runner.standing) <= depth or runner.standing[depth] >= level:
            return False
        return ledger.shares.is_above(its, [key for key in keys if victim.charge[key]], ledger.use)
    if runner.queue != job.queue or runner.job.priority >= job.priority or runner.is_lifted:
        return False
    as_left = future.whole(victim) if victim.pod is None else victim
    ledger.remove(runner.queue, as_left.charge, 0, 0)
    standing = ledger.standing(job.queue, charge)
    ledger.add(runner.queue, as_left.charge, 0, 0)
    return _is_no_worse(standing, runner.standing)


def _are_lower(future: _WhatIf, candidate: Candidate, cluster: Cluster, taken: Iterable[Victim]) -> bool:
    """Whether the gang stands no worse than any of them above the level where their paths part, once all of them are gone."""
    ledger, job = future.ledger, candidate.job
    standing = ledger.standing(job.queue, candidate.shape.smallest(cluster)[1])
    for victim in taken:
        parts = ledger.parting(job.queue, victim.runner.queue)
        depth = len(standing) if parts is None else len(ledger.path(parts[0].name)) - 1
        if not _is_no_worse(standing[:depth], victim.runner.standing[:depth]):
            return False
    return True


def _is_no_worse(one: Standing, other: Standing) -> bool:
    return len(one) == len(other) and all(mine >= its for mine, its in zip(one, other, strict=True))
