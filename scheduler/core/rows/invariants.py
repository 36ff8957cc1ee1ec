"""Invariants of the rows, and between the rows and the usage counted from them (I1 to I5, I10 and I27)."""

from __future__ import annotations

from collections.abc import Container, Mapping

from tuttilab.scheduler.core.placement.node_arrays import node_arrays_of
from tuttilab.scheduler.core.placement.room import NodeKey
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.core.rows.unfinished import Unfinished
from tuttilab.scheduler.domain.errors import Bug
from tuttilab.scheduler.domain.model import JobPhase
from tuttilab.scheduler.domain.resources import NOTHING, Resources, total


def check(rows: Rows, lowered: Container[str] = ()) -> None:
    """Raises Bug when one does not hold. ``lowered``: queues whose limits were set below what runs, which keeps running."""
    _check_jobs(rows)
    _check_quota(rows, lowered)
    _check_room(rows)
    _check_unfinished(rows)
    if set(rows.accounts.rows) != {job.id for job in rows.queued()}:
        raise Bug("I27: the overtaking accounts are not those of the queued jobs")
    for _, attempt in rows.live():
        if total(pod.resources for pod in attempt.pods) != attempt.charge:
            raise Bug(f"I5: attempt {attempt.job_id}/{attempt.number} is charged {attempt.charge}, its pods hold something else")


def _check_jobs(rows: Rows) -> None:
    for job in rows.jobs.values():
        live = [a for (job_id, _), a in rows.attempts.items() if job_id == job.id and a.phase.is_live]
        if len(live) > 1 or (len(live) == 1) != (job.phase is JobPhase.ACTIVE):
            raise Bug(f"I2: job {job.id} is {job.phase} with {len(live)} live attempts")
        if rows.is_queued(job.id) != (job.phase is JobPhase.QUEUED):
            raise Bug(f"I1: job {job.id} is {job.phase} but the list of queued jobs says otherwise")
        if job.failures > job.retries:
            raise Bug(f"I10: job {job.id} failed {job.failures} times with {job.retries} retries")


def _check_unfinished(rows: Rows) -> None:
    counted = Unfinished()
    for job in rows.jobs.values():
        counted.put(job)
    for run in rows.runs.values():
        counted.put_run(run)
    if counted != rows.unfinished:
        raise Bug("I27: the unfinished jobs of each user are not those of the rows")


def _check_quota(rows: Rows, lowered: Container[str]) -> None:
    ledger, counted = rows.ledger(), rows.usage.ledger
    for name, queue in rows.queues.items():
        if (name not in lowered and not ledger.use[name].within(queue.max)) or ledger.use[name].is_negative():
            raise Bug(f"I4: queue {name} uses {ledger.use[name]}, its max is {queue.max}")
        if ledger.use[name] != rows.use(name) or (ledger.use[name], ledger.pods[name]) != (counted.use[name], counted.pods[name]):
            raise Bug(f"I4: queue {name}: {counted.use[name]} in the ledger, {rows.use(name)} in its rows")


def _check_room(rows: Rows) -> None:
    nodes: Mapping[NodeKey, Resources] = {(c.name, n.name): n.allocatable for c in rows.clusters.values() for n in c.nodes}
    for key, used in rows.node_use().items():
        if key in nodes and not used.fits(nodes[key]):
            raise Bug(f"I3: node {key} holds {used} of {nodes[key]}")
    for name, free in rows.usage.room(rows.clusters).free.items():
        arrays = node_arrays_of(rows.clusters[name])
        for row, node in enumerate(arrays.nodes):
            left = arrays.amounts(arrays.ours[row]) - rows.node_use().get((name, node.name), NOTHING)
            if arrays.amounts(free[row]) != left:
                raise Bug(f"I3: node {name}/{node.name} has {left} left by its rows, the usage says otherwise")
