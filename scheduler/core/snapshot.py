"""What one cycle sees: free room by node, what runs, who waits; and trials on the room that can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tuttilab.scheduler.core.layout import Amounts, Layout, layout_of
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rules import THE_SERVICES, Rules
from tuttilab.scheduler.core.standing import Standing
from tuttilab.scheduler.model import Attempt, Cluster, Job, JobPhase, Overtaking, PodSet, Prediction, Queue
from tuttilab.scheduler.resources import NOTHING, Resources

if TYPE_CHECKING:
    from tuttilab.scheduler.core.shapes import Kept

NodeKey = tuple[str, str]
"""Cluster name, node name."""


@dataclass(frozen=True, slots=True)
class Running:
    """A live attempt: what it holds where, since when, and what decides whether others may stop it."""

    job: Job
    attempt: int
    cluster: str
    holds: tuple[tuple[NodeKey, Resources], ...]
    charge: Resources
    admitted_at: float
    started_at: float
    """When user code started, or the admission as long as it has not."""
    ends_by: float | None
    """When its run-time limit ends it at the latest; None without a limit."""
    prediction: Prediction
    share: float = 0.0
    """Dominant share of its cluster as that is now."""
    standing: Standing = ()
    """To the guaranteed shares of the queues above it, root first."""
    is_lifted: bool = False
    """No higher class stops it: they passed it for as long as they may."""
    is_stopping: bool = False
    is_running: bool = True
    active_at: float | None = None
    """When its notebook server last reported a running cell."""
    spare: tuple[tuple[str, NodeKey, Resources], ...] = ()
    """Pods it could do without (name, place, what it holds), of sets that can grow; first to go first."""
    going: tuple[tuple[str, NodeKey, Resources], ...] = ()
    """Pods that it was told to give back and that have not ended yet: room that comes."""
    missing: tuple[tuple[PodSet, tuple[int, ...]], ...] = ()
    """Of sets that can grow: the ranks that have no pod yet."""
    grows_at: float = 0.0
    """Before that it is given no more pods: the last ones did not start."""
    pods: int = 1
    """What its queue counts, those that hold nothing included."""
    counted_share: float = 0.0
    """Dominant share of its cluster as that was when it was admitted, which accounts of overtaking count: its row says it."""

    @property
    def job_id(self) -> str:
        return self.job.id

    @property
    def queue(self) -> str:
        return self.job.queue


@dataclass(slots=True)
class Room:
    """Free amounts by node, a matrix a cluster. Only clusters that answer are in it."""

    layouts: Mapping[str, Layout]
    free: dict[str, Amounts]

    @classmethod
    def of(cls, clusters: Mapping[str, Cluster], holds: Iterable[tuple[NodeKey, Resources]] = ()) -> Room:
        room = cls.empty({name: layout_of(c) for name, c in clusters.items() if c.unreachable_since is None})
        for key, amount in holds:
            room.give(key, amount, -1)
        return room

    @classmethod
    def empty(cls, layouts: Mapping[str, Layout]) -> Room:
        """With nothing running."""
        return cls(layouts, {name: layout.allocatable.copy() for name, layout in layouts.items()})

    def take(self, key: NodeKey, amount: Resources) -> Callable[[], None]:
        """Use up room; answers the undo."""
        self.give(key, amount, -1)
        return lambda: self.give(key, amount)

    def give(self, key: NodeKey, amount: Resources, sign: int = 1) -> None:
        """Free room again; a node that is not there, or is not ready, has none to give."""
        layout = self.layouts.get(key[0])
        row = None if layout is None else layout.index.get(key[1])
        if layout is None or row is None:
            return
        free = self.free[key[0]]
        for name, value in amount:
            column = layout.keys.get(name)
            if column is not None:
                free[row, column] += sign * value

    def fits(self, key: NodeKey, amount: Resources) -> bool:
        layout = self.layouts.get(key[0])
        if layout is None or key[1] not in layout.index:
            return False
        vector = layout.vector(amount)
        return vector is not None and bool((vector <= self.free[key[0]][layout.index[key[1]]]).all())

    def copy(self) -> Room:
        return Room(self.layouts, {name: free.copy() for name, free in self.free.items()})

    def copy_of(self, cluster: str) -> Room:
        """A copy of one cluster's room."""
        return Room({cluster: self.layouts[cluster]}, {cluster: self.free[cluster].copy()})

    def emptied(self) -> Room:
        """The same nodes with nothing running on them."""
        return Room.empty(self.layouts)

    def used_share(self) -> float:
        """The used part of the scarcest resource, over all clusters."""
        used: dict[str, float] = {}
        whole: dict[str, float] = {}
        for name, layout in self.layouts.items():
            sums, free = layout.allocatable.sum(axis=0).tolist(), self.free[name].sum(axis=0).tolist()
            for key, column in layout.keys.items():
                whole[key] = whole.get(key, 0.0) + sums[column]
                used[key] = used.get(key, 0.0) + sums[column] - free[column]
        return max((used[key] / whole[key] for key in used if whole[key]), default=0.0)

    def free_total(self, cluster: str) -> Resources:
        """What is free on the cluster all in all; a node that lost resources below what it runs counts as full."""
        layout = self.layouts[cluster]
        return layout.amounts(np.maximum(self.free[cluster], 0).sum(axis=0))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable input of `cycle.schedule`."""

    queues: Mapping[str, Queue]
    clusters: Mapping[str, Cluster]
    waiting: tuple[Job, ...]
    ledger: Ledger
    """What queues use: the live attempts' charges. Whoever tries something does so on a copy."""
    running: tuple[Running, ...]
    room: Room
    """Free room; whoever tries something does so on a copy."""
    phases: Mapping[str, JobPhase] = field(default_factory=dict)
    """Of the jobs that waiting ones come after."""
    epoch: int = 0
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    """Of the waiting jobs, by id."""
    accounts: Mapping[str, Overtaking] = field(default_factory=dict)
    """Of the waiting jobs, by id; one without a row waits since its submission and was overtaken by nobody."""
    shapes: Mapping[str, int] = field(default_factory=dict)
    """Of the waiting jobs, by id: equal numbers ask for the same (`shapes.shape_key`)."""
    rules: Rules = THE_SERVICES
    kept: Kept = field(default_factory=dict)
    """What cycles keep for the next ones."""


def holds_of(attempt: Attempt) -> tuple[tuple[NodeKey, Resources], ...]:
    return tuple(((pod.cluster, pod.node), pod.resources) for pod in attempt.pods if pod.resources != NOTHING)
