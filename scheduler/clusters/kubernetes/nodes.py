"""The nodes as the control plane is shown them: made anew only where something of them changed, for there may be thousands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuttilab.scheduler.clusters.kubernetes.states import node_of
from tuttilab.scheduler.domain.model import Node, Toleration
from tuttilab.scheduler.domain.resources import NOTHING, Resources

Body = dict[str, Any]
"""Any: JSON of the Kubernetes API."""


class ShownNodes:
    """Of one cluster."""

    def __init__(self, cluster: str, tolerations: Sequence[Toleration]) -> None:
        self._cluster = cluster
        self._tolerations = tolerations
        self._changed: set[str] = set()
        self._by_name: dict[str, Node] = {}
        self._shown: tuple[Node, ...] = ()
        self._others: Mapping[str, Resources] = {}

    def note(self, was: Body | None, now: Body | None) -> None:
        self._changed.update(node["metadata"]["name"] for node in (was, now) if node is not None)

    def of(self, objects: Mapping[tuple[str, str], Body], others: Mapping[str, Resources]) -> tuple[Node, ...]:
        """By name; the same tuple as before while nothing of them has changed."""
        names, self._changed = self._changed, set()
        if others is not self._others:
            before, self._others = self._others, others
            names |= {name for name in before.keys() | others.keys() if before.get(name) != others.get(name)}
        is_changed = False
        for name in names:
            body = objects.get(("", name))
            known = self._by_name.pop(name, None)
            node = None if body is None else node_of(body, self._cluster, self._tolerations, others.get(name, NOTHING))
            if node is not None:
                self._by_name[name] = known if node == known and known is not None else node
            is_changed = is_changed or node != known
        if is_changed:
            self._shown = tuple(self._by_name[name] for name in sorted(self._by_name))
        return self._shown
