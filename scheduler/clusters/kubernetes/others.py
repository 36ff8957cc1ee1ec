"""What pods that are not ours request on each node, so that the room that is decided on is the room that is there.

The rule for one pod is that of kube-scheduler (`PodRequests` in k8s.io/component-helpers/resource): containers and side-cars
together, or the largest container that runs before them with the side-cars begun by then, whichever is more, and the overhead of
its runtime.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Final

from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError
from tuttilab.scheduler.clusters.kubernetes.informer import Informer
from tuttilab.scheduler.clusters.kubernetes.pods import Body
from tuttilab.scheduler.clusters.kubernetes.states import resources_of
from tuttilab.scheduler.domain.errors import ClusterUnreachable
from tuttilab.scheduler.domain.model import SERVER_OF_LABEL
from tuttilab.scheduler.domain.resources import NOTHING, PODS, Resources, total

log = logging.getLogger(__name__)

PERIOD_S: Final = 5.0
"""Between two sums. Others' pods come and go all the time, and each change of a node is kept in the journal."""
_PATH: Final = "/api/v1/pods"
_ON_NODES: Final = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


class Others:
    """The pods of a cluster that are not of this installation or servers of its hub, and run on a node or are about to."""

    def __init__(self, api: Api, cluster: str, installation: str) -> None:
        self._cluster = cluster
        selector = f"{names.INSTALLATION}!={installation},{SERVER_OF_LABEL}!={installation}"
        self.informer = Informer(api, cluster, _PATH, selector, lambda: None, _ON_NODES, needed_of)
        self.is_seen = False
        """False: the account may not look at them, and all room counts as ours."""
        self._sums: Mapping[str, Resources] = {}
        self._summed_at = float("-inf")

    async def sync(self) -> None:
        """List them. Without the right to do so, say it and go on. Raises ClusterUnreachable."""
        try:
            await self.informer.sync()
            self.is_seen = True
        except ClusterUnreachable as error:
            cause = error.__cause__
            if not isinstance(cause, ApiError) or cause.status != 403:
                raise
            log.warning(
                "cluster %s: the account may not list pods of all namespaces, so what others run is taken for free room; "
                "apply deploy/kubernetes/roles.yaml.",
                self._cluster,
            )

    def by_node(self) -> Mapping[str, Resources]:
        """Amounts by node, as of the last `PERIOD_S`."""
        now = time.monotonic()
        if now - self._summed_at >= PERIOD_S:
            self._sums = sums(self.informer.objects.values())
            self._summed_at = now
        return self._sums


def needed_of(pod: Body) -> Body:
    """What is kept of a pod: its identity, its node and its requests, about a hundredth of it."""
    metadata, spec = pod["metadata"], pod.get("spec", {})
    kept = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in metadata}
    return {"metadata": kept, "node": spec.get("nodeName", ""), "requests": requests_of(spec)}


def requests_of(spec: Body) -> Resources:
    """What the scheduler reserves for a pod of this spec."""
    whole = resources_of(spec.get("resources", {}).get("requests", {}))
    begun, most = NOTHING, NOTHING
    for container in spec.get("initContainers", []):
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            begun += own
            most = _larger(most, begun)
        else:
            most = _larger(most, begun + own)
    together = total(_requests(container) for container in spec.get("containers", [])) + begun
    # What the pod as a whole asks for stands above the sum of its containers.
    asked = Resources.of({**dict(_larger(together, most)), **dict(whole)})
    return asked + resources_of(spec.get("overhead", {}))


def _requests(container: Body) -> Resources:
    # A limit without a request is the request too: the API server writes it so.
    return resources_of(container.get("resources", {}).get("requests", {}))


def _larger(one: Resources, other: Resources) -> Resources:
    return Resources.of({key: max(one[key], other[key]) for key, _ in (*one, *other)})


def sums(pods: Iterable[Body]) -> Mapping[str, Resources]:
    """By node, of what `needed_of` kept: what they request, and how many they are."""
    found: dict[str, dict[str, int]] = {}
    for pod in pods:
        amounts = found.setdefault(pod["node"], {})
        amounts[PODS] = amounts.get(PODS, 0) + 1
        for key, amount in pod["requests"]:
            amounts[key] = amounts.get(key, 0) + amount
    return {node: Resources.of(amounts) for node, amounts in found.items()}
