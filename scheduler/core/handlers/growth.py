"""A running gang is given pods and gives them back. What it is then with more or fewer of them says `core.resizing`."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core import lifecycle, resizing
from tuttilab.scheduler.core.handlers.admission import pod_name
from tuttilab.scheduler.core.rows import Rows
from tuttilab.scheduler.core.standing import lower_of
from tuttilab.scheduler.instructions import Instruction, LaunchGang, StopPods
from tuttilab.scheduler.model import Attempt, AttemptPhase


def grown(rows: Rows, event: ev.GangGrown, at: float) -> list[Instruction]:
    found = rows.live_one(event.job_id, event.attempt)
    if found is None or event.epoch != rows.epoch or found[1].phase is not AttemptPhase.RUNNING:
        return []
    job, attempt = found
    cluster = rows.clusters.get(attempt.cluster)
    if cluster is None or cluster.unreachable_since is not None or at < attempt.grows_at:
        return []
    more = resizing.grown(job, attempt, cluster, event.placements, pod_name, at)
    charge = more.charge - attempt.charge
    room = rows.books.room(rows.clusters).copy_of(cluster.name)
    for pod in more.pods[len(attempt.pods) :]:
        if not room.fits((pod.cluster, pod.node), pod.resources):
            return []
        room.take((pod.cluster, pod.node), pod.resources)
    count = len(more.pods) - len(attempt.pods)
    ledger = rows.books.ledger
    if not count or ledger.shortage(job.queue, charge, count, job.is_preemptible, jobs=0) is not None:
        return []
    rows.put_attempt(replace(more, standing=lower_of(attempt.standing, ledger.standing(job.queue, charge))))
    return [LaunchGang(job.id, attempt.number)]


def shrunk(rows: Rows, event: ev.GangShrunk, at: float) -> list[Instruction]:
    found = rows.live_one(event.job_id, event.attempt)
    if found is None or found[1].phase is not AttemptPhase.RUNNING:
        return []
    job, attempt = found
    fewer, names = resizing.shrunk(job, attempt, event.pods, event.reason)
    if not names:
        return []
    rows.put_attempt(fewer)
    return [StopPods(job.id, attempt.number, names, job.work.grace_s)]


def failed(rows: Rows, event: ev.GrowthFailed, at: float) -> list[Instruction]:
    found = rows.live_one(event.job_id, event.attempt)
    if found is None or found[1].phase is not AttemptPhase.RUNNING:
        return []
    job, attempt = found
    fewer, names = resizing.unstarted(attempt, event.pods, event.reason)
    if not names:
        return []
    rows.put_attempt(backed_off(fewer, at))
    if event.node and event.node not in job.avoid_nodes:
        job = rows.put_job(replace(job, avoid_nodes=(*job.avoid_nodes, event.node)))
    return [StopPods(job.id, attempt.number, names, job.work.grace_s)]


def backed_off(attempt: Attempt, at: float) -> Attempt:
    """Pods that it was given did not start: the next ones come later each time, until one starts."""
    tries = attempt.failed_growths + 1
    return replace(attempt, failed_growths=tries, grows_at=at + lifecycle.back_off_s(tries))
