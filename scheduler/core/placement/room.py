"""Free room by node, with changes that can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tuttilab.scheduler.core.placement.node_arrays import Amounts, NodeArrays, node_arrays_of
from tuttilab.scheduler.domain.model import Cluster
from tuttilab.scheduler.domain.resources import Resources

NodeKey = tuple[str, str]
"""Cluster name, node name."""


@dataclass(slots=True)
class Room:
    """Free amounts by node, one matrix per cluster. Unreachable clusters are left out."""

    node_arrays: Mapping[str, NodeArrays]
    free: dict[str, Amounts]

    @classmethod
    def of(cls, clusters: Mapping[str, Cluster], holds: Iterable[tuple[NodeKey, Resources]] = ()) -> Room:
        room = cls.empty({name: node_arrays_of(c) for name, c in clusters.items() if c.unreachable_since is None})
        for key, amount in holds:
            room.give(key, amount, -1)
        return room

    @classmethod
    def empty(cls, node_arrays: Mapping[str, NodeArrays]) -> Room:
        """The room of clusters where nothing of ours runs."""
        return cls(node_arrays, {name: arrays.ours.copy() for name, arrays in node_arrays.items()})

    def take(self, key: NodeKey, amount: Resources) -> Callable[[], None]:
        """Take room; returns the function that undoes it."""
        self.give(key, amount, -1)
        return lambda: self.give(key, amount)

    def give(self, key: NodeKey, amount: Resources, sign: int = 1) -> None:
        """Return the room of one pod to a node (``sign`` -1: take it). A missing or unready node is ignored."""
        arrays = self.node_arrays.get(key[0])
        row = None if arrays is None else arrays.index.get(key[1])
        if arrays is None or row is None:
            return
        free = self.free[key[0]]
        for name, value in amount:
            column = arrays.keys.get(name)
            if column is not None:
                free[row, column] += sign * value
        if arrays.pods is not None:
            free[row, arrays.pods] += sign

    def fits(self, key: NodeKey, amount: Resources) -> bool:
        arrays = self.node_arrays.get(key[0])
        if arrays is None or key[1] not in arrays.index:
            return False
        vector = arrays.vector(amount)
        return vector is not None and bool((vector <= self.free[key[0]][arrays.index[key[1]]]).all())

    def copy(self) -> Room:
        return Room(self.node_arrays, {name: free.copy() for name, free in self.free.items()})

    def copy_of(self, cluster: str) -> Room:
        """A copy of one cluster's room."""
        return Room({cluster: self.node_arrays[cluster]}, {cluster: self.free[cluster].copy()})

    def emptied(self) -> Room:
        """The same nodes, empty."""
        return Room.empty(self.node_arrays)

    def used_share(self) -> float:
        """The used share of the scarcest resource, over all clusters."""
        used: dict[str, float] = {}
        whole: dict[str, float] = {}
        for name, arrays in self.node_arrays.items():
            sums, free = arrays.allocatable.sum(axis=0).tolist(), self.free[name].sum(axis=0).tolist()
            for key, column in arrays.keys.items():
                whole[key] = whole.get(key, 0.0) + sums[column]
                used[key] = used.get(key, 0.0) + sums[column] - free[column]
        return max((used[key] / whole[key] for key in used if whole[key]), default=0.0)

    def free_total(self, cluster: str) -> Resources:
        """Total free room of the cluster. A node with less than its pods use, after it lost resources, counts as full."""
        arrays = self.node_arrays[cluster]
        return arrays.amounts(np.maximum(self.free[cluster], 0).sum(axis=0))
