"""A cluster's nodes as arrays: resources, eligibility for pods, racks and zones. Derived from the cluster, never changed.

Amounts are int64: `resources.MAX_AMOUNT` bounds each one, and the free room of a node is never above what the node has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.domain.model import Cluster, Node, PodSet, Taint, Toleration
from tuttilab.scheduler.domain.resources import GPU, PODS, Resources, total

Amounts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

RACK_LABELS: Final = ("topology.kubernetes.io/rack", "rack")
ZONE_LABELS: Final = ("topology.kubernetes.io/zone", "zone")
"""Labels with the rack and the zone of a node; the first one that the node has counts.

A gang is placed on one node if possible, else in one rack, else in one zone, else anywhere.
"""

MAX_VECTORS: Final = 50_000
"""Cache limit of `NodeArrays.vector`; many unlike gangs would grow the cache for as long as the cluster does not change."""

Terms = tuple[tuple[tuple[str, str], ...], tuple[Toleration, ...]]
"""What decides, apart from room, which nodes take a pod: the labels it wants and the taints it tolerates."""


def terms_of(pod_set: PodSet) -> Terms:
    return tuple(sorted(pod_set.node_labels.items())), pod_set.tolerations


def tolerates(tolerations: tuple[Toleration, ...], taint: Taint) -> bool:
    return taint.effect == "PreferNoSchedule" or any(
        one.key == taint.key and one.value in (None, taint.value) and one.effect in (None, taint.effect) for one in tolerations
    )


def _groups(nodes: tuple[Node, ...], labels: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """One number per node: equal for equal values of the label, -1 without the label."""
    values = [next((node.labels[label] for label in labels if label in node.labels), None) for node in nodes]
    numbers = {value: number for number, value in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int64)


@dataclass(slots=True)
class NodeArrays:
    """One row per ready node, sorted by name; one column per resource that any of them has, always with CPU."""

    cluster: Cluster
    nodes: tuple[Node, ...]
    index: dict[str, int]
    keys: dict[str, int]
    allocatable: Amounts
    ours: Amounts
    """``allocatable`` less what others have taken. A node where others took more than it has gives nothing."""
    racks: npt.NDArray[np.int64]
    zones: npt.NDArray[np.int64]
    total: Resources
    gpu: int | None
    cpu: int
    pods: int | None
    """Column of the number of pods that a node takes; None where no node has such a limit."""
    _masks: dict[Terms, Mask] = field(default_factory=dict)
    _vectors: dict[Resources, Amounts | None] = field(default_factory=dict)
    _node_classes: dict[Terms, tuple[Amounts, Amounts]] = field(default_factory=dict)

    @classmethod
    def of(cls, cluster: Cluster) -> NodeArrays:
        nodes = tuple(sorted((node for node in cluster.nodes if node.is_ready), key=lambda node: node.name))
        names = sorted({key for node in nodes for key, _ in node.allocatable} | {"cpu"})
        keys = {key: column for column, key in enumerate(names)}
        allocatable = np.zeros((len(nodes), len(keys)), dtype=np.int64)
        ours = np.zeros_like(allocatable)
        for row, node in enumerate(nodes):
            for key, amount in node.allocatable:
                allocatable[row, keys[key]] = amount
                ours[row, keys[key]] = max(0, amount - node.others[key])
        return cls(
            cluster=cluster,
            nodes=nodes,
            index={node.name: row for row, node in enumerate(nodes)},
            keys=keys,
            allocatable=allocatable,
            ours=ours,
            racks=_groups(nodes, RACK_LABELS),
            zones=_groups(nodes, ZONE_LABELS),
            total=total(node.allocatable for node in nodes),
            gpu=keys.get(GPU),
            cpu=keys["cpu"],
            pods=keys.get(PODS),
        )

    def takes(self, terms: Terms) -> Mask:
        """Which nodes take pods of these terms, apart from room."""
        mask = self._masks.get(terms)
        if mask is None:
            labels, tolerations = terms
            mask = np.array(
                [
                    all(node.labels.get(key) == value for key, value in labels)
                    and all(tolerates(tolerations, taint) for taint in node.taints)
                    for node in self.nodes
                ],
                dtype=np.bool_,
            )
            self._masks[terms] = mask
        return mask

    def node_classes(self, terms: Terms) -> tuple[Amounts, Amounts]:
        """The distinct rows of ``ours`` of the nodes that take pods of these terms, and the number of nodes of each."""
        if terms not in self._node_classes:
            rows, numbers = np.unique(self.ours[self.takes(terms)], axis=0, return_counts=True)
            self._node_classes[terms] = rows, numbers.astype(np.int64)
        return self._node_classes[terms]

    def vector(self, resources: Resources) -> Amounts | None:
        """What a pod of these amounts takes, as a row; None if no node has one of these resources at all."""
        # Cycles and submissions call this concurrently: a full cache is replaced, never cleared, so the other thread keeps its own.
        vectors = self._vectors
        if resources not in vectors:
            if len(vectors) >= MAX_VECTORS:
                vectors = self._vectors = {}
            row: Amounts | None = np.zeros(len(self.keys), dtype=np.int64)
            for key, amount in resources:
                column = self.keys.get(key)
                if column is None:
                    row = None
                    break
                assert row is not None
                row[column] = amount
            if row is not None and self.pods is not None:
                row[self.pods] = 1
            vectors[resources] = row
        return vectors[resources]

    def share_of(self, charge: Resources) -> float:
        """Dominant share of ``charge`` in the total of the ready nodes."""
        return share_of(charge, self.total)

    def amounts(self, row: Amounts) -> Resources:
        return Resources.of((key, int(row[column])) for key, column in self.keys.items())


def share_of(charge: Resources, whole: Resources) -> float:
    """Dominant share of ``charge`` in a cluster's total, at most 1; 0 if the total is empty."""
    return min(charge.dominant_share(whole), 1.0) if whole else 0.0


_recent: list[NodeArrays] = []


def node_arrays_of(cluster: Cluster) -> NodeArrays:
    """`NodeArrays.of`, cached for the last 16 clusters by identity."""
    for arrays in _recent:
        if arrays.cluster is cluster:
            return arrays
    arrays = NodeArrays.of(cluster)
    _recent.insert(0, arrays)
    del _recent[16:]
    return arrays
