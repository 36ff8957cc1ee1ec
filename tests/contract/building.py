"""Jobs, attempts and batches with sensible values, of which a test names only those it is about."""

from collections.abc import Sequence
from typing import Any

from tuttilab.scheduler.domain.events import Event, JobSubmitted
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Gang, Job, JobKind, JobPhase, Output, Pod, PodPhase, PodSet, Work
from tuttilab.scheduler.domain.resources import GPU, Resources
from tuttilab.scheduler.store.base import Batch, Entry

SMALL = Resources.of({"cpu": 1500, "memory": 2**31, GPU: 1})


def a_job(order: int = 1, **changes: Any) -> Job:
    """Job ``order`` of user ana, queued. Its id is 32 hex digits that begin with the order."""
    values: dict[str, Any] = {
        "id": f"{order:04x}" + "a" * 28,
        "name": f"job-{order}",
        "owner": "ana",
        "group": "research",
        "queue": "research",
        "kind": JobKind.BATCH,
        "gang": Gang((PodSet("worker", 2, SMALL, node_labels={"gpu-model": "a100"}),)),
        "work": Work(("python", "train.py"), env={"A": "1"}, outputs=(Output("model", "model.pt"),)),
        "submitted_at": 1000.0 + order,
        "order": order,
        "labels": {"team": "x"},
    }
    return Job(**(values | changes))


def an_ended_job(order: int = 1, phase: JobPhase = JobPhase.SUCCEEDED, **changes: Any) -> Job:
    return a_job(order, **({"phase": phase, "ended_at": 2000.0 + order, "attempts": 1, "exit_code": 0} | changes))


def an_attempt(job: Job, number: int = 1, phase: AttemptPhase = AttemptPhase.RUNNING, **changes: Any) -> Attempt:
    pods = tuple(
        Pod(f"{job.id[:8]}-{number}-{rank}", "worker", rank, "here", "a", SMALL, uid=f"u{rank}", phase=PodPhase.RUNNING)
        for rank in range(job.gang.size)
    )
    values: dict[str, Any] = {
        "job_id": job.id,
        "number": number,
        "phase": phase,
        "cluster": "here",
        "pods": pods,
        "charge": SMALL * job.gang.size,
        "admitted_at": 1500.0,
        "epoch": 1,
    }
    return Attempt(**(values | changes))


def submitted(*jobs: Job, epoch: int = 1, **changes: Any) -> Batch:
    """The batch that accepts ``jobs``."""
    return Batch(epoch, tuple(Entry(JobSubmitted(job), job.submitted_at, job.id) for job in jobs), jobs=jobs, **changes)


def told(epoch: int, events: Sequence[tuple[Event, str]], at: float = 1.0) -> Batch:
    """A batch of events, each with the key it is about, that changes no row."""
    return Batch(epoch, tuple(Entry(event, at, key) for event, key in events))
