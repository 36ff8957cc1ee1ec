"""DAGs and their runs: stored, submitted, cancelled, retried. `jobs` advances a run."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.rows.handlers import endings, jobs
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction
from tuttilab.scheduler.domain.model import NodePhase, RunPhase


def dag_applied(rows: Rows, event: ev.DagApplied, at: float) -> list[Instruction]:
    known = rows.dags.get(event.dag.name)
    if known is None or event.dag.version == known.version + 1:
        rows.put_dag(event.dag)
    return []


def submitted(rows: Rows, event: ev.RunSubmitted, at: float) -> list[Instruction]:
    if event.run.id not in rows.runs:
        jobs.advance_run(rows, event.run, at)
    return []


def cancel_requested(rows: Rows, event: ev.RunCancelRequested, at: float) -> list[Instruction]:
    run = rows.runs.get(event.run_id)
    if run is None or run.phase is not RunPhase.RUNNING or run.cancel_requested:
        return []
    jobs.advance_run(rows, replace(run, cancel_requested=True), at)
    cancels = [ev.JobCancelRequested(node.job.id, event.by) for node in run.nodes if node.phase is NodePhase.SUBMITTED]
    return [instruction for cancel in cancels for instruction in endings.cancel_requested(rows, cancel, at)]


def retried(rows: Rows, event: ev.RunRetried, at: float) -> list[Instruction]:
    run = rows.runs.get(event.run_id)
    if run is None or run.phase is RunPhase.RUNNING:
        return []
    nodes = tuple(
        replace(node, job=event.jobs[node.name], phase=NodePhase.PENDING, reason="") if node.name in event.jobs else node
        for node in run.nodes
    )
    jobs.advance_run(rows, replace(run, nodes=nodes, phase=RunPhase.RUNNING, cancel_requested=False, ended_at=None), at)
    return []
