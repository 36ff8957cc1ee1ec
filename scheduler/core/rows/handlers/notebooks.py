"""Notebook servers, which the hub starts and ends (`core.kinds.notebook`), and their profiles."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.kinds import notebook
from tuttilab.scheduler.core.rows.handlers import endings, jobs, pods
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction
from tuttilab.scheduler.domain.model import JobKind, JobPhase, StopReason


def active(rows: Rows, event: ev.NotebookActive, at: float) -> list[Instruction]:
    found = rows.find_live(event.job_id, event.attempt)
    if found is not None and found[0].kind is JobKind.NOTEBOOK:
        rows.usage.active_at[event.job_id] = at
        rows.usage.update_job(found[0])
    return []


def expired(rows: Rows, event: ev.NotebookExpired, at: float) -> list[Instruction]:
    job, attempt = rows.jobs.get(event.job_id), rows.live_attempt(event.job_id)
    if job is None or job.phase.is_terminal or not notebook.may_expire(attempt):
        return []
    reason = "nobody waited for it any more"
    if attempt is None:
        jobs.end(rows, job, JobPhase.CANCELLED, at, reason, None)
        return []
    instructions = endings.stop(rows, rows.put_job(replace(job, cancel_requested=True)), attempt, StopReason.CANCELLED, at, reason)
    for pod in attempt.pods:
        instructions += pods.ended(rows, ev.PodEnded(job.id, attempt.number, pod.name, None, "NeverStarted"), at)
    return instructions


def profile_applied(rows: Rows, event: ev.ProfileApplied, at: float) -> list[Instruction]:
    rows.put_profile(event.profile)
    return []


def profile_deleted(rows: Rows, event: ev.ProfileDeleted, at: float) -> list[Instruction]:
    rows.delete_profile(event.name)
    return []
