"""One scheduling cycle: from a snapshot and a time to a decision; the same input gives the same decision (scheduling.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuttilab.scheduler.core.backfill import Hold, QuotaHold, hold_for, holds_of_fit, quota_hold
from tuttilab.scheduler.core.placement import Fit, Misfit, allowed_clusters, charge_of, has_master, place
from tuttilab.scheduler.core.queues import order_queues, path_of
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.snapshot import Room, Running, Snapshot
from tuttilab.scheduler.events import GangAdmitted
from tuttilab.scheduler.model import Cluster, Job, JobPhase, Wait, Why
from tuttilab.scheduler.resources import NOTHING, show_duration, total


@dataclass(slots=True)
class Kept:
    """What a cycle remembers of the gangs it met: room held by cluster, max held by queue, shapes that failed."""

    room: dict[str, Hold]
    quota: dict[str, QuotaHold]
    failed_shapes: set[str]


@dataclass(frozen=True, slots=True)
class Decision:
    """``admitted`` in the order of admission; one `Wait` for every other waiting job; when a back-off ends next."""

    admitted: tuple[GangAdmitted, ...]
    waits: tuple[Wait, ...]
    next_at: float | None = None


def order_gangs(jobs: Iterable[Job]) -> list[Job]:
    """Within one queue: priority class first, then the order of submission."""
    return sorted(jobs, key=lambda job: (-job.priority, job.order))


def _not_yet(job: Job, snapshot: Snapshot, now: float) -> Wait | None:
    """Why a job may not even be considered: its dependencies or its back-off."""
    waiting_for = tuple(j for j in job.after if snapshot.phases.get(j) is not JobPhase.SUCCEEDED)
    if waiting_for:
        names = ", ".join(waiting_for)
        return Wait(job.id, Why.DEPENDENCY, f"waits for job {names} to succeed", 0, blockers=waiting_for)
    if job.not_before > now:
        left = show_duration(max(job.not_before - now, 1))
        why = f": {job.reason}" if job.reason else ""
        return Wait(job.id, Why.BACK_OFF, f"tries again in {left}{why}", 0, estimated_start=job.not_before, basis="back-off")
    return None


def schedule(snapshot: Snapshot, now: float) -> Decision:
    # 1. Snapshot: what is free, what is used, who waits.
    room = Room.of(snapshot.clusters, snapshot.running)
    ledger = Ledger.of(snapshot.queues, snapshot.charges)
    running = list(snapshot.running)
    waits: dict[str, Wait] = {}
    kept = Kept({}, {}, set())
    ready: dict[str, list[Job]] = {}
    for job in snapshot.waiting:
        wait = _not_yet(job, snapshot, now)
        if wait is not None:
            waits[job.id] = wait
        elif job.queue in snapshot.queues:
            ready.setdefault(job.queue, []).append(job)
        else:
            waits[job.id] = Wait(job.id, Why.QUOTA, f"queue {job.queue} no longer exists; submit to another", 0)

    # 2. Order queues, 3. order gangs in each: one list of heads that is looked at again after every admission.
    waiting = {queue: order_gangs(jobs) for queue, jobs in ready.items()}
    site = total(node.allocatable for node in room.nodes.values())
    admitted: list[GangAdmitted] = []
    places = {job.id: place_ for jobs in waiting.values() for place_, job in enumerate(jobs, start=1)}
    while waiting:
        queue = order_queues(snapshot.queues, waiting, ledger.use, site)[0]
        job = waiting[queue].pop(0)
        if not waiting[queue]:
            del waiting[queue]

        # 4. Try it: quota along the path, then clusters and nodes.
        outcome = _try(job, snapshot, room, ledger, running, kept, places[job.id], now)
        if isinstance(outcome, Fit):
            cluster = snapshot.clusters[outcome.cluster]
            charge = charge_of(job, cluster)
            pods = len(outcome.placements)
            ledger.add(job.queue, charge, pods)
            ends_by = None if job.timeout_s is None else now + job.timeout_s
            running.append(Running(job.id, job.queue, job.owner, tuple(holds_of_fit(job, outcome, cluster)), ends_by))
            admitted.append(GangAdmitted(job.id, job.attempts + 1, outcome.cluster, outcome.placements, snapshot.epoch))
        else:
            waits[job.id] = outcome

    # 5. Holds were set as the gangs were met; 6. every gang left waiting has its reason.
    next_at = min((job.not_before for job in snapshot.waiting if job.not_before > now), default=None)
    return Decision(tuple(admitted), tuple(waits[job.id] for job in snapshot.waiting if job.id in waits), next_at)


def _try(
    job: Job,
    snapshot: Snapshot,
    room: Room,
    ledger: Ledger,
    running: list[Running],
    kept: Kept,
    place_: int,
    now: float,
) -> Fit | Wait:
    """Room for the gang, taken from ``room``; else the reason, and a hold when it is the first that quota would let start."""
    clusters = allowed_clusters(job, snapshot.clusters)
    if not clusters:
        down = job.cluster or ", ".join(sorted(snapshot.clusters))
        return Wait(job.id, Why.CLUSTER_DOWN, f"cluster {down} does not answer; the job starts when it is back", place_)
    charge = charge_of(job, clusters[0])
    pods = job.gang.size + int(has_master(job))
    shortage = ledger.shortage(job.queue, charge, pods)
    if shortage is not None:
        blockers = _holders(running, shortage.queue, snapshot)
        sentence = shortage.sentence + _by(blockers, running, job.owner)
        over = shortage.over
        start = quota_hold(job, charge, over, ledger, tuple(running), now)
        if start is not None:
            kept.quota.setdefault(shortage.queue, start)
        return Wait(
            job.id,
            Why.QUOTA,
            sentence,
            place_,
            over,
            queue=shortage.queue,
            blockers=blockers,
            estimated_start=start.start if start else None,
            basis="run-time limits of what runs" if start else "no running job has a limit",
        )
    for step in path_of(snapshot.queues, job.queue):
        quota = kept.quota.get(step.name)
        if quota is not None and not quota.allows(job, charge, now):
            return _behind(job, quota.job, quota.start, place_, queue=step.name)

    key = repr((job.gang, job.cluster, job.work.sidecar, job.timeout_s, job.avoid_nodes))
    misfits: list[tuple[Cluster, Misfit]] = []
    held_back: Hold | None = None
    if key not in kept.failed_shapes:
        for cluster in sorted(clusters, key=lambda c: (-_free_share(c, room), c.name)):
            before = room.copy()
            outcome = place(job, cluster, room)
            if isinstance(outcome, Misfit):
                misfits.append((cluster, outcome))
                continue
            hold = kept.room.get(cluster.name)
            if hold is None or hold.allows(job, outcome, cluster, now):
                return outcome
            room.free = before.free
            held_back = hold
        if held_back is None:
            kept.failed_shapes.add(key)
    if held_back is not None:
        return _behind(job, held_back.job, held_back.start, place_)
    if not misfits:
        return Wait(job.id, Why.BEHIND, "no room: an equal job before it in line does not fit either", place_)
    return _no_room(job, misfits, snapshot, room, running, kept, place_, now)


def _behind(job: Job, first: Job, start: float, place_: int, queue: str | None = None) -> Wait:
    """The wait of a gang whose room or quota is kept for one that waits longer."""
    whose = f"{first.name} ({first.id})" if first.owner == job.owner else "a job"
    sentence = f"room is kept for {whose} that waits longer, and this one could delay it"
    basis = "run-time limits of what runs"
    return Wait(job.id, Why.HOLD, sentence, place_, queue=queue, blockers=(first.id,), estimated_start=start, basis=basis)


def _no_room(
    job: Job,
    misfits: list[tuple[Cluster, Misfit]],
    snapshot: Snapshot,
    room: Room,
    running: list[Running],
    kept: Kept,
    place_: int,
    now: float,
) -> Wait:
    empty = room.emptied()
    possible = [cluster for cluster, _ in misfits if isinstance(place(job, cluster, empty.copy()), Fit)]
    if not possible:
        cluster, _ = misfits[0]
        misfit = place(job, cluster, empty.copy())
        text = misfit.sentence() if isinstance(misfit, Misfit) else ""
        sentence = f"cannot start on cluster {cluster.name} even when it is empty: {text}"
        short = misfit.short if isinstance(misfit, Misfit) else NOTHING
        return Wait(
            job.id,
            Why.NEVER_FITS,
            sentence,
            place_,
            short,
            role=getattr(getattr(misfit, "pod_set", None), "role", None),
        )
    estimate: float | None = None
    for cluster in possible:
        hold = hold_for(job, cluster, room, tuple(running), now)
        if hold is not None:
            estimate = hold.start if estimate is None else min(estimate, hold.start)
            kept.room.setdefault(cluster.name, hold)
    misfit = next(m for c, m in misfits if c is possible[0])
    holders = tuple(r.job_id for r in running if any(key[0] == possible[0].name for key, _ in r.holds))
    sentence = f"no room now: {misfit.sentence()}" + _by(holders, running, job.owner)
    basis = "run-time limits of what runs" if estimate is not None else "no running job has a limit"
    return Wait(
        job.id,
        Why.NO_ROOM,
        sentence,
        place_,
        misfit.short,
        role=misfit.pod_set.role,
        blockers=holders,
        estimated_start=estimate,
        basis=basis,
    )


def _free_share(cluster: Cluster, room: Room) -> float:
    free = total(amount for (name, _), amount in room.free.items() if name == cluster.name)
    return free.dominant_share(total(node.allocatable for node in cluster.nodes)) if free and not free.is_negative() else 0.0


def _holders(running: Iterable[Running], queue: str, snapshot: Snapshot) -> tuple[str, ...]:
    """Jobs that use the queue or one below it."""
    below = {queue}
    grew = True
    while grew:
        more = {q.name for q in snapshot.queues.values() if q.parent in below} - below
        below |= more
        grew = bool(more)
    return tuple(runner.job_id for runner in running if runner.queue in below)


def _by(holders: tuple[str, ...], running: Iterable[Running], owner: str) -> str:
    """Who holds what is missing, as far as the reader may know: their own jobs by id, the rest as a number."""
    owners: Mapping[str, str] = {runner.job_id: runner.owner for runner in running}
    own = [job_id for job_id in holders if owners.get(job_id) == owner]
    others = len(holders) - len(own)
    parts = []
    if own:
        parts.append(f"your {'job' if len(own) == 1 else 'jobs'} {', '.join(own[:3])}{' …' if len(own) > 3 else ''}")
    if others:
        parts.append(f"{others} {'job' if others == 1 else 'jobs'} of others")
    return f" (held by {' and '.join(parts)})" if parts else ""
