"""The line of each queue: the waiting gangs that a cycle may consider, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from tuttilab.scheduler.core.candidates import Candidate, CandidateArrays, Line, sort_candidates
from tuttilab.scheduler.core.ordering.protection import Protection
from tuttilab.scheduler.core.ordering.run_times import UNKNOWN
from tuttilab.scheduler.core.placement.fit import allowed_clusters, named_clusters
from tuttilab.scheduler.core.placement.room import Room
from tuttilab.scheduler.core.placement.shapes import Shape, shape_key
from tuttilab.scheduler.core.placement.work_places import WorkPlace
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rules import Order
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.domain.model import Cluster, Job, JobPhase, Wait, Why
from tuttilab.scheduler.domain.resources import Resources, show_duration, total
from tuttilab.scheduler.domain.titles import SHORT_ID, title

MOST_NAMED: Final = 3
"""Jobs that a job comes after and that its reason names."""


@dataclass(frozen=True, slots=True)
class Lines:
    by_queue: dict[str, list[Candidate]]
    """First in line first."""
    not_ready: dict[str, Wait]
    """By job id: jobs that may not be considered, because of a dependency, a back-off or a missing queue."""
    shapes: tuple[Shape, ...]
    arrays: CandidateArrays | None
    """Of all candidates; only where the order or the forecast needs it."""

    @classmethod
    def of(cls, snapshot: Snapshot, now: float, room: Room, ledger: Ledger, protection: Protection) -> Lines:
        protected, class_exempt = protection.protected, protection.class_exempt
        shapes = _Shapes(snapshot, room, ledger)
        not_ready: dict[str, Wait] = {}
        lines: dict[str, Line] = {}
        number_of, prediction_of = snapshot.shapes.get, snapshot.predictions.get
        for job in snapshot.waiting:
            line = lines.get(job.queue)
            if job.after or job.not_before > now or line is None:
                wait = _not_ready(job, snapshot, now)
                if wait is not None:
                    not_ready[job.id] = wait
                    continue
                line = lines.setdefault(job.queue, Line())
            job_id = job.id
            shape = line.shapes.get(number_of(job_id)) or shapes.add(job, line)
            shape.count += 1
            is_class_exempt = job_id in class_exempt
            prediction = prediction_of(job_id, UNKNOWN)
            line.candidates.append(Candidate(job, shape, prediction, is_class_exempt or job_id in protected, is_class_exempt))
        by_queue = {queue: line.candidates for queue, line in lines.items()}
        is_short = snapshot.rules.order is Order.SMALL_FIRST and _is_short(room, shapes.by_key.values())
        arrays = None
        if is_short or snapshot.rules.explains_all:
            arrays = CandidateArrays.of([candidate for line in by_queue.values() for candidate in line])
        deferrals: dict[str, list[float]] = {}
        if is_short and arrays is not None:
            in_s = arrays.deferral_s(snapshot.rules).tolist()
            deferrals = {queue: in_s for queue in by_queue if snapshot.trusts.get(queue, 0.0) >= snapshot.rules.least_trust}
        sort_candidates(by_queue, deferrals)
        return cls(by_queue, not_ready, tuple(shapes.by_key.values()), arrays)

    def candidates(self) -> Iterator[Candidate]:
        return chain.from_iterable(self.by_queue.values())


@dataclass(slots=True)
class _Shapes:
    """The shapes of a cycle: one for gangs of all queues that ask for the same and may use the same clusters."""

    snapshot: Snapshot
    room: Room
    ledger: Ledger
    by_key: dict[tuple[int, tuple[str, ...]], Shape] = field(default_factory=dict)
    """By number of the shape and names of the clusters."""
    _unnumbered: dict[Hashable, int] = field(default_factory=dict)
    """Negative numbers for shapes that the snapshot has no number for (a dry run)."""
    _clusters: dict[tuple[str, frozenset[str], WorkPlace], tuple[tuple[Cluster, ...], tuple[str, ...]]] = field(
        default_factory=dict
    )
    """By queue and clusters that the job names: the clusters that it may use, and their names."""

    def add(self, job: Job, line: Line) -> Shape:
        """The shape of a gang that is the first of this shape in its queue."""
        number = self.snapshot.shapes.get(job.id)
        if number is None:
            number = self._unnumbered.setdefault(shape_key(job), -1 - len(self._unnumbered))
        clusters, names = self._allowed(job)
        key = (number, names)
        shape = self.by_key.get(key)
        if shape is None:
            kept = self.snapshot.shape_cache.get(key)
            if kept is None or not kept.is_for(clusters):
                kept = Shape.of(job, clusters, total(self.room.node_arrays[name].total for name in names))
                if number >= 0:
                    self.snapshot.shape_cache[key] = kept
            shape = self.by_key[key] = kept.for_new_cycle()
        line.shapes[number] = shape
        return shape

    def _allowed(self, job: Job) -> tuple[tuple[Cluster, ...], tuple[str, ...]]:
        key = (job.queue, frozenset(named_clusters(job)), WorkPlace.of(job))
        if key not in self._clusters:
            clusters = tuple(allowed_clusters(job, self.snapshot.clusters, self.ledger.path(job.queue)))
            self._clusters[key] = clusters, tuple(cluster.name for cluster in clusters)
        return self._clusters[key]


def _not_ready(job: Job, snapshot: Snapshot, now: float) -> Wait | None:
    """Why a job may not be considered: its dependencies, its back-off, or a queue that no longer exists."""
    waiting_for = tuple(j for j in job.after if snapshot.phases.get(j) is not JobPhase.SUCCEEDED)
    if waiting_for:
        sentence = f"waits for {_names(waiting_for, snapshot)} to succeed"
        return Wait(job.id, Why.DEPENDENCY, sentence, 0, blockers=waiting_for)
    if job.not_before > now:
        left = show_duration(max(job.not_before - now, 1))
        why = f": {job.reason}" if job.reason else ""
        sentence = f"tries again in {left}{why}"
        return Wait(job.id, Why.BACK_OFF, sentence, 0, estimated_start=job.not_before, basis="back-off")
    if job.queue not in snapshot.queues:
        return Wait(job.id, Why.QUOTA, f"queue {job.queue} no longer exists; submit to another", 0)
    return None


def _names(job_ids: Sequence[str], snapshot: Snapshot) -> str:
    names = [_named(snapshot.befores.get(one), one) for one in job_ids[:MOST_NAMED]]
    names += [f"{len(job_ids) - MOST_NAMED} more"] if len(job_ids) > MOST_NAMED else []
    them = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"job {them}" if len(job_ids) == 1 else f"jobs {them}"


def _named(job: Job | None, job_id: str) -> str:
    return job_id[:SHORT_ID] if job is None else title(job)


def _is_short(room: Room, shapes: Iterable[Shape]) -> bool:
    """Whether all candidates together ask for more of any resource than is free."""
    asked: dict[str, int] = {}
    for shape in shapes:
        for key, amount in shape.asked:
            asked[key] = asked.get(key, 0) + amount * shape.count
    free = total(room.free_total(name) for name in room.node_arrays)
    return not Resources.of(asked).fits(free)
