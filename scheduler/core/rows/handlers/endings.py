"""How an attempt ends, and what its job does then.

An event gives a reason, `stop` stops all pods, `after_end` handles each pod that has ended, and after the last one `_finish` ends
the job or queues it again (`jobs`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.kinds import spark
from tuttilab.scheduler.core.rows import exits, lifecycle
from tuttilab.scheduler.core.rows.handlers import jobs
from tuttilab.scheduler.core.rows.handlers.admission import run_when_all_started
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.core.snapshot import usage_of
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import ForgetPods, Instruction, StopGang
from tuttilab.scheduler.domain.model import MASTER, Attempt, AttemptPhase, Job, JobKind, JobPhase, Pod, PodPhase, StopReason
from tuttilab.scheduler.domain.resources import show_duration

ENDED_BY_ITSELF: Final = (None, StopReason.REQUIRED_DONE, StopReason.MEMBER_FAILED, StopReason.TIMEOUT)
"""Reasons for a stop (None: it ended without one) after which the run time counts in the history for estimates."""

# --- stops -----------------------------------------------------------------------------------------------------------


def cancel_requested(rows: Rows, event: ev.JobCancelRequested, at: float) -> list[Instruction]:
    job = rows.jobs.get(event.job_id)
    if job is None or job.phase.is_terminal or job.cancel_requested:
        return []
    job = replace(job, cancel_requested=True)
    if job.phase is JobPhase.QUEUED:
        jobs.end(rows, job, JobPhase.CANCELLED, at, "cancelled before it started", None)
        return []
    rows.put_job(job)
    attempt = rows.live_attempt(job.id)
    return stop(rows, job, attempt, StopReason.CANCELLED, at, f"cancelled by {event.by}") if attempt else []


def preempted(rows: Rows, event: ev.GangPreempted, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or found[1].phase is AttemptPhase.STOPPING:
        return []
    job = found[0]
    if rows.has_running_cell(job, at) and not rows.queues[job.queue].stops_busy_notebooks:
        return []  # A cell started after the decision's snapshot.
    return stop(rows, *found, StopReason.PREEMPTED, at, event.reason)


def gave_way(rows: Rows, event: ev.SessionGaveWay, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or found[1].phase is AttemptPhase.STOPPING:
        return []
    job, attempt = found
    if spark.idle_since(job, attempt) is None:
        return []  # It was used after the decision's snapshot.
    return stop(rows, rows.put_job(replace(job, cancel_requested=True)), attempt, StopReason.CANCELLED, at, event.reason)


def launch_failed(rows: Rows, event: ev.LaunchFailed, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None:
        return []
    job, attempt = found
    most = lifecycle.MOST_FAILED_LAUNCHES - 1 if event.permanent else job.failed_launches
    avoid = (*job.avoid_nodes, event.node) if event.node and event.node not in job.avoid_nodes else job.avoid_nodes
    job = rows.put_job(replace(job, failed_launches=most, avoid_nodes=avoid))
    return stop(rows, job, attempt, StopReason.LAUNCH_FAILED, at, event.reason)


def barrier_timed_out(rows: Rows, event: ev.BarrierTimedOut, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or found[1].phase is not AttemptPhase.LAUNCHING:
        return []
    late = [pod.name for pod in found[1].members if pod.phase is PodPhase.PENDING]
    after = show_duration(max(at - found[1].admitted_at, 1))
    why = f"not all pods were ready after {after}: {', '.join(late[:5]) or 'none started'}"
    return stop(rows, *found, StopReason.BARRIER_TIMEOUT, at, why)


def run_timed_out(rows: Rows, event: ev.RunTimedOut, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is None or found[1].phase is not AttemptPhase.RUNNING or found[0].timeout_s is None:
        return []
    limit = show_duration(found[0].timeout_s)
    option = "--ttl" if found[0].kind is JobKind.SPARK else "--timeout"
    return stop(rows, *found, StopReason.TIMEOUT, at, f"ran past its limit of {limit}; raise {option} or do less")


def stop(rows: Rows, job: Job, attempt: Attempt, why: StopReason, at: float, reason: str) -> list[Instruction]:
    """Stop all pods. The first reason is kept, except that a cancel replaces it unless the required members are done."""
    if attempt.phase is AttemptPhase.STOPPING:
        if why is StopReason.CANCELLED and attempt.stop_reason is not StopReason.REQUIRED_DONE:
            rows.put_attempt(replace(attempt, stop_reason=why, reason=reason))
        return [StopGang(job.id, attempt.number, job.work.grace_s, why)]
    stopping = replace(lifecycle.move_attempt(attempt, AttemptPhase.STOPPING), stopping_at=at, stop_reason=why, reason=reason)
    rows.put_attempt(stopping)
    return [
        StopGang(job.id, attempt.number, job.work.grace_s, why),
        *finish_when_all_ended(rows, job, stopping, at),
    ]


# --- ended pods ------------------------------------------------------------------------------------------------------


def after_end(rows: Rows, job_id: str, number: int, ended: Pod, at: float) -> list[Instruction]:
    """Handle the end of a pod: after a success the attempt may be done, any other end stops the gang."""
    job, attempt = rows.jobs[job_id], rows.attempts[job_id, number]
    if attempt.phase is AttemptPhase.STOPPING:
        return finish_when_all_ended(rows, job, attempt, at)
    if ended.role == MASTER and not exits.is_refused_by_node(ended):
        if ended.exit_code == 0:
            return []  # A master exits with 0 only after its members have ended; their terminal records will follow.
        why = f"its master ended first ({ended.reason or 'no reason given'})"
        return stop(rows, job, attempt, StopReason.MEMBER_LOST, at, why)
    if exits.is_refused_by_node(ended):
        why = f"node {ended.node} did not take pod {ended.name} ({ended.reason})"
        return stop(rows, job, attempt, StopReason.MEMBER_LOST, at, why)
    if ended.exit_code is None:
        return stop(rows, job, attempt, StopReason.MEMBER_LOST, at, exits.describe_loss(ended))
    if ended.reason == exits.LEASE_LOST:
        why = f"pod {ended.name} stopped itself, cut off from its master"
        return stop(rows, job, attempt, StopReason.MEMBER_LOST, at, why)
    if ended.exit_code != 0:
        return stop(rows, job, attempt, StopReason.MEMBER_FAILED, at, exits.describe_end(job.gang, ended))
    run_when_all_started(rows, job_id, number, at)
    return stop_when_done(rows, job_id, number, at)


def stop_when_done(rows: Rows, job_id: str, number: int, at: float) -> list[Instruction]:
    """End the attempt with success when all required members have ended, without waiting for those given back."""
    job, attempt = rows.jobs[job_id], rows.attempts[job_id, number]
    if rows.places.any_of(attempt, "ends", lambda pod: pod.phase is not PodPhase.ENDED and exits.is_awaited(job.gang, pod)) is None:
        if all(pod.phase is PodPhase.ENDED for pod in attempt.pods):
            return _finish(rows, job, attempt, at, AttemptPhase.SUCCEEDED)
        return stop(rows, job, attempt, StopReason.REQUIRED_DONE, at, "")
    return []


def finish_when_all_ended(rows: Rows, job: Job, attempt: Attempt, at: float) -> list[Instruction]:
    if any(pod.phase is not PodPhase.ENDED for pod in attempt.pods):
        return []
    job = rows.jobs[job.id]
    phase = {
        None: AttemptPhase.SUCCEEDED,
        StopReason.REQUIRED_DONE: AttemptPhase.SUCCEEDED,
        StopReason.CANCELLED: AttemptPhase.CANCELLED,
        StopReason.PREEMPTED: AttemptPhase.PREEMPTED,
        StopReason.MEMBER_LOST: AttemptPhase.LOST,
    }.get(attempt.stop_reason, AttemptPhase.FAILED)
    return _finish(rows, job, attempt, at, phase)


# --- the end ---------------------------------------------------------------------------------------------------------


def _finish(rows: Rows, job: Job, attempt: Attempt, at: float, phase: AttemptPhase) -> list[Instruction]:
    """End the attempt, and end its job or queue it again."""
    exit_code = exits.exit_code(job.gang, attempt)
    if attempt.phase is AttemptPhase.LAUNCHING and phase is AttemptPhase.SUCCEEDED:
        attempt = lifecycle.move_attempt(attempt, AttemptPhase.RUNNING)
    rows.accounts.record_ended(usage_of(rows.usage.running_of(job.id), at), rows.queues)
    attempt = replace(lifecycle.move_attempt(attempt, phase), ended_at=at, exit_code=exit_code)
    rows.put_attempt(attempt)
    if attempt.started_at is not None and attempt.stop_reason in ENDED_BY_ITSELF:
        rows.history.record_run(job, (attempt.stopping_at or at) - attempt.started_at, attempt.prediction)
    done: list[Instruction] = [ForgetPods(job.id, attempt.number)]
    if phase is AttemptPhase.SUCCEEDED:
        jobs.end(rows, job, JobPhase.SUCCEEDED, at, "", 0)
    elif job.cancel_requested or phase is AttemptPhase.CANCELLED:
        jobs.end(rows, job, JobPhase.CANCELLED, at, attempt.reason or "cancelled", exit_code)
    elif phase is AttemptPhase.FAILED:
        _fail_or_requeue(rows, job, attempt, at)
    elif (untraced := exits.untraced_pod(attempt)) is not None:
        jobs.end(rows, job, JobPhase.FAILED, at, exits.describe_end(job.gang, untraced), exit_code)
    elif phase is AttemptPhase.LOST:
        _give_up_or_requeue(rows, job, attempt, at)
    else:
        jobs.requeue(rows, job, at, attempt.reason, max(attempt.number - job.failures, 1))
    return done


def _give_up_or_requeue(rows: Rows, job: Job, attempt: Attempt, at: float) -> None:
    """A loss costs no retry, but a job that brings down each node that it gets must not go on for ever."""
    ran_s = 0.0 if attempt.started_at is None else (attempt.stopping_at or at) - attempt.started_at
    job = replace(job, losses=1 if ran_s >= lifecycle.SETTLED_S else job.losses + 1)
    if job.losses < lifecycle.MOST_LOSSES:
        jobs.requeue(rows, job, at, attempt.reason, max(attempt.number - job.failures, 1))
        return
    why = (
        f"was lost {job.losses} times in a row, each time within {show_duration(lifecycle.SETTLED_S)} of its start; the last time: "
        f"{attempt.reason}. See whether what it does brings its nodes down, then submit it again"
    )
    jobs.end(rows, job, JobPhase.FAILED, at, why, attempt.exit_code)


def _fail_or_requeue(rows: Rows, job: Job, attempt: Attempt, at: float) -> None:
    if (untraced := exits.untraced_pod(attempt)) is not None:
        jobs.end(rows, job, JobPhase.FAILED, at, exits.describe_end(job.gang, untraced), attempt.exit_code)
    elif attempt.stop_reason in (StopReason.LAUNCH_FAILED, StopReason.BARRIER_TIMEOUT):
        job = replace(job, failed_launches=job.failed_launches + 1)
        if job.failed_launches >= lifecycle.MOST_FAILED_LAUNCHES:
            jobs.end(rows, job, JobPhase.FAILED, at, f"could not be launched: {attempt.reason}", attempt.exit_code)
        else:
            jobs.requeue(rows, job, at, attempt.reason, job.failed_launches)
    elif attempt.stop_reason is not StopReason.TIMEOUT and job.failures < job.retries:
        jobs.requeue(rows, replace(job, failures=job.failures + 1), at, attempt.reason, job.failures + 1)
    else:
        jobs.end(rows, job, JobPhase.FAILED, at, attempt.reason, attempt.exit_code)
