"""What one cycle sees: free room by node, and trials on it that can be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tuttilab.scheduler.model import Attempt, Charge, Cluster, Job, JobPhase, Node, Queue
from tuttilab.scheduler.resources import NOTHING, Resources

NodeKey = tuple[str, str]
"""Cluster name, node name."""


@dataclass(frozen=True, slots=True)
class Running:
    """A live attempt: what it holds where, and when its run-time limit ends it at the latest (None: no limit)."""

    job_id: str
    queue: str
    owner: str
    holds: tuple[tuple[NodeKey, Resources], ...]
    ends_by: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable input of `cycle.schedule`."""

    queues: Mapping[str, Queue]
    clusters: Mapping[str, Cluster]
    waiting: tuple[Job, ...]
    charges: tuple[tuple[Charge, int], ...]
    """Each live attempt's charge with its number of pods."""
    running: tuple[Running, ...]
    phases: Mapping[str, JobPhase] = field(default_factory=dict)
    """Of the jobs that waiting ones come after."""
    epoch: int = 0


@dataclass(slots=True)
class Room:
    """Free amounts by node. `take` answers its undo."""

    free: dict[NodeKey, Resources]
    nodes: Mapping[NodeKey, Node]

    @classmethod
    def of(cls, clusters: Mapping[str, Cluster], running: tuple[Running, ...]) -> Room:
        nodes = {
            (cluster.name, node.name): node
            for cluster in clusters.values()
            if cluster.unreachable_since is None
            for node in cluster.nodes
            if node.is_ready
        }
        room = cls({key: node.allocatable for key, node in nodes.items()}, nodes)
        for job in running:
            for key, amount in job.holds:
                if key in room.free:
                    room.free[key] = room.free[key] - amount
        return room

    def take(self, key: NodeKey, amount: Resources) -> Callable[[], None]:
        self.free[key] = self.free[key] - amount

        def undo() -> None:
            self.free[key] = self.free[key] + amount

        return undo

    def give(self, key: NodeKey, amount: Resources) -> None:
        if key in self.free:
            self.free[key] = self.free[key] + amount

    def copy(self) -> Room:
        return Room(dict(self.free), self.nodes)

    def emptied(self) -> Room:
        """The same nodes with nothing running on them."""
        return Room({key: node.allocatable for key, node in self.nodes.items()}, self.nodes)


def holds_of(attempt: Attempt) -> tuple[tuple[NodeKey, Resources], ...]:
    return tuple(((pod.cluster, pod.node), pod.resources) for pod in attempt.pods if pod.resources != NOTHING)
