"""Pods: seen, ready, started, offering endpoints, ended, or without heartbeat."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.rows import exits, resizing
from tuttilab.scheduler.core.rows.handlers import admission, endings, growth
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction
from tuttilab.scheduler.domain.model import AttemptPhase, PodPhase, StopReason


def seen(rows: Rows, event: ev.PodSeen, at: float) -> list[Instruction]:
    pod = rows.pod(event.job_id, event.attempt, event.pod)
    if pod is not None and pod.uid is None:
        rows.put_pod(event.job_id, event.attempt, replace(pod, uid=event.uid))
    return []


def ready(rows: Rows, event: ev.PodReady, at: float) -> list[Instruction]:
    pod = rows.pod(event.job_id, event.attempt, event.pod)
    if pod is not None and pod.phase is PodPhase.PENDING:
        rows.put_pod(event.job_id, event.attempt, replace(pod, phase=PodPhase.READY))
    return []


def started(rows: Rows, event: ev.PodStarted, at: float) -> list[Instruction]:
    pod = rows.pod(event.job_id, event.attempt, event.pod)
    if pod is not None and pod.phase in (PodPhase.PENDING, PodPhase.READY):
        rows.put_pod(event.job_id, event.attempt, replace(pod, phase=PodPhase.RUNNING, started_at=at))
        if pod.joined_at is not None:
            rows.put_attempt(replace(rows.attempts[event.job_id, event.attempt], failed_growths=0))
        admission.run_when_all_started(rows, event.job_id, event.attempt, at)
        return growth.to_asked(rows, event.job_id, event.attempt)
    return []


def offers(rows: Rows, event: ev.PodOffers, at: float) -> list[Instruction]:
    pod = rows.pod(event.job_id, event.attempt, event.pod)
    if pod is not None and pod.phase is not PodPhase.ENDED and dict(pod.endpoints) != dict(event.endpoints):
        rows.put_pod(event.job_id, event.attempt, replace(pod, endpoints=dict(event.endpoints)))
        return growth.to_asked(rows, event.job_id, event.attempt)
    return []


def ended(rows: Rows, event: ev.PodEnded, at: float) -> list[Instruction]:
    pod = rows.pod(event.job_id, event.attempt, event.pod)
    if pod is None or pod.phase is PodPhase.ENDED:
        return []
    ended_pod = replace(
        pod,
        phase=PodPhase.ENDED,
        exit_code=event.exit_code,
        reason=event.reason,
        ended_at=at,
        outputs=dict(event.outputs),
    )
    attempt = rows.attempts[event.job_id, event.attempt]
    job = rows.jobs[event.job_id]
    if exits.is_refused_by_node(ended_pod) and pod.node not in job.avoid_nodes:
        rows.put_job(replace(job, avoid_nodes=(*job.avoid_nodes, pod.node)))
    if resizing.is_joining(pod) and attempt.phase is AttemptPhase.RUNNING and exits.has_not_run(ended_pod):
        # No work was lost with it: the gang runs on without it.
        ended_pod = replace(ended_pod, is_given_back=True, given_back_why=f"it did not start ({event.reason or 'no trace of it'})")
        rows.put_attempt(growth.backed_off(rows, attempt, at))
    rows.put_pod(event.job_id, event.attempt, ended_pod)
    if ended_pod.is_given_back:
        attempt = rows.put_attempt(resizing.without_pod(rows.attempts[event.job_id, event.attempt], pod.name))
        if attempt.phase is AttemptPhase.STOPPING:
            return endings.finish_when_all_ended(rows, rows.jobs[event.job_id], attempt, at)
        return endings.stop_when_done(rows, event.job_id, event.attempt, at)
    return endings.after_end(rows, event.job_id, event.attempt, ended_pod, at)


def heartbeat_missed(rows: Rows, event: ev.HeartbeatMissed, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or found[1].phase is AttemptPhase.STOPPING:
        return []
    why = f"no sign of life from pod {event.pod}"
    pod = rows.pod(event.job_id, event.attempt, event.pod)
    if pod is not None and pod.is_given_back:
        return []  # Its stop is repeated until the cluster shows that it has ended.
    if pod is not None and resizing.is_joining(pod):
        return growth.failed(rows, ev.GrowthFailed(event.job_id, event.attempt, (event.pod,), why), at)
    return endings.stop(rows, *found, StopReason.MEMBER_LOST, at, why)
