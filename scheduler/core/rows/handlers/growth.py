"""Growth and shrinking of a running gang (`core.rows.resizing` computes the attempt)."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.ordering.shares import lower_of
from tuttilab.scheduler.core.rows import lifecycle, resizing
from tuttilab.scheduler.core.rows.handlers.admission import pod_name
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction, LaunchGang, StopPods
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase


def grown(rows: Rows, event: ev.GangGrown, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or event.epoch != rows.epoch or found[1].phase is not AttemptPhase.RUNNING:
        return []
    job, attempt = found
    cluster = rows.clusters.get(attempt.cluster)
    if cluster is None or cluster.unreachable_since is not None or at < attempt.grows_at:
        return []
    # The job may have asked for fewer since this was decided.
    wanted = {rank for _, ranks in resizing.wanted(job, attempt) for rank in ranks}
    places = [place for place in event.placements if place.rank in wanted]
    more = resizing.grown(job, attempt, cluster, places, pod_name, at)
    charge = more.charge - attempt.charge
    room = rows.usage.room(rows.clusters).copy_of(cluster.name)
    for pod in more.pods[len(attempt.pods) :]:
        if not room.fits((pod.cluster, pod.node), pod.resources):
            return []
        room.take((pod.cluster, pod.node), pod.resources)
    count = len(more.pods) - len(attempt.pods)
    ledger = rows.usage.ledger
    if not count or ledger.shortage(job.queue, charge, count, job.is_preemptible, jobs=0) is not None:
        return []
    rows.put_attempt(replace(more, standing=lower_of(attempt.standing, ledger.standing(job.queue, charge))))
    return [LaunchGang(job.id, attempt.number)]


def shrunk(rows: Rows, event: ev.GangShrunk, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or found[1].phase is not AttemptPhase.RUNNING:
        return []
    job, attempt = found
    fewer, names = resizing.shrunk(job, attempt, event.pods, event.reason)
    if not names:
        return []
    rows.put_attempt(fewer)
    return [StopPods(job.id, attempt.number, names, job.work.grace_s)]


def to_asked(rows: Rows, job_id: str, number: int) -> list[Instruction]:
    """Give back the pods above what the job says that it can use."""
    found = rows.find_live(job_id, number)
    if found is None or found[1].phase is not AttemptPhase.RUNNING:
        return []
    job, attempt = found
    asked = resizing.asked_of(attempt)
    if asked is None:
        return []
    fewer, names = resizing.shrunk(job, attempt, resizing.unasked(job, attempt), f"the job asked for {asked} workers")
    if not names:
        return []
    rows.put_attempt(fewer)
    return [StopPods(job.id, attempt.number, names, job.work.grace_s)]


def failed(rows: Rows, event: ev.GrowthFailed, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or found[1].phase is not AttemptPhase.RUNNING:
        return []
    job, attempt = found
    fewer, names = resizing.unstarted(attempt, event.pods, event.reason)
    if not names:
        return []
    rows.put_attempt(backed_off(rows, fewer, at))
    if event.node and event.node not in job.avoid_nodes:
        job = rows.put_job(replace(job, avoid_nodes=(*job.avoid_nodes, event.node)))
    return [StopPods(job.id, attempt.number, names, job.work.grace_s)]


def backed_off(rows: Rows, attempt: Attempt, at: float) -> Attempt:
    """The attempt after a growth whose pods did not start: the back-off before the next growth doubles until one starts."""
    tries = attempt.failed_growths + 1
    return replace(attempt, failed_growths=tries, grows_at=at + lifecycle.back_off_s(tries, rows.rules.back_off_s))
