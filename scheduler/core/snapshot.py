"""The snapshot, input of one cycle: free room by node, running gangs, and waiting jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuttilab.scheduler.core.ordering.overtaking import GangUsage
from tuttilab.scheduler.core.ordering.shares import Standing
from tuttilab.scheduler.core.placement.room import NodeKey, Room
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rules import SERVICE_RULES, Rules
from tuttilab.scheduler.core.told.accuracy import NO_FACTORS, Factors
from tuttilab.scheduler.core.told.ranges import NO_RANGES, ToldRanges
from tuttilab.scheduler.domain.model import Attempt, Cluster, Job, JobPhase, Overtaking, PodSet, Prediction, Queue
from tuttilab.scheduler.domain.resources import NOTHING, Resources

if TYPE_CHECKING:
    from tuttilab.scheduler.core.placement.shapes import ShapeCache


@dataclass(frozen=True, slots=True)
class Running:
    """A live attempt: what it uses and where, since when, and what decides whether it may be preempted."""

    job: Job
    attempt: int
    cluster: str
    allocations: tuple[tuple[NodeKey, Resources], ...]
    charge: Resources
    admitted_at: float
    started_at: float
    """When user code started; before that, the time of admission."""
    ends_by: float | None
    """When its run-time limit ends it; None without a limit."""
    prediction: Prediction
    share: float = 0.0
    """Dominant share of its cluster's current total."""
    standing: Standing = ()
    """`Level` per queue on its path, root first."""
    is_class_exempt: bool = False
    """Whether higher classes had passed it for `class_cap_s`; then none of them preempts it."""
    is_stopping: bool = False
    is_running: bool = True
    active_at: float | None = None
    """When its notebook server last reported a running cell."""
    idle_since: float | None = None
    """Since when a Spark session is idle and may give way to its owner's work, by its pod's clock; None while it may not."""
    spare: tuple[tuple[str, NodeKey, Resources], ...] = ()
    """Pods above the minimum of elastic sets (name, node, resources), in the order in which a shrink removes them."""
    releasing: tuple[tuple[str, NodeKey, Resources], ...] = ()
    """Pods that a shrink is stopping and that have not ended yet."""
    missing: tuple[tuple[PodSet, tuple[int, ...]], ...] = ()
    """By elastic set, the ranks without a pod."""
    grows_at: float = 0.0
    """Time before which it does not grow (back-off after a failed growth)."""
    pods: int = 1
    """Number of pods that quota counts, those without resources included."""
    counted_share: float = 0.0
    """Dominant share of its cluster's total at admission, as overtaking accounts count it (`Attempt.cluster_total`)."""

    @property
    def job_id(self) -> str:
        return self.job.id

    @property
    def queue(self) -> str:
        return self.job.queue


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable input of `cycle.schedule`."""

    queues: Mapping[str, Queue]
    clusters: Mapping[str, Cluster]
    waiting: tuple[Job, ...]
    ledger: Ledger
    """What queues use: the charges of live attempts. Copy before changing."""
    running: tuple[Running, ...]
    room: Room
    """Free room. Copy before changing."""
    phases: Mapping[str, JobPhase] = field(default_factory=dict)
    """Phases of the jobs on which waiting jobs depend."""
    epoch: int = 0
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    """Of the waiting jobs, by id."""
    trusts: Mapping[str, float] = field(default_factory=dict)
    """By queue, how far its predictions were right lately (`History.trust`)."""
    accounts: Mapping[str, Overtaking] = field(default_factory=dict)
    """Of the waiting jobs, by id; one without a row has waited since its submission and was not overtaken."""
    shapes: Mapping[str, int] = field(default_factory=dict)
    """Shape numbers of the waiting jobs, by id (`shapes.shape_key`)."""
    befores: Mapping[str, Job] = field(default_factory=dict)
    """The jobs on which waiting jobs depend, as far as they are in memory."""
    told: ToldRanges = NO_RANGES
    """When the waiting jobs were told to start by the last cycle. It changes no decision."""
    factors: Factors = field(default_factory=lambda: NO_FACTORS)
    """By which starts that are told are widened (`told.accuracy`). They change no decision."""
    rules: Rules = SERVICE_RULES
    shape_cache: ShapeCache = field(default_factory=dict)
    """Shared by all cycles, and the only mutable part."""


def allocations_of(attempt: Attempt) -> tuple[tuple[NodeKey, Resources], ...]:
    return tuple(((pod.cluster, pod.node), pod.resources) for pod in attempt.pods if pod.resources != NOTHING)


def usage_of(runner: Running, now: float) -> GangUsage:
    """What a running gang has used so far, for the overtaking accounts."""
    job, seconds = runner.job, max(now - runner.admitted_at, 0.0)
    return GangUsage(job.id, job.order, (job.queue, job.priority), runner.cluster, runner.counted_share, seconds)
