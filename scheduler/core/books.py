"""What is in use now, kept up to date with every change of an attempt: quota by queue, room by node, and what a cycle sees of it.

Nothing here is a row and nothing is counted twice: everything can be computed again from the live attempts, and tests compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from tuttilab.scheduler.core.estimates import UNKNOWN
from tuttilab.scheduler.core.layout import Layout, layout_of, share_of
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.resizing import has_done_its_work
from tuttilab.scheduler.core.snapshot import NodeKey, Room, Running, holds_of
from tuttilab.scheduler.model import Attempt, AttemptPhase, Charge, Cluster, Job, Pod, PodPhase, PodSet, Queue
from tuttilab.scheduler.resources import Resources

_order = attrgetter("job.order")


@dataclass(slots=True)
class Books:
    live: dict[str, tuple[Job, Attempt]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger({}))
    active_at: dict[str, float] = field(default_factory=dict)
    """When each live notebook's server last reported a running cell, or could have: what was reported to another is not known."""
    _layouts: dict[str, Layout] = field(default_factory=dict)
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
        """The live attempt of the job is this now."""
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
        """The job has no live attempt any more."""
        old = self.live.pop(job_id, None)
        if old is not None:
            self._count(*old, -1)
            del self._running[job_id]
            self._growing.pop(job_id, None)
            self.active_at.pop(job_id, None)

    def touch(self, job: Job) -> None:
        """The job's row changed while its attempt lives."""
        if job.id in self.live:
            self.live[job.id] = (job, self.live[job.id][1])
            self._running[job.id] = None

    def wants_pods(self) -> bool:
        """Whether a running gang has fewer pods than it asked for and could be given more."""
        return any(self.see(job_id).missing for job_id in self._growing)

    def _count(self, job: Job, attempt: Attempt, sign: int) -> None:
        change = self.ledger.add if sign > 0 else self.ledger.remove
        change(job.queue, attempt.charge, len(attempt.pods))
        for key, amount in holds_of(attempt):
            self._room.give(key, amount, -sign)

    def room(self, clusters: Mapping[str, Cluster]) -> Room:
        """Free room of all clusters, those that do not answer too. Whoever takes from it does so on a copy."""
        for name in [name for name in self._layouts if name not in clusters]:
            del self._layouts[name], self._room.free[name]
        for name, cluster in clusters.items():
            known = self._layouts.get(name)
            if known is None or known.cluster is not cluster:
                self._layouts[name] = layout_of(cluster)
                if known is None or known.cluster.nodes is not cluster.nodes:
                    self._measure(name)
        return self._room

    def _measure(self, name: str) -> None:
        self._room.layouts = self._layouts
        self._running = dict.fromkeys(self._running)
        self._room.free[name] = self._layouts[name].allocatable.copy()
        for _, attempt in self.live.values():
            for key, amount in holds_of(attempt):
                if key[0] == name:
                    self._room.give(key, amount, -1)

    def room_that_answers(self, clusters: Mapping[str, Cluster]) -> Room:
        """A copy of the free room of the clusters that answer."""
        room = self.room(clusters)
        names = [name for name, cluster in clusters.items() if cluster.unreachable_since is None]
        return Room({name: self._layouts[name] for name in names}, {name: room.free[name].copy() for name in names})

    def running(self) -> tuple[Running, ...]:
        """In order of submission, which no restart changes: among equals the first of them is asked or given first."""
        return tuple(sorted([known or self.see(job_id) for job_id, known in self._running.items()], key=_order))

    def see(self, job_id: str) -> Running:
        """The live attempt of one job as a cycle sees it."""
        known = self._running[job_id]
        if known is None:
            known = self._running[job_id] = self._see(*self.live[job_id])
        return known

    def _see(self, job: Job, attempt: Attempt) -> Running:
        started_at = attempt.started_at if attempt.started_at is not None else attempt.admitted_at
        layout = self._layouts.get(attempt.cluster)
        return Running(
            job=job,
            attempt=attempt.number,
            cluster=attempt.cluster,
            holds=holds_of(attempt),
            charge=attempt.charge,
            admitted_at=attempt.admitted_at,
            started_at=started_at,
            ends_by=None if job.timeout_s is None else started_at + job.timeout_s,
            prediction=attempt.prediction or UNKNOWN,
            share=layout.share_of(attempt.charge) if layout is not None else 0.0,
            standing=attempt.standing,
            is_lifted=attempt.is_lifted,
            is_stopping=attempt.phase is AttemptPhase.STOPPING,
            is_running=attempt.phase is AttemptPhase.RUNNING,
            active_at=self.active_at.get(job.id),
            spare=tuple(_spare(job, attempt)),
            going=tuple((p.name, (p.cluster, p.node), p.resources) for p in attempt.pods if p.is_given_back),
            missing=tuple(_missing(job, attempt)),
            grows_at=attempt.grows_at,
            pods=len(attempt.pods),
            counted_share=share_of(attempt.charge, attempt.cluster_total),
        )


def _growing(job: Job, attempt: Attempt) -> Iterable[tuple[PodSet, int, list[Pod]]]:
    """Sets that can grow, each with its first rank and the pods it has that stay."""
    first = 0
    for pod_set in job.gang.pod_sets:
        if pod_set.can_grow and pod_set.min_count is not None and attempt.phase is AttemptPhase.RUNNING:
            yield pod_set, first, [p for p in attempt.pods if p.role == pod_set.role and not p.is_given_back]
        first += pod_set.count


def _spare(job: Job, attempt: Attempt) -> Iterable[tuple[str, NodeKey, Resources]]:
    for pod_set, _, pods in _growing(job, attempt):
        alive = sorted((p for p in pods if p.phase is not PodPhase.ENDED), key=lambda pod: -pod.rank)
        assert pod_set.min_count is not None
        for pod in alive[: max(len(alive) - pod_set.min_count, 0)]:
            yield pod.name, (pod.cluster, pod.node), pod.resources


def _missing(job: Job, attempt: Attempt) -> Iterable[tuple[PodSet, tuple[int, ...]]]:
    taken = {pod.rank for pod in attempt.pods} | {pod.rank for pod in attempt.left if has_done_its_work(pod)}
    for pod_set, first, _ in _growing(job, attempt):
        ranks = tuple(rank for rank in range(first, first + pod_set.count) if rank not in taken)
        if ranks:
            yield pod_set, ranks
