"""Who is stopped so that a gang gets its queue's guaranteed share, or goes before a lower class of its queue.

Victims are strictly lower: borrowed gangs of a queue above its guaranteed share, for a gang within its own; or gangs of a lower
priority class of the same queue, for a gang that is not worse placed (a borrowing gang never stops one within the guarantee). So
every move replaces live gangs by one of a higher (is within guarantee, class), and no chain of moves comes back to where it was:
docs/scheduling-proof.md. Nothing is stopped unless the gang then fits. Least work lost goes first; a notebook goes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.desk import Desk, is_within_guarantee
from tuttilab.scheduler.core.line import Candidate
from tuttilab.scheduler.core.placement import Fit, place_demand
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.snapshot import NodeKey, Room, Running
from tuttilab.scheduler.events import GangPreempted, GangShrunk
from tuttilab.scheduler.model import Cluster, JobKind, Why
from tuttilab.scheduler.resources import Resources

MOST_CLAIMS: Final = 64
"""Shapes tried for preemption in one cycle."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A whole running gang, or one pod that it can do without."""

    runner: Running
    pod: str | None
    holds: tuple[tuple[NodeKey, Resources], ...]
    charge: Resources
    lost: float
    """Room-seconds of work that stopping it throws away."""


@dataclass(slots=True)
class _WhatIf:
    """Room and quota as they will be once everything that stops has ended. `without` answers its undo by `back`."""

    room: Room
    ledger: Ledger
    gone: dict[tuple[str, str | None], Victim] = field(default_factory=dict)

    def without(self, victim: Victim) -> None:
        for key, amount in victim.holds:
            self.room.give(key, amount)
        self._count(victim, -1)
        self.gone[victim.runner.job_id, victim.pod] = victim

    def back(self, victim: Victim) -> None:
        for key, amount in victim.holds:
            self.room.give(key, amount, -1)
        self._count(victim, 1)
        del self.gone[victim.runner.job_id, victim.pod]

    def _count(self, victim: Victim, sign: int) -> None:
        jobs = 0 if victim.pod else 1
        change = self.ledger.add if sign > 0 else self.ledger.remove
        change(victim.runner.queue, victim.charge, 1 if victim.pod else victim.runner.pods, jobs)


def decide(desk: Desk) -> tuple[tuple[GangPreempted, ...], tuple[GangShrunk, ...]]:
    """Who is stopped now, whole gangs and spare pods. Gangs told to stop earlier count as room that comes."""
    claimants = list(_claimants(desk)) if desk.may_preempt() else []
    if not claimants:
        return (), ()
    future = _WhatIf(desk.room.copy(), desk.ledger.copy())
    for runner in desk.running:
        if runner.is_stopping:
            future.without(Victim(runner, None, runner.holds, runner.charge, 0.0))
            continue
        for name, place, amount in runner.going:
            future.without(Victim(runner, name, ((place, amount),), amount, 0.0))
    preempted: list[GangPreempted] = []
    shrunk: dict[str, tuple[Running, list[str], str]] = {}
    failed: set[tuple[int, str, int]] = set()
    served: set[str] = set()
    for candidate, reason in claimants:
        key = (id(candidate.shape), candidate.job.queue, candidate.job.priority)
        if key in failed or len(failed) >= MOST_CLAIMS or _is_held_back(candidate, served):
            continue
        chosen = _victims_for(desk, future, candidate)
        if chosen is None:
            failed.add(key)
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


def _claimants(desk: Desk) -> Iterator[tuple[Candidate, str]]:
    """Waiting gangs that may stop others, in their order, each with the reason that a victim is told."""
    for candidate in desk.claimants(desk.lines_):
        if candidate.cause is None:
            continue
        what = (
            f"so that queue {candidate.job.queue} gets its guaranteed share"
            if desk.is_entitled(candidate)
            else "for a job of a higher priority class of its queue"
        )
        yield candidate, f"stopped {what}; it starts again when there is room"


def _victims_for(desk: Desk, future: _WhatIf, candidate: Candidate) -> list[Victim] | None:
    """The least that has to stop so that the gang fits, taken off ``future``; None when stopping everything would not help."""
    for cluster in candidate.shape.clusters:
        chosen = _on_cluster(desk, future, candidate, cluster)
        if chosen is not None:
            return chosen
    return None


def _on_cluster(desk: Desk, future: _WhatIf, candidate: Candidate, cluster: Cluster) -> list[Victim] | None:
    if _fits(desk, future, candidate, cluster, take=True):
        return []
    taken: list[Victim] = []
    for victim in _eligible(desk, future, candidate, cluster):
        if (victim.runner.job_id, victim.pod) in future.gone or not _is_lower(desk, future, candidate, victim):
            continue
        future.without(victim)
        taken.append(victim)
        if len(taken) & (len(taken) - 1) == 0 and _fits(desk, future, candidate, cluster):
            break
    if not _fits(desk, future, candidate, cluster):
        for victim in reversed(taken):
            future.back(victim)
        return None
    for victim in sorted(taken, key=lambda v: (-v.lost, v.runner.job_id, v.pod or "")):
        future.back(victim)
        if _fits(desk, future, candidate, cluster):
            taken.remove(victim)
        else:
            future.without(victim)
    _fits(desk, future, candidate, cluster, take=True)
    return taken


def _fits(desk: Desk, future: _WhatIf, candidate: Candidate, cluster: Cluster, take: bool = False) -> bool:
    shape, job, layout = candidate.shape, candidate.job, desk.room.layouts[cluster.name]
    charge = shape.charges[cluster.name]
    if future.ledger.shortage(job.queue, charge, shape.pods, job.is_preemptible) is not None:
        return False
    free = future.room.free[cluster.name]
    fit = place_demand(shape.demand(layout), layout, free if take else free.copy())
    if take and isinstance(fit, Fit):
        future.ledger.add(job.queue, charge, shape.pods)
    return isinstance(fit, Fit)


def _eligible(desk: Desk, future: _WhatIf, candidate: Candidate, cluster: Cluster) -> Iterable[Victim]:
    """Everything on the cluster that may ever be stopped for the gang, cheapest first: spare pods, gangs, notebooks last."""
    by_class = [r for r in desk.snapshot.running if r.queue == candidate.job.queue and r.job.priority < candidate.job.priority]
    lent = desk.ledger.lent()
    borrowed = (
        [
            r
            for r in desk.snapshot.running
            if r.is_borrowed and _parting_queue(future.ledger, r.queue, candidate.job.queue) is not None
        ]
        if is_within_guarantee(future.ledger, candidate, lent)
        else []
    )
    found: dict[tuple[str, str | None], Victim] = {}
    for runner in (*borrowed, *by_class):
        if runner.cluster != cluster.name or runner.is_stopping or not _may_be_stopped(desk, runner):
            continue
        for name, key, amount in runner.spare:
            found[runner.job_id, name] = Victim(runner, name, ((key, amount),), amount, 0.0)
        lost = runner.share * max(desk.now - runner.started_at, 0.0)
        found[runner.job_id, None] = Victim(runner, None, runner.holds, runner.charge, lost)
    return sorted(
        found.values(), key=lambda v: (v.runner.job.kind is JobKind.NOTEBOOK, v.pod is None, v.lost, v.runner.job_id, v.pod or "")
    )


def _may_be_stopped(desk: Desk, runner: Running) -> bool:
    job = runner.job
    if not job.is_preemptible:
        return False
    if job.kind is not JobKind.NOTEBOOK or runner.active_at is None:
        return True
    is_idle = desk.now - runner.active_at >= desk.snapshot.rules.idle_notebook_s
    return is_idle or desk.snapshot.queues[job.queue].stops_busy_notebooks


def _parting_queue(ledger: Ledger, victim: str, claimant: str) -> str | None:
    """The queue on the victim's path, nearest the root, that the claimant is not below; None in the same queue."""
    mine = {step.name for step in ledger.path(claimant)}
    return next((step.name for step in reversed(ledger.path(victim)) if step.name not in mine), None)


def _is_lower(desk: Desk, future: _WhatIf, candidate: Candidate, victim: Victim) -> bool:
    """Whether the victim is strictly below the gang, as things stand with those already chosen gone."""
    runner, job = victim.runner, candidate.job
    ledger = future.ledger
    lent = ledger.lent()
    is_entitled = is_within_guarantee(ledger, candidate, lent)
    name = _parting_queue(ledger, runner.queue, job.queue)
    if is_entitled and runner.is_borrowed and name is not None:
        guaranteed = desk.snapshot.queues[name].guaranteed
        if any(ledger.use[name][key] > guaranteed[key] for key, _ in victim.charge if key in lent):
            return True
    if runner.queue != job.queue or runner.job.priority >= job.priority:
        return False
    return runner.is_borrowed or is_entitled or _would_be_within(ledger, candidate, victim, lent)


def _would_be_within(ledger: Ledger, candidate: Candidate, victim: Victim, lent: frozenset[str]) -> bool:
    """Whether the gang is within the guarantee once the victim is gone, or nothing of it is guaranteed to anybody."""
    shape = candidate.shape
    charge = shape.charges[shape.clusters[0].name]
    if not any(key in lent for key, _ in charge):
        return True
    ledger.remove(victim.runner.queue, victim.charge, 0, 0)
    is_within = ledger.borrows(candidate.job.queue, charge) is None
    ledger.add(victim.runner.queue, victim.charge, 0, 0)
    return is_within
