"""What is left of us on a cluster that is given up: pods that our finalizer keeps, found and let go without a control plane."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError, as_cluster_error
from tuttilab.scheduler.clusters.kubernetes.launch import Remover
from tuttilab.scheduler.clusters.kubernetes.pods import Body
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.clusters.kubernetes.states import Seen

PAGE = 500


@dataclass(frozen=True, slots=True)
class HeldPod:
    """A pod that our finalizer keeps."""

    body: Body
    namespace: str
    name: str
    job_id: str
    attempt: int
    has_ended: bool
    is_deleted: bool

    @classmethod
    def of(cls, pod: Body) -> HeldPod:
        seen, metadata = Seen(pod), pod["metadata"]
        return cls(pod, metadata["namespace"], metadata["name"], seen.job_id, seen.attempt, seen.is_over, seen.is_deleted)


class Releasing:
    """``kubeconfig``: of another account, for a cluster whose own one was deleted with its namespace."""

    def __init__(self, cluster: str, settings: KubernetesSettings, installation: str, kubeconfig: str | None = None) -> None:
        self._cluster = cluster
        self._settings = settings if kubeconfig is None else replace(settings, kubeconfig=kubeconfig, context=None)
        self._owner = names.selector({names.INSTALLATION: installation})
        self._api = Api(cluster, self._settings)

    async def held(self) -> tuple[HeldPod, ...]:
        """In all namespaces of the configuration. Raises ClusterUnreachable."""
        found = [pod for namespace in self._settings.all_namespaces async for pod in self._pods(namespace)]
        return tuple(HeldPod.of(pod) for pod in found if names.FINALIZER in pod["metadata"].get("finalizers", []))

    async def _pods(self, namespace: str) -> AsyncIterator[Body]:
        path, following = f"/api/v1/namespaces/{namespace}/pods", ""
        while True:
            query = {"labelSelector": self._owner, "limit": PAGE} | ({"continue": following} if following else {})
            try:
                answer = await self._api.call("GET", path, query=query)
            except ApiError as error:
                raise as_cluster_error(error, self._cluster, f"list pods of {namespace}") from error
            for pod in answer["items"]:
                yield pod
            following = answer["metadata"].get("continue", "")
            if not following:
                return

    async def release(self, pods: Sequence[HeldPod]) -> None:
        """Take our finalizer off. A pod that is gone meanwhile is none. Raises ClusterError."""
        remover = Remover(self._api, self._cluster)
        for pod in pods:
            await remover.release(pod.body)

    async def close(self) -> None:
        await self._api.close()


@contextlib.asynccontextmanager
async def releasing(
    cluster: str, settings: KubernetesSettings, installation: str, kubeconfig: str | None = None
) -> AsyncIterator[Releasing]:
    opened = Releasing(cluster, settings, installation, kubeconfig)
    try:
        yield opened
    finally:
        await opened.close()
