"""A job as a whole: accepted, queued again, ended, deleted; and the run of a DAG that goes on when one of its jobs ends.

One leads to the other: the end of a job makes the next nodes of its run ready, whose jobs are accepted in the same turn, and ends
those that come after it and can never start now.
"""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core import dag, lifecycle
from tuttilab.scheduler.core.rows import Rows
from tuttilab.scheduler.instructions import DropJob, Instruction
from tuttilab.scheduler.model import Job, JobKind, JobPhase, Run, RunPhase


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
        _end_if_hopeless(rows, job.id, rows.jobs.get(waited_for), waited_for, at)


def requeue(rows: Rows, job: Job, at: float, reason: str, tries: int) -> None:
    """Back to the queue after an attempt that did not succeed; it waits the longer, the more ``tries`` there were."""
    if job.kind is JobKind.NOTEBOOK:
        # Nobody but its user starts a server again.
        end(rows, job, JobPhase.CANCELLED, at, reason, None)
        return
    queued = lifecycle.move_job(job, JobPhase.QUEUED)
    again = rows.put_job(replace(queued, reason=reason, not_before=at + lifecycle.back_off_s(tries)))
    rows.begin_wait(again, at)


def end(rows: Rows, job: Job, phase: JobPhase, at: float, reason: str, exit_code: int | None) -> None:
    """The job's last change, and what follows from it for its run and for those that come after it."""
    ended = replace(lifecycle.move_job(job, phase), ended_at=at, reason=reason, exit_code=exit_code)
    rows.put_job(ended)
    _end_node(rows, ended, at)
    for waiting_id in rows.followers(job.id):
        _end_if_hopeless(rows, waiting_id, ended, job.id, at)
        if rows.is_queued(waiting_id):
            rows.begin_wait(rows.jobs[waiting_id], at)


def _end_if_hopeless(rows: Rows, job_id: str, waited_for: Job | None, waited_id: str, at: float) -> None:
    """A job whose predecessor ended without success, or is gone, ends too: it could never start."""
    job = rows.jobs[job_id]
    if job.phase.is_terminal:
        return
    if waited_for is None:
        end(rows, job, JobPhase.CANCELLED, at, f"job {waited_id}, which it comes after, does not exist", None)
    elif waited_for.phase in (JobPhase.FAILED, JobPhase.CANCELLED):
        end(rows, job, JobPhase.CANCELLED, at, ended_without_success(waited_for), None)


def ended_without_success(waited_for: Job) -> str:
    """Why a job that comes after this one can never start."""
    how = waited_for.phase.lower()
    return f"job {waited_for.id}, which it comes after, {how if how == 'failed' else 'was ' + how}"


def advance_run(rows: Rows, run: Run, at: float) -> None:
    """Submit the nodes that became ready, in the same turn as the ends that made them so."""
    run, ready = dag.advance(run)
    if run.phase is not RunPhase.RUNNING:
        run = replace(run, ended_at=at)
    rows.put_run(run)
    for node in ready:
        accept(rows, replace(node.job, submitted_at=at), at)


def _end_node(rows: Rows, job: Job, at: float) -> None:
    found = rows.node_of(job.id)
    if found is None:
        return
    run = rows.runs[found[0]]
    nodes = tuple(
        replace(node, phase=dag.node_phase(job.phase), reason=job.reason) if node.name == found[1] else node for node in run.nodes
    )
    advance_run(rows, replace(run, nodes=nodes), at)
