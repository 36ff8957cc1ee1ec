"""Which part of our pods and of the nodes is kept in memory, the pods by their attempts, and who is told of a change.

Of a pod: its identity, its status and the names of side-cars of the site; of a node: what `states.node_of` reads. The rest, most of
an object, is asked for by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tuttilab.scheduler.clusters.base import PodState
from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.pods import PREFIX
from tuttilab.scheduler.clusters.kubernetes.states import is_device, is_ready, node_of, readiness_changed_at
from tuttilab.scheduler.domain.model import Node, Toleration
from tuttilab.scheduler.domain.resources import NOTHING, Resources

Body = dict[str, Any]
"""Any: JSON of the Kubernetes API."""
PodKey = tuple[str, str]
"""Namespace and name."""
Key = tuple[str, int, str]
"""Job, attempt, and the pod's name in the control plane."""

_UNREAD: Final = ("managedFields", "generateName", "selfLink", "generation")


def pod_kept(pod: Body) -> Body:
    spec = pod.get("spec", {})
    of_site = [{"name": each["name"]} for each in spec.get("initContainers", []) if each["name"].startswith(PREFIX)]
    kept = {
        "nodeName": spec.get("nodeName", ""),
        "terminationGracePeriodSeconds": spec.get("terminationGracePeriodSeconds", 0),
        **({"initContainers": of_site} if of_site else {}),
    }
    return {"metadata": _metadata(pod), "spec": kept, "status": pod.get("status", {})}


def node_kept(node: Body) -> Body:
    spec, status = node.get("spec", {}), node.get("status", {})
    return {
        "metadata": _metadata(node),
        "spec": {key: spec[key] for key in ("taints", "unschedulable") if key in spec},
        "status": {
            "allocatable": status.get("allocatable", {}),
            "capacity": {key: amount for key, amount in status.get("capacity", {}).items() if is_device(key)},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if is_ready(node) else "False",
                    "lastTransitionTime": readiness_changed_at(node),
                }
            ],
        },
    }


def _metadata(item: Body) -> Body:
    return {key: value for key, value in item["metadata"].items() if key not in _UNREAD}


@dataclass(eq=False)
class Observer:
    """Somebody who is shown the pods, and what of it is not shown yet."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    changed: set[PodKey] = field(default_factory=set)
    shown: dict[PodKey, PodState] = field(default_factory=dict)
    unsettled: set[PodKey] = field(default_factory=set)
    """Pods whose state may change by time alone."""
    looked_at: float = float("-inf")
    """When all unsettled ones were looked at last (monotonic)."""


class Kept:
    """Our pods in all namespaces, by their attempts."""

    def __init__(self) -> None:
        self.pods: dict[PodKey, Body] = {}
        self._by_attempt: dict[tuple[str, str], dict[PodKey, None]] = {}
        self.observers: set[Observer] = set()

    def of_attempt(self, job_id: str, attempt: int) -> list[Body]:
        return [self.pods[key] for key in self._by_attempt.get((names.label_value(job_id), str(attempt)), ())]

    def note_pod(self, was: Body | None, now: Body | None) -> None:
        for pod, is_there in ((was, False), (now, True)):
            if pod is None:
                continue
            key = key_of(pod)
            labels = pod["metadata"].get("labels", {})
            attempt = (labels.get(names.JOB, ""), labels.get(names.ATTEMPT, ""))
            if is_there:
                self.pods[key] = pod
                self._by_attempt.setdefault(attempt, {})[key] = None
            else:
                self.pods.pop(key, None)
                of_it = self._by_attempt.get(attempt, {})
                of_it.pop(key, None)
                if not of_it:
                    self._by_attempt.pop(attempt, None)
            self.tell((key,))

    def note_node(self, was: Body | None, now: Body | None) -> None:
        """The pods on a node whose readiness changed may be lost, or found again."""
        node = now or was
        if node is None or (was is not None and now is not None and is_ready(was) == is_ready(now)):
            return
        name = node["metadata"]["name"]
        self.tell(key for key, pod in self.pods.items() if pod["spec"]["nodeName"] == name)

    def tell(self, keys: Iterable[PodKey]) -> None:
        concerned = tuple(keys)
        for observer in self.observers:
            observer.changed.update(concerned)

    def wake(self) -> None:
        for observer in self.observers:
            observer.wake.set()


def key_of(pod: Body) -> PodKey:
    metadata = pod["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def due(observer: Observer, kept: Kept, now: float, every_s: float) -> Iterator[tuple[PodKey, Body | None]]:
    """The pods to look at for this observer; None for one that is gone."""
    keys, observer.changed = observer.changed, set()
    if now - observer.looked_at >= every_s:
        keys |= observer.unsettled
        observer.looked_at = now
    for key in keys:
        yield key, kept.pods.get(key)


class ShownNodes:
    """The nodes of a cluster as they are shown: made anew only where something of them changed."""

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
