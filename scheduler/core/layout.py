"""A cluster's nodes as arrays: which resources, which node takes which pods, which nodes stand together. Derived, never changed.

Amounts are int64: `resources.LARGEST` bounds each one, and the free room of a node is never above what the node has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.model import Cluster, Node, PodSet, Taint, Toleration
from tuttilab.scheduler.resources import GPU, Resources, total

Amounts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

RACK_LABELS: Final = ("topology.kubernetes.io/rack", "rack")
ZONE_LABELS: Final = ("topology.kubernetes.io/zone", "zone")
"""A gang goes into one node, else one rack, else one zone, before it is spread: the first label of each line that a node has."""

MOST_VECTORS: Final = 50_000
"""Amounts remembered as rows: gangs that are all unlike would add to them for as long as the cluster stays as it is."""

Terms = tuple[tuple[tuple[str, str], ...], tuple[Toleration, ...]]
"""What decides, room aside, which nodes take a pod: labels it wants, taints it tolerates."""


def terms_of(pod_set: PodSet) -> Terms:
    return tuple(sorted(pod_set.node_labels.items())), pod_set.tolerations


def tolerates(tolerations: tuple[Toleration, ...], taint: Taint) -> bool:
    return taint.effect == "PreferNoSchedule" or any(
        one.key == taint.key and one.value in (None, taint.value) and one.effect in (None, taint.effect) for one in tolerations
    )


def _groups(nodes: tuple[Node, ...], labels: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """A number per node: equal where the label's value is, -1 without the label."""
    values = [next((node.labels[label] for label in labels if label in node.labels), None) for node in nodes]
    numbers = {value: number for number, value in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int64)


@dataclass(slots=True)
class Layout:
    """Rows are the nodes that are ready, by name; columns the resources that any of them has, CPU and GPU among them."""

    cluster: Cluster
    nodes: tuple[Node, ...]
    index: dict[str, int]
    keys: dict[str, int]
    allocatable: Amounts
    racks: npt.NDArray[np.int64]
    zones: npt.NDArray[np.int64]
    total: Resources
    gpu: int | None
    cpu: int
    _masks: dict[Terms, Mask] = field(default_factory=dict)
    _vectors: dict[Resources, Amounts | None] = field(default_factory=dict)
    _kinds: dict[Terms, tuple[Amounts, Amounts]] = field(default_factory=dict)

    @classmethod
    def of(cls, cluster: Cluster) -> Layout:
        nodes = tuple(sorted((node for node in cluster.nodes if node.is_ready), key=lambda node: node.name))
        names = sorted({key for node in nodes for key, _ in node.allocatable} | {"cpu"})
        keys = {key: column for column, key in enumerate(names)}
        allocatable = np.zeros((len(nodes), len(keys)), dtype=np.int64)
        for row, node in enumerate(nodes):
            for key, amount in node.allocatable:
                allocatable[row, keys[key]] = amount
        return cls(
            cluster=cluster,
            nodes=nodes,
            index={node.name: row for row, node in enumerate(nodes)},
            keys=keys,
            allocatable=allocatable,
            racks=_groups(nodes, RACK_LABELS),
            zones=_groups(nodes, ZONE_LABELS),
            total=total(node.allocatable for node in nodes),
            gpu=keys.get(GPU),
            cpu=keys["cpu"],
        )

    def takes(self, terms: Terms) -> Mask:
        """Which nodes take pods of these terms, room aside."""
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

    def kinds(self, terms: Terms) -> tuple[Amounts, Amounts]:
        """What unlike nodes that take pods of these terms have in all, a row each, and how many are alike."""
        if terms not in self._kinds:
            rows, numbers = np.unique(self.allocatable[self.takes(terms)], axis=0, return_counts=True)
            self._kinds[terms] = rows, numbers.astype(np.int64)
        return self._kinds[terms]

    def vector(self, resources: Resources) -> Amounts | None:
        """The amounts as a row; None when no node has one of these resources at all."""
        # Cycles and submissions ask side by side: whoever begins anew takes nothing from the other.
        vectors = self._vectors
        if resources not in vectors:
            if len(vectors) >= MOST_VECTORS:
                vectors = self._vectors = {}
            row: Amounts | None = np.zeros(len(self.keys), dtype=np.int64)
            for key, amount in resources:
                column = self.keys.get(key)
                if column is None:
                    row = None
                    break
                assert row is not None
                row[column] = amount
            vectors[resources] = row
        return vectors[resources]

    def share_of(self, charge: Resources) -> float:
        """Dominant share of the ready nodes together."""
        return share_of(charge, self.total)

    def amounts(self, row: Amounts) -> Resources:
        return Resources.of((key, int(row[column])) for key, column in self.keys.items())


def share_of(charge: Resources, whole: Resources) -> float:
    """Dominant share of what a cluster has in all, at most 1; 0 of nothing."""
    return min(charge.dominant_share(whole), 1.0) if whole else 0.0


_recent: list[Layout] = []


def layout_of(cluster: Cluster) -> Layout:
    """`Layout.of`, remembered for the clusters seen last: the same value gives the same layout."""
    for layout in _recent:
        if layout.cluster is cluster:
            return layout
    layout = Layout.of(cluster)
    _recent.insert(0, layout)
    del _recent[16:]
    return layout
