"""A site's own past as a trace: the jobs that ran, the nodes they ran on, and what happened to the clusters meanwhile.

Read from the rows and the journal of a database that another process may be leading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tuttilab.scheduler.core.rows.tuning import tuning_of
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.model import Cluster, Job, JobKind, JobPhase, Queue, Tuning, Work
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, total
from tuttilab.scheduler.simulation.trace import TraceJob
from tuttilab.scheduler.store.base import JobQuery
from tuttilab.scheduler.store.queries import JournalQuery, QueryStore

PAGE: Final = 500
MOST_CHANGES: Final = 20_000
"""Newest lines about clusters that are read."""
DAY_S: Final = 86400.0
LEAST_S: Final = 0.001

_OF_CLUSTERS: Final = ("ClusterObserved", "OthersObserved", "ClusterLost", "ClusterBack")
ClusterEvent = ev.ClusterObserved | ev.OthersObserved | ev.ClusterLost | ev.ClusterBack


@dataclass(frozen=True, slots=True)
class Past:
    """Times are seconds since ``began``, the submission of the first job."""

    trace: tuple[TraceJob, ...]
    jobs: dict[str, Job]
    """As they were submitted, by id."""
    clusters: tuple[Cluster, ...]
    """As they were at first."""
    changes: tuple[tuple[float, ev.Event], ...]
    """What happened to them later."""
    queues: tuple[Queue, ...]
    began: float
    left_out: tuple[str, ...] = ()
    """A sentence for each kind of job that is not replayed, with its number."""

    @property
    def days(self) -> float:
        return self.trace[-1].submit_s / DAY_S if self.trace else 0.0

    @property
    def tuning(self) -> Tuning | None:
        return tuning_of(self.queues)

    def first(self, count: int) -> Past:
        """The same with the first ``count`` jobs only."""
        trace = self.trace[:count]
        until = trace[-1].submit_s if trace else 0.0
        return replace(self, trace=trace, changes=tuple(change for change in self.changes if change[0] <= until))


async def read_past(store: QueryStore, days: float, progress: Callable[[str], None] = lambda text: None) -> Past:
    """The last ``days`` before the newest line of the journal. Raises NotFound when no job ran, or no cluster was ever seen."""
    loaded = await store.load()
    since = loaded.last_at - days * DAY_S
    jobs, live = await _ended_jobs(store, since, progress)
    queues = {queue.name for queue in loaded.queues}
    gone = Counter(job.queue for job in jobs if job.queue not in queues)
    kept = [job for job in jobs if job.queue in queues]
    if not kept:
        raise NotFound(
            f"The journal has no job that ran in the last {days:g} days; tune again when the site has worked for a while."
        )
    began = kept[0].submitted_at
    clusters, changes = await _clusters(store, began)
    if not clusters:
        raise NotFound("The journal shows no node of any cluster; start the control plane once, so that it sees them.")
    ends = {job.id: job.ended_at for job in kept if job.ended_at is not None}
    told = [f"{number} of queue {name}, which is gone" for name, number in sorted(gone.items())]
    told += [f"{live} that had not ended"] if live else []
    made = sorted(((_ready_at(job, ends), job) for job in kept), key=lambda one: (one[0], one[1].order))
    return Past(
        trace=tuple(_line(job, at - began) for at, job in made),
        jobs={job.id: _as_submitted(job) for job in kept},
        clusters=clusters,
        changes=tuple((max(at - began, 0.0), event) for at, event in changes),
        queues=loaded.queues,
        began=began,
        left_out=tuple(told),
    )


async def _ended_jobs(store: QueryStore, since: float, progress: Callable[[str], None]) -> tuple[list[Job], int]:
    """Those submitted since then that ran and ended, in order of submission, and how many had not ended."""
    found: list[Job] = []
    live = 0
    cursor = None
    while page := await store.jobs(JobQuery(cursor=cursor, limit=PAGE)):
        for job in page:
            if job.submitted_at < since:
                return found[::-1], live
            if job.started_at is not None and job.ended_at is not None:
                found.append(job)
            elif job.phase in (JobPhase.QUEUED, JobPhase.ACTIVE):
                live += 1
        cursor = page[-1].order
        if len(found) % 5000 < PAGE:
            progress(f"{len(found)} jobs read")
    return found[::-1], live


async def _clusters(store: QueryStore, began: float) -> tuple[tuple[Cluster, ...], list[tuple[float, ClusterEvent]]]:
    """Each cluster as it was at ``began``, else as it was first seen, and what changed later."""
    first: dict[str, Cluster] = {}
    checkpoint = await store.last_checkpoint()
    if checkpoint is not None and checkpoint.at <= began:
        first = {cluster.name: _plain(cluster) for cluster in checkpoint.clusters}
    later: list[tuple[float, ClusterEvent]] = []
    current = dict(first)
    found = await store.newest(JournalQuery(kinds=_OF_CLUSTERS, limit=MOST_CHANGES))
    for _, at, _, event in reversed(found):
        assert isinstance(event, ClusterEvent)
        if isinstance(event, ev.ClusterObserved):
            name, seen = event.cluster.name, _plain(event.cluster)
            if at <= began or name not in current:
                first[name] = current[name] = seen
                continue
            if current[name] == seen:
                continue
            current[name], event = seen, ev.ClusterObserved(seen)
        elif at <= began:
            continue
        later.append((at, event))
    if checkpoint is not None:
        for cluster in checkpoint.clusters:
            first.setdefault(cluster.name, _plain(cluster))
    known = [(at, event) for at, event in later if _name(event) in first]
    return tuple(first[name] for name in sorted(first)), known


def _name(event: ClusterEvent) -> str:
    return event.cluster.name if isinstance(event, ev.ClusterObserved) else event.cluster


def _plain(cluster: Cluster) -> Cluster:
    return replace(cluster, unreachable_since=None, unreachable_why="")


def _ready_at(job: Job, ends: dict[str, float]) -> float:
    """When it could have started: at its submission, or when the last of the jobs before it ended."""
    return max((ends[one] for one in job.after if one in ends), default=job.submitted_at) if job.after else job.submitted_at


def _line(job: Job, submit_s: float) -> TraceJob:
    pods = total(one.resources * one.count for one in job.gang.pod_sets)
    started, ended = job.started_at or 0.0, job.ended_at or 0.0
    return TraceJob(
        job_id=job.id,
        submit_s=max(submit_s, 0.0),
        duration_s=max(ended - started, LEAST_S),
        gpus=pods[GPU],
        pods=job.gang.size,
        cpu=pods[CPU],
        memory=pods[MEMORY],
        queue=job.queue,
        owner=job.owner,
        name=job.name,
        priority=job.priority,
        limit_s=job.timeout_s,
    )


def _as_submitted(job: Job) -> Job:
    """The job before its first attempt. Servers and sessions of users run as long as they ran: nobody uses them in a replay."""
    return replace(
        job,
        kind=JobKind.BATCH if job.kind in (JobKind.NOTEBOOK, JobKind.SPARK) else job.kind,
        preemptible=job.is_preemptible,
        work=Work(("true",), sidecar=False),
        phase=JobPhase.QUEUED,
        reason="",
        retries=0,
        attempts=0,
        failures=0,
        failed_launches=0,
        cancel_requested=False,
        not_before=0.0,
        avoid_nodes=(),
        after=(),
        retry_of=None,
        started_at=None,
        ended_at=None,
        exit_code=None,
    )


def too_little(trace: Sequence[TraceJob] | Iterable[TraceJob], least: int) -> str:
    """A sentence when the past is too short to judge by; else empty."""
    jobs = list(trace)
    if len(jobs) >= least:
        return ""
    days = (jobs[-1].submit_s - jobs[0].submit_s) / DAY_S if jobs else 0.0
    return f"{len(jobs)} jobs in {max(round(days), 1)} {'day' if round(days) <= 1 else 'days'}; at least {least} are needed."
