"""Admission applied: makes the attempt, Launching before any pod exists, and Running once all members have started."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.placement.fit import allowed_clusters, charge_of, pod_cost
from tuttilab.scheduler.core.placement.node_arrays import node_arrays_of
from tuttilab.scheduler.core.rows import lifecycle, resizing
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction, LaunchGang
from tuttilab.scheduler.domain.model import MASTER, Attempt, AttemptPhase, Cluster, Job, JobPhase, Pod, PodPhase


def admitted(rows: Rows, event: ev.GangAdmitted, at: float) -> list[Instruction]:
    job = rows.jobs.get(event.job_id)
    cluster = rows.clusters.get(event.cluster)
    if job is None or cluster is None or not _may_still_start(rows, job, cluster, event):
        return []
    by_role = {pod_set.role: pod_cost(job, pod_set, cluster) for pod_set in job.gang.pod_sets}
    pods = tuple(
        Pod(
            name=pod_name(job.id, event.attempt, place.role, place.rank),
            role=place.role,
            rank=place.rank,
            cluster=cluster.name,
            node=place.node,
            resources=cluster.master_cost if place.role == MASTER else by_role[place.role],
        )
        for place in event.placements
    )
    charge = charge_of(job, cluster, resizing.counts_of(event.placements))
    attempt = Attempt(
        job_id=job.id,
        number=event.attempt,
        phase=AttemptPhase.ADMITTED,
        cluster=cluster.name,
        pods=pods,
        charge=charge,
        admitted_at=at,
        epoch=event.epoch,
        standing=rows.usage.ledger.standing(job.queue, charge),
        is_class_exempt=event.is_class_exempt,
        cluster_total=node_arrays_of(cluster).total,
        prediction=event.prediction,
        waited_for=event.waited_for,
        past=event.past,
    )
    rows.accuracy.started(job.id, at)
    rows.put_job(replace(lifecycle.move_job(job, JobPhase.ACTIVE), attempts=event.attempt, reason=""))
    rows.put_attempt(lifecycle.move_attempt(attempt, AttemptPhase.LAUNCHING))
    rows.note_passed(attempt)
    return [LaunchGang(job.id, event.attempt)]


def _may_still_start(rows: Rows, job: Job, cluster: Cluster, event: ev.GangAdmitted) -> bool:
    """Whether the decision still holds: the rows may have changed since its snapshot."""
    is_next = job.phase is JobPhase.QUEUED and event.attempt == job.attempts + 1 and not job.cancel_requested
    if not is_next or event.epoch != rows.epoch or cluster.unreachable_since is not None:
        return False
    counts = resizing.counts_of(event.placements)
    path = rows.usage.ledger.path(job.queue)
    if not resizing.is_whole(job, event.placements) or cluster not in allowed_clusters(job, rows.clusters, path):
        return False
    charge = charge_of(job, cluster, counts)
    if rows.usage.ledger.shortage(job.queue, charge, len(event.placements), job.is_preemptible) is not None:
        return False
    room = rows.usage.room(rows.clusters).copy_of(cluster.name)
    by_role = {pod_set.role: pod_cost(job, pod_set, cluster) for pod_set in job.gang.pod_sets}
    by_role[MASTER] = cluster.master_cost
    for place in event.placements:
        key, amount = (cluster.name, place.node), by_role[place.role]
        if not room.fits(key, amount):
            return False
        room.take(key, amount)
    return True


def pod_name(job_id: str, attempt: int, role: str, rank: int) -> str:
    """Known before the pod exists; unique in the service because job ids are."""
    return f"{job_id}-{attempt}-{role}" if role == MASTER else f"{job_id}-{attempt}-{role}-{rank}"


def run_when_all_started(rows: Rows, job_id: str, number: int, at: float) -> None:
    """Make the attempt Running once every member runs or has run; its run time counts from then on."""
    job, attempt = rows.jobs[job_id], rows.attempts[job_id, number]
    if attempt.phase is AttemptPhase.LAUNCHING and rows.places.any_of(attempt, "starts", _has_to_start) is None:
        rows.put_attempt(replace(lifecycle.move_attempt(attempt, AttemptPhase.RUNNING), started_at=at))
        rows.put_job(replace(job, failed_launches=0, started_at=job.started_at if job.started_at is not None else at))


def _has_to_start(pod: Pod) -> bool:
    return pod.role != MASTER and pod.phase not in (PodPhase.RUNNING, PodPhase.ENDED)
