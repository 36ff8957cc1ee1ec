"""Preemption: which running gangs are stopped so that a queue gets its guaranteed share, or a higher class goes first in its queue.

Victims are strictly lower than the claimant. For a gang within the guarantee of its branch, they are gangs of another branch that
uses more than it is guaranteed. For a gang of a higher class, they are gangs of a lower class of its queue whose standing is not
better (a borrowing gang never stops one within the guarantee) and that are not class exempt. So each preemption replaces live gangs
by one of a higher (standing, class), and no chain of preemptions returns to an earlier state: docs/scheduling-proof.md. Nothing is
stopped unless the claimant then fits and no quota is held for another gang that it would need. Victims that lose the least work go
first; notebooks go last.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler.core.backfill import QuotaHold, end_of, latest_end
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.holds import Holds
from tuttilab.scheduler.core.ordering.shares import Level, Standing
from tuttilab.scheduler.core.placement.fit import Fit, place_demand
from tuttilab.scheduler.core.placement.room import NodeKey, Room
from tuttilab.scheduler.core.quota import Ledger, counts_of
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.working_set import WorkingSet, is_within_guarantee
from tuttilab.scheduler.domain.events import GangPreempted, GangShrunk
from tuttilab.scheduler.domain.model import Cluster, JobKind, Why
from tuttilab.scheduler.domain.resources import Resources, total

MOST_CLAIMS: Final = 64
"""Failed claims in one cycle after which no more are tried; counted apart for guaranteed shares and for classes."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A whole running gang without the pods that already stop, or one spare pod of it."""

    runner: Running
    pod: str | None
    holds: tuple[tuple[NodeKey, Resources], ...]
    charge: Resources
    pods: int
    lost: float
    """Room-seconds of work that are lost when it stops."""
    borrows: bool
    """Whether its standing is borrowed at any level."""


def _pod(runner: Running, name: str, place: NodeKey, amount: Resources) -> Victim:
    return Victim(runner, name, ((place, amount),), amount, 1, 0.0, _borrows(runner))


def whole_gang(runner: Running, now: float) -> Victim:
    lost = runner.share * max(now - runner.started_at, 0.0)
    return Victim(runner, None, runner.allocations, runner.charge, runner.pods, lost, _borrows(runner))


def _borrows(runner: Running) -> bool:
    return min(runner.standing, default=Level.WITHIN) < Level.WITHIN


@dataclass(slots=True)
class Future:
    """Room and quota once everything that stops has ended. `undo_stop` reverts `stop`."""

    room: Room
    ledger: Ledger
    stopped: dict[str, dict[str | None, Victim]] = field(default_factory=dict)
    """By job and pod (None: the whole gang)."""

    @classmethod
    def of(cls, working_set: WorkingSet) -> Future:
        """What is free once everything that stops already has ended."""
        future = cls(working_set.room.copy(), working_set.ledger.copy())
        for runner in working_set.running:
            if runner.is_stopping:
                future.stop(whole_gang(runner, working_set.now))
                continue
            for leaving in runner.releasing:
                future.stop(_pod(runner, *leaving))
        return future

    def copy(self) -> Future:
        return Future(self.room.copy(), self.ledger.copy(), {job_id: dict(parts) for job_id, parts in self.stopped.items()})

    def is_stopped(self, victim: Victim) -> bool:
        parts = self.stopped.get(victim.runner.job_id)
        return parts is not None and (victim.pod in parts or None in parts)

    def remainder(self, victim: Victim) -> Victim:
        """The gang without those of its pods that are stopped already."""
        runner = victim.runner
        parts = [part for pod, part in self.stopped.get(runner.job_id, {}).items() if pod is not None]
        if not parts:
            return victim
        holds = list(runner.allocations)
        for hold in [hold for part in parts for hold in part.holds if hold in holds]:
            holds.remove(hold)
        charge = runner.charge - total(part.charge for part in parts)
        return Victim(runner, None, tuple(holds), charge, runner.pods - len(parts), victim.lost, victim.borrows)

    def spares(self, runner: Running) -> list[Victim]:
        """Its spare pods that are not stopped."""
        stopped = self.stopped.get(runner.job_id, {})
        return [_pod(runner, *spare) for spare in runner.spare if spare[0] not in stopped]

    def stop(self, victim: Victim) -> None:
        for key, amount in victim.holds:
            self.room.give(key, amount)
        self.ledger.remove(victim.runner.queue, victim.charge, victim.pods, 0 if victim.pod else 1)
        self.stopped.setdefault(victim.runner.job_id, {})[victim.pod] = victim

    def undo_stop(self, victim: Victim) -> None:
        for key, amount in victim.holds:
            self.room.give(key, amount, -1)
        self.ledger.add(victim.runner.queue, victim.charge, victim.pods, 0 if victim.pod else 1)
        del self.stopped[victim.runner.job_id][victim.pod]


def decide(working_set: WorkingSet, holds: Holds) -> tuple[tuple[GangPreempted, ...], tuple[GangShrunk, ...]]:
    """Whole gangs and spare pods to stop now. What gangs that stop already hold counts as free."""
    claimants = list(_claimants(working_set)) if working_set.may_preempt() else []
    if not claimants:
        return (), ()
    future = Future.of(working_set)
    stoppable = _stoppable(working_set)
    preempted: list[GangPreempted] = []
    shrunk: dict[str, tuple[Running, list[str], str]] = {}
    failed: dict[bool, set[tuple[int, str, int]]] = {True: set(), False: set()}
    served: dict[str, Candidate] = {}
    for candidate, is_entitled, reason in claimants:
        key = (id(candidate.shape), candidate.job.queue, candidate.job.priority)
        failures = failed[is_entitled]
        if key in failures or len(failures) >= MOST_CLAIMS or _is_held_back(candidate, served):
            continue
        quotas = [(name, hold) for name, hold in holds.quota_holds_by_queue(candidate) if hold.job.id not in served]
        then = future.copy() if quotas else future
        chosen = _victims_for(then, candidate, stoppable)
        if chosen is None or any(_is_kept(working_set, then, candidate, name, hold, served) for name, hold in quotas):
            failures.add(key)
            continue
        future, served[candidate.job.id] = then, candidate
        for victim in chosen:
            if victim.pod is None:
                shrunk.pop(victim.runner.job_id, None)
                preempted.append(GangPreempted(victim.runner.job_id, victim.runner.attempt, candidate.job.id, reason))
            else:
                shrunk.setdefault(victim.runner.job_id, (victim.runner, [], reason))[1].append(victim.pod)
    given_back = [GangShrunk(r.job_id, r.attempt, tuple(pods), why) for r, pods, why in shrunk.values()]
    return tuple(preempted), tuple(given_back)


def _is_held_back(candidate: Candidate, served: Container[str]) -> bool:
    """Whether a hold of a gang not served here binds it, so that it would not start whatever stops."""
    cause = candidate.cause
    return cause is not None and cause.why is Why.HOLD and cause.hold is not None and cause.hold.job.id not in served


def _is_kept(
    working_set: WorkingSet, future: Future, candidate: Candidate, queue: str, hold: QuotaHold, served: Mapping[str, Candidate]
) -> bool:
    """Whether a hold on the quota of ``queue`` binds the gang also once all that is stopped in ``future`` has ended."""
    below = working_set.queues_below(queue)
    spare = dict(hold.spare)
    for victim in (victim for parts in future.stopped.values() for victim in parts.values()):
        # What ends before the start of the hold counts as released already.
        if victim.runner.queue in below and end_of(victim.runner, working_set.now) > hold.start:
            _add(spare, victim.charge + counts_of(victim.pods, 0 if victim.pod else 1), 1)
    for other in served.values():
        if other.job.queue in below:
            _add(spare, _needs(other), -1)
    ends_at = latest_end(candidate.job, candidate.prediction, working_set.now, hold.margin)
    return not replace(hold, spare=spare).allows(_needs(candidate), ends_at, is_trial=True)


def _needs(candidate: Candidate) -> Resources:
    """What the gang, at its smallest, takes of the limits of its queues."""
    _, charge, pods = candidate.shape.smallest(candidate.shape.clusters[0])
    return charge + counts_of(pods)


def _add(amounts: dict[str, int], more: Resources, sign: int) -> None:
    for key in amounts:
        amounts[key] += sign * more[key]


def _claimants(working_set: WorkingSet) -> Iterator[tuple[Candidate, bool, str]]:
    """Waiting gangs that may preempt, those within a guarantee first, each with whether it is, and the reason for its victims."""
    waiting = [(candidate, is_entitled) for candidate, is_entitled in working_set.claimants() if candidate.cause is not None]
    for wanted in (True, False):
        for candidate, is_entitled in waiting:
            if is_entitled is wanted:
                what = (
                    f"so that queue {candidate.job.queue} gets its guaranteed share"
                    if is_entitled
                    else "for a job of a higher priority class of its queue"
                )
                yield candidate, is_entitled, f"stopped {what}; it starts again when there is room"


def _victims_for(future: Future, candidate: Candidate, stoppable: Sequence[Victim]) -> list[Victim] | None:
    """The least that has to stop so that the gang fits, stopped in ``future`` too; None when stopping everything is not enough."""
    clusters = candidate.shape.clusters
    if len(clusters) == 1:
        return _on_cluster(future, candidate, clusters[0], stoppable)
    best: tuple[float, list[Victim], Future] | None = None
    for cluster in clusters:
        trial = future.copy()
        chosen = _on_cluster(trial, candidate, cluster, stoppable)
        lost = sum(victim.lost for victim in chosen or ())
        if chosen is not None and (best is None or lost < best[0]):
            best = lost, chosen, trial
    if best is None:
        return None
    future.room, future.ledger, future.stopped = best[2].room, best[2].ledger, best[2].stopped
    return best[1]


def _on_cluster(future: Future, candidate: Candidate, cluster: Cluster, stoppable: Sequence[Victim]) -> list[Victim] | None:
    if fits(future, candidate, cluster, take=True):
        return []
    taken: list[Victim] = []
    claims: dict[str, tuple[int, Level, frozenset[str]]] = {}
    for victim in _eligible(future, candidate, cluster, stoppable):
        if not _is_lower(future, candidate, cluster, victim, claims):
            continue
        if victim.pod is None:
            for spare in [spare for spare in taken if spare.runner is victim.runner]:
                future.undo_stop(spare)
                taken.remove(spare)
            victim = future.remainder(victim)
        future.stop(victim)
        taken.append(victim)
        if len(taken) & (len(taken) - 1) == 0 and _is_enough(future, candidate, cluster, taken):
            break
    if _is_enough(future, candidate, cluster, taken):
        _spare_unneeded(future, candidate, cluster, taken)
        fits(future, candidate, cluster, take=True)
        return taken
    for victim in reversed(taken):
        future.undo_stop(victim)
    return None


def _spare_unneeded(future: Future, candidate: Candidate, cluster: Cluster, taken: list[Victim]) -> None:
    """Remove victims that need not stop, those with the most to lose first; of a gang whose spare pods suffice, stop only these."""
    for victim in sorted(taken, key=lambda v: (v.pod is not None, -v.lost, v.runner.job_id, v.pod or "")):
        future.undo_stop(victim)
        taken.remove(victim)
        if _is_enough(future, candidate, cluster, taken):
            continue
        spares = future.spares(victim.runner) if victim.pod is None else []
        for spare in spares:
            future.stop(spare)
        if spares and _is_enough(future, candidate, cluster, [*taken, *spares]):
            taken += spares
            continue
        for spare in reversed(spares):
            future.undo_stop(spare)
        future.stop(victim)
        taken.append(victim)
    for spare in [victim for victim in taken if victim.pod is not None]:
        future.undo_stop(spare)
        taken.remove(spare)
        if not _is_enough(future, candidate, cluster, taken):
            future.stop(spare)
            taken.append(spare)


def _is_enough(future: Future, candidate: Candidate, cluster: Cluster, taken: Iterable[Victim]) -> bool:
    return fits(future, candidate, cluster) and _are_lower(future, candidate, cluster, taken)


def fits(future: Future, candidate: Candidate, cluster: Cluster, take: bool = False) -> bool:
    """Whether the gang, at its smallest, has room and quota; with ``take``, takes them if so."""
    shape, job, arrays = candidate.shape, candidate.job, future.room.node_arrays[cluster.name]
    counts, charge, pods = shape.smallest(cluster)
    if future.ledger.shortage(job.queue, charge, pods, job.is_preemptible) is not None:
        return False
    free = future.room.free[cluster.name]
    fit = place_demand(shape.demand(arrays), arrays, free if take else free.copy(), counts)
    if take and isinstance(fit, Fit):
        future.ledger.add(job.queue, charge, pods)
    return isinstance(fit, Fit)


def _stoppable(working_set: WorkingSet) -> list[Victim]:
    """Everything that may be stopped for some gang, cheapest first: spare pods, gangs, notebooks last."""
    found: list[Victim] = []
    for runner in working_set.snapshot.running:
        if not runner.is_stopping and _may_be_stopped(working_set, runner):
            found += (_pod(runner, *spare) for spare in runner.spare)
            found.append(whole_gang(runner, working_set.now))
    return sorted(found, key=lambda v: (v.runner.job.kind is JobKind.NOTEBOOK, v.pod is None, v.lost, v.runner.job_id, v.pod or ""))


def _eligible(future: Future, candidate: Candidate, cluster: Cluster, stoppable: Sequence[Victim]) -> Iterator[Victim]:
    """Victims that this gang may stop; on other clusters only those that count against a limit that it is short of."""
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
        if not future.is_stopped(victim):
            yield victim


def _may_be_stopped(working_set: WorkingSet, runner: Running) -> bool:
    job = runner.job
    if not job.is_preemptible:
        return False
    return _idle_at(working_set, runner) <= working_set.now


def _idle_at(working_set: WorkingSet, runner: Running) -> float:
    """When a notebook will have been idle long enough to be stopped; other work may be stopped at any time."""
    queue = working_set.snapshot.queues.get(runner.queue)
    if runner.job.kind is not JobKind.NOTEBOOK or (queue is not None and queue.stops_busy_notebooks):
        return working_set.now
    return (runner.started_at if runner.active_at is None else runner.active_at) + working_set.snapshot.rules.idle_notebook_s


def next_idle_at(working_set: WorkingSet) -> float | None:
    """When the next notebook becomes idle and may be stopped; None when no gang waits that could preempt."""
    if not working_set.lines.by_queue or not working_set.may_preempt():
        return None
    times = (
        _idle_at(working_set, runner) for runner in working_set.running if runner.job.is_preemptible and not runner.is_stopping
    )
    return min((at for at in times if at > working_set.now), default=None)


def _is_lower(
    future: Future,
    candidate: Candidate,
    cluster: Cluster,
    victim: Victim,
    claims: dict[str, tuple[int, Level, frozenset[str]]],
) -> bool:
    """Whether the victim is strictly lower than the gang once the victims already chosen have stopped.

    ``claims`` caches, by queue on the gang's path: its depth, the gang's level there and the resources that it may reclaim.
    """
    runner, job, ledger = victim.runner, candidate.job, future.ledger
    charge = candidate.shape.smallest(cluster)[1]
    parts = ledger.diverging_queues(job.queue, runner.queue)
    if parts is not None:
        mine, its = parts
        if mine.name not in claims:
            level, keys = ledger.shares.level(mine, charge, ledger.use), ledger.shares.reclaimable_keys(mine, charge)
            claims[mine.name] = len(ledger.path(mine.name)) - 1, level, keys
        depth, level, keys = claims[mine.name]
        if len(runner.standing) <= depth or runner.standing[depth] >= level:
            return False
        return ledger.shares.is_over_guarantee(its, [key for key in keys if victim.charge[key]], ledger.use)
    if runner.queue != job.queue or runner.job.priority >= job.priority or runner.is_class_exempt:
        return False
    remainder = future.remainder(victim) if victim.pod is None else victim
    ledger.remove(runner.queue, remainder.charge, 0, 0)
    standing = ledger.standing(job.queue, charge)
    ledger.add(runner.queue, remainder.charge, 0, 0)
    return _is_no_worse(standing, runner.standing)


def _are_lower(future: Future, candidate: Candidate, cluster: Cluster, taken: Iterable[Victim]) -> bool:
    """Whether the gang, once all of them have stopped, stands no worse than any of them above the level where their paths part."""
    ledger, job = future.ledger, candidate.job
    standing = ledger.standing(job.queue, candidate.shape.smallest(cluster)[1])
    for victim in taken:
        parts = ledger.diverging_queues(job.queue, victim.runner.queue)
        depth = len(standing) if parts is None else len(ledger.path(parts[0].name)) - 1
        if not _is_no_worse(standing[:depth], victim.runner.standing[:depth]):
            return False
    return True


def _is_no_worse(one: Standing, other: Standing) -> bool:
    return len(one) == len(other) and all(mine >= its for mine, its in zip(one, other, strict=True))
