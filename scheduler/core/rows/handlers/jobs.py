"""Jobs: accepted, queued again, ended, deleted; and the advance of a DAG run when one of its jobs ends.

They depend on each other: the end of a job makes the next nodes of its run ready, whose jobs are accepted in the same turn, and
cancels dependents that can no longer start.
"""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core import dag
from tuttilab.scheduler.core.rows import lifecycle
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import DropJob, Instruction
from tuttilab.scheduler.domain.model import Job, JobKind, JobPhase, Run, RunPhase
from tuttilab.scheduler.domain.titles import title, title_of


def submitted(rows: Rows, event: ev.JobSubmitted, at: float) -> list[Instruction]:
    if event.job.id in rows.jobs:
        return []
    accept(rows, event.job, at)
    return []


def deleted(rows: Rows, event: ev.JobDeleted, at: float) -> list[Instruction]:
    job = rows.jobs.get(event.job_id)
    if job is None or not job.phase.is_terminal:
        return []
    rows.delete_job(event.job_id)
    return [DropJob(event.job_id, job.attempts)]


def accept(rows: Rows, job: Job, at: float) -> None:
    rows.put_job(job)
    rows.begin_wait(job, at)
    for waited_for in job.after:
        _cancel_if_unstartable(rows, job.id, rows.jobs.get(waited_for), waited_for, at)


def requeue(rows: Rows, job: Job, at: float, reason: str, tries: int) -> None:
    """Queue the job again after an attempt that did not succeed, with a back-off that grows with ``tries``."""
    if job.kind is JobKind.NOTEBOOK:
        # Only its user starts a notebook server again.
        end(rows, job, JobPhase.CANCELLED, at, reason, None)
        return
    queued = lifecycle.move_job(job, JobPhase.QUEUED)
    again = rows.put_job(replace(queued, reason=reason, not_before=at + lifecycle.back_off_s(tries, rows.rules.back_off_s)))
    rows.begin_wait(again, at)


def end(rows: Rows, job: Job, phase: JobPhase, at: float, reason: str, exit_code: int | None) -> None:
    """End the job, then advance its run and cancel dependents that can no longer start."""
    ended = replace(lifecycle.move_job(job, phase), ended_at=at, reason=reason, exit_code=exit_code)
    rows.put_job(ended)
    _end_node(rows, ended, at)
    for waiting_id in rows.dependents(job.id):
        _cancel_if_unstartable(rows, waiting_id, ended, job.id, at)
        if rows.is_queued(waiting_id):
            rows.begin_wait(rows.jobs[waiting_id], at)


def _cancel_if_unstartable(rows: Rows, job_id: str, waited_for: Job | None, waited_id: str, at: float) -> None:
    """Cancel a job whose predecessor did not succeed or does not exist: it could never start."""
    job = rows.jobs[job_id]
    if job.phase.is_terminal:
        return
    if waited_for is None:
        end(rows, job, JobPhase.CANCELLED, at, f"job {title_of(waited_id)}, which it comes after, does not exist", None)
    elif waited_for.phase in (JobPhase.FAILED, JobPhase.CANCELLED):
        end(rows, job, JobPhase.CANCELLED, at, ended_without_success(waited_for), None)


def ended_without_success(waited_for: Job) -> str:
    """Why a job that comes after this one cannot start."""
    how = waited_for.phase.lower()
    return f"job {title(waited_for)}, which it comes after, {how if how == 'failed' else 'was ' + how}"


def advance_run(rows: Rows, run: Run, at: float) -> None:
    """Put the run and accept the jobs of nodes that became ready."""
    run, ready = dag.advance(run)
    if run.phase is not RunPhase.RUNNING:
        run = replace(run, ended_at=at)
    rows.put_run(run)
    for node in ready:
        accept(rows, replace(node.job, submitted_at=at), at)


def _end_node(rows: Rows, job: Job, at: float) -> None:
    found = rows.run_node_of(job.id)
    if found is None:
        return
    run = rows.runs[found[0]]
    nodes = tuple(
        replace(node, phase=dag.node_phase(job.phase), reason=job.reason) if node.name == found[1] else node for node in run.nodes
    )
    advance_run(rows, replace(run, nodes=nodes), at)
