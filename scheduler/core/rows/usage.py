"""Quota and room in use, updated with every change of an attempt, and the live attempts as a cycle sees them.

Nothing here is a row: all of it can be computed again from the live attempts (`invariants` compares).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from tuttilab.scheduler.core.kinds import spark
from tuttilab.scheduler.core.ordering.run_times import UNKNOWN
from tuttilab.scheduler.core.placement.node_arrays import NodeArrays, node_arrays_of, share_of
from tuttilab.scheduler.core.placement.room import NodeKey, Room
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rows.resizing import has_done_its_work, wanted
from tuttilab.scheduler.core.snapshot import Running, allocations_of
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Charge, Cluster, Job, PodPhase, PodSet, Queue
from tuttilab.scheduler.domain.resources import Resources

_order = attrgetter("job.order")


@dataclass(slots=True)
class Usage:
    live: dict[str, tuple[Job, Attempt]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger({}))
    active_at: dict[str, float] = field(default_factory=dict)
    """By job: when a live notebook's server last reported a running cell; the start of this leadership until it does."""
    _node_arrays: dict[str, NodeArrays] = field(default_factory=dict)
    _room: Room = field(default_factory=lambda: Room({}, {}))
    _running: dict[str, Running | None] = field(default_factory=dict)
    _growing: dict[str, None] = field(default_factory=dict)
    """Live jobs with a set that can grow."""

    def configure(self, queues: Mapping[str, Queue]) -> None:
        self.ledger = Ledger.of(queues, self.charges())

    def charges(self) -> list[tuple[Charge, int]]:
        return [
            (Charge(job.id, attempt.number, job.queue, job.owner, attempt.charge), len(attempt.pods))
            for job, attempt in self.live.values()
        ]

    def put(self, job: Job, attempt: Attempt) -> None:
        """Set the live attempt of the job."""
        old = self.live.get(job.id)
        self.live[job.id] = (job, attempt)
        self._running[job.id] = None
        if old is None and any(pod_set.can_grow for pod_set in job.gang.pod_sets):
            self._growing[job.id] = None
        if old is not None and old[1].charge == attempt.charge and len(old[1].pods) == len(attempt.pods):
            return
        if old is not None:
            self._count(*old, -1)
        self._count(job, attempt, 1)

    def drop(self, job_id: str) -> None:
        """Remove the live attempt of the job, if there is one."""
        old = self.live.pop(job_id, None)
        if old is not None:
            self._count(*old, -1)
            del self._running[job_id]
            self._growing.pop(job_id, None)
            self.active_at.pop(job_id, None)

    def update_job(self, job: Job) -> None:
        """Take over a changed job row, if the job has a live attempt."""
        if job.id in self.live:
            self.live[job.id] = (job, self.live[job.id][1])
            self._running[job.id] = None

    def has_missing_pods(self) -> bool:
        """Whether a running gang has fewer pods than it asked for and can grow."""
        return any(self.running_of(job_id).missing for job_id in self._growing)

    def _count(self, job: Job, attempt: Attempt, sign: int) -> None:
        change = self.ledger.add if sign > 0 else self.ledger.remove
        change(job.queue, attempt.charge, len(attempt.pods))
        for key, amount in allocations_of(attempt):
            self._room.give(key, amount, -sign)

    def room(self, clusters: Mapping[str, Cluster]) -> Room:
        """Free room of all clusters, including those that do not answer. Copy it before taking from it."""
        for name in [name for name in self._node_arrays if name not in clusters]:
            del self._node_arrays[name], self._room.free[name]
        for name, cluster in clusters.items():
            known = self._node_arrays.get(name)
            if known is None or known.cluster is not cluster:
                self._node_arrays[name] = node_arrays_of(cluster)
                if known is None or known.cluster.nodes is not cluster.nodes:
                    self._recount_room(name)
        return self._room

    def _recount_room(self, name: str) -> None:
        self._room.node_arrays = self._node_arrays
        self._running = dict.fromkeys(self._running)
        self._room.free[name] = self._node_arrays[name].ours.copy()
        for _, attempt in self.live.values():
            for key, amount in allocations_of(attempt):
                if key[0] == name:
                    self._room.give(key, amount, -1)

    def reachable_room(self, clusters: Mapping[str, Cluster]) -> Room:
        """A copy of the free room of the clusters that answer."""
        room = self.room(clusters)
        names = [name for name, cluster in clusters.items() if cluster.unreachable_since is None]
        return Room({name: self._node_arrays[name] for name in names}, {name: room.free[name].copy() for name in names})

    def running(self) -> tuple[Running, ...]:
        """In order of submission, which no restart changes: decisions among equals depend on the order."""
        return tuple(sorted([known or self.running_of(job_id) for job_id, known in self._running.items()], key=_order))

    def running_of(self, job_id: str) -> Running:
        """The live attempt of one job as a cycle sees it."""
        known = self._running[job_id]
        if known is None:
            known = self._running[job_id] = self._running_of(*self.live[job_id])
        return known

    def _running_of(self, job: Job, attempt: Attempt) -> Running:
        started_at = attempt.started_at if attempt.started_at is not None else attempt.admitted_at
        arrays = self._node_arrays.get(attempt.cluster)
        return Running(
            job=job,
            attempt=attempt.number,
            cluster=attempt.cluster,
            allocations=allocations_of(attempt),
            charge=attempt.charge,
            admitted_at=attempt.admitted_at,
            started_at=started_at,
            ends_by=None if job.timeout_s is None else started_at + job.timeout_s,
            prediction=attempt.prediction or UNKNOWN,
            share=arrays.share_of(attempt.charge) if arrays is not None else 0.0,
            standing=attempt.standing,
            is_class_exempt=attempt.is_class_exempt,
            is_stopping=attempt.phase is AttemptPhase.STOPPING,
            is_running=attempt.phase is AttemptPhase.RUNNING,
            active_at=self.active_at.get(job.id),
            idle_since=spark.idle_since(job, attempt),
            spare=tuple(_spare(job, attempt)),
            releasing=tuple((p.name, (p.cluster, p.node), p.resources) for p in attempt.pods if p.is_given_back),
            missing=tuple(_missing(job, attempt)),
            grows_at=attempt.grows_at,
            pods=len(attempt.pods),
            counted_share=share_of(attempt.charge, attempt.cluster_total),
        )


def _spare(job: Job, attempt: Attempt) -> Iterable[tuple[str, NodeKey, Resources]]:
    if attempt.phase is not AttemptPhase.RUNNING:
        return
    for pod_set in job.gang.pod_sets:
        if not pod_set.can_grow or pod_set.min_count is None:
            continue
        pods = [pod for pod in attempt.pods if pod.role == pod_set.role and not pod.is_given_back]
        alive = sorted((pod for pod in pods if pod.phase is not PodPhase.ENDED), key=lambda pod: -pod.rank)
        for pod in alive[: max(len(alive) - pod_set.min_count, 0)]:
            yield pod.name, (pod.cluster, pod.node), pod.resources


def _missing(job: Job, attempt: Attempt) -> Iterable[tuple[PodSet, tuple[int, ...]]]:
    taken = {pod.rank for pod in attempt.pods} | {pod.rank for pod in attempt.left if has_done_its_work(pod)}
    for pod_set, ranks in wanted(job, attempt) if attempt.phase is AttemptPhase.RUNNING else ():
        lacking = tuple(rank for rank in ranks if rank not in taken)
        if lacking:
            yield pod_set, lacking
