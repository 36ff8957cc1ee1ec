"""Which phase may follow which, and the timers of a live attempt. Every change of phase goes through here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.rows.resizing import is_joining
from tuttilab.scheduler.domain.errors import Bug
from tuttilab.scheduler.domain.events import BarrierTimedOut, GrowthFailed, RunTimedOut
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Cluster, Job, JobKind, JobPhase
from tuttilab.scheduler.domain.resources import show_duration

JOB_EDGES: Final[Mapping[JobPhase, frozenset[JobPhase]]] = {
    JobPhase.QUEUED: frozenset({JobPhase.ACTIVE, JobPhase.FAILED, JobPhase.CANCELLED}),
    JobPhase.ACTIVE: frozenset({JobPhase.QUEUED, JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED}),
    JobPhase.SUCCEEDED: frozenset(),
    JobPhase.FAILED: frozenset(),
    JobPhase.CANCELLED: frozenset(),
}

_A = AttemptPhase
ATTEMPT_EDGES: Final[Mapping[AttemptPhase, frozenset[AttemptPhase]]] = {
    _A.ADMITTED: frozenset({_A.LAUNCHING, _A.STOPPING}),
    _A.LAUNCHING: frozenset({_A.RUNNING, _A.STOPPING, _A.FAILED, _A.LOST}),
    _A.RUNNING: frozenset({_A.STOPPING, _A.SUCCEEDED, _A.FAILED, _A.CANCELLED, _A.PREEMPTED, _A.LOST}),
    _A.STOPPING: frozenset({_A.SUCCEEDED, _A.FAILED, _A.CANCELLED, _A.PREEMPTED, _A.LOST}),
    _A.SUCCEEDED: frozenset(),
    _A.FAILED: frozenset(),
    _A.CANCELLED: frozenset(),
    _A.PREEMPTED: frozenset(),
    _A.LOST: frozenset(),
}

LONGEST_BACK_OFF_S: Final = 600.0
MOST_FAILED_LAUNCHES: Final = 5
MOST_LOSSES: Final = 20
"""Lost attempts in a row, of which none ran for `SETTLED_S`: over two hours of tries, with the pauses between them."""
SETTLED_S: Final = 3600.0


def move_job(job: Job, phase: JobPhase) -> Job:
    if phase not in JOB_EDGES[job.phase]:
        raise Bug(f"job {job.id}: {job.phase} may not become {phase}")
    return replace(job, phase=phase)


def move_attempt(attempt: Attempt, phase: AttemptPhase) -> Attempt:
    if phase not in ATTEMPT_EDGES[attempt.phase]:
        raise Bug(f"job {attempt.job_id} attempt {attempt.number}: {attempt.phase} may not become {phase}")
    return replace(attempt, phase=phase)


def back_off_s(tries: int, first_s: float) -> float:
    """Seconds to wait before the next attempt after ``tries`` that did not succeed: ``first_s``, doubling ten times at most."""
    return min(first_s * 2.0 ** min(max(tries - 1, 0), 10), max(LONGEST_BACK_OFF_S, first_s))


def run_deadline(job: Job, attempt: Attempt) -> float | None:
    """Service time at which the run-time limit is reached; None without a limit or before user code started."""
    if job.timeout_s is None or attempt.phase is not AttemptPhase.RUNNING or attempt.started_at is None:
        return None
    return attempt.started_at + job.timeout_s


def barrier_deadline(job: Job, attempt: Attempt, cluster: Cluster | None, barrier_s: float) -> float | None:
    """Service time by which every member must run; None once it does. It includes the time to pull images.

    While the cluster does not answer, nothing of the gang can come to be, so the time begins when it answers again. A notebook
    server has no barrier: the hub that starts it has its own timeout (`core.kinds.notebook`).
    """
    if attempt.phase is not AttemptPhase.LAUNCHING or job.kind is JobKind.NOTEBOOK:
        return None
    return _ready_by(attempt.admitted_at, cluster, barrier_s)


def _ready_by(since: float, cluster: Cluster | None, barrier_s: float) -> float | None:
    if cluster is None:
        return since + barrier_s
    return None if cluster.unreachable_since is not None else max(since, cluster.reachable_since or since) + barrier_s


Timer = RunTimedOut | BarrierTimedOut | GrowthFailed


def due_timers(
    live: Iterable[tuple[Job, Attempt]], clusters: Mapping[str, Cluster], now: float, barrier_s: float
) -> tuple[list[Timer], float | None]:
    """The timers that have run out at ``now``, and the time of the next one."""
    due: list[Timer] = []
    upcoming: list[float] = []
    for job, attempt in live:
        limit = run_deadline(job, attempt)
        if limit is not None:
            if limit <= now:
                due.append(RunTimedOut(job.id, attempt.number))
            else:
                upcoming.append(limit)
        limit = barrier_deadline(job, attempt, clusters.get(attempt.cluster), barrier_s)
        if limit is not None:
            if limit <= now:
                due.append(BarrierTimedOut(job.id, attempt.number))
            else:
                upcoming.append(limit)
        late, limit = _late_joiners(attempt, clusters.get(attempt.cluster), now, barrier_s)
        if late:
            why = f"it was not ready after {show_duration(barrier_s)}"
            due.append(GrowthFailed(job.id, attempt.number, late, why))
        if limit is not None:
            upcoming.append(limit)
    return due, min(upcoming, default=None)


def _late_joiners(attempt: Attempt, cluster: Cluster | None, now: float, barrier_s: float) -> tuple[tuple[str, ...], float | None]:
    """Pods that joined a running gang and should run by now, and the deadline of the next one.

    The gang does not wait for them, but their room is charged: they get as long as a whole gang has for its barrier.
    """
    if attempt.phase is not AttemptPhase.RUNNING or not attempt.growths:
        return (), None
    joining = {pod.name: pod.joined_at for pod in attempt.pods if pod.joined_at is not None and is_joining(pod)}
    ready_by = {name: _ready_by(joined_at, cluster, barrier_s) for name, joined_at in joining.items()}
    limits = {name: limit for name, limit in ready_by.items() if limit is not None}
    late = tuple(name for name, limit in limits.items() if limit <= now)
    return late, min((limit for limit in limits.values() if limit > now), default=None)
