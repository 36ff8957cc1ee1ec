"""Creates the objects of an attempt in the launch protocol's order, each once, and removes those of a gang that cannot start, or
what is left on a cluster that is given up.

The first pod (the master, or a single pod) comes first; the Service and the Secret belong to it and go with it; then all others at
once. What exists already with the same digest is taken for ours, with another digest it is a bug (ADR 3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes import names, objects
from tuttilab.scheduler.clusters.kubernetes.api import MERGE, Api
from tuttilab.scheduler.clusters.kubernetes.attempts import Noted
from tuttilab.scheduler.clusters.kubernetes.binding import binds
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError, as_cluster_error, as_refusal
from tuttilab.scheduler.clusters.kubernetes.informer import Informer
from tuttilab.scheduler.clusters.kubernetes.pods import Body, claims_of, image_of, launched_with, pod_body
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.clusters.kubernetes.states import Seen
from tuttilab.scheduler.core.placement.work_places import runs_spark, why_not_bare
from tuttilab.scheduler.domain.errors import Bug, LaunchRefused
from tuttilab.scheduler.domain.model import Framework
from tuttilab.scheduler.runtime.crash_points import point

AT_ONCE: Final = 80
"""Creates under way in the whole cluster: others find connections free (`api.CONNECTIONS`)."""
AT_ONCE_A_GANG: Final = 50
"""Of these, or in line for them: other gangs get on beside a large one."""
PAGE: Final = 500
"""Pods of one answer, when all are listed."""
LARGEST_OUTPUT_LIST: Final = 3500
"""Bytes of the outputs' names and ids in the message of a container."""


class Launcher:
    """``limits``: what `config.model.Limits` says of side-cars, by the names there."""

    def __init__(
        self,
        cluster: str,
        settings: KubernetesSettings,
        api: Api,
        pods: dict[str, Informer],
        nodes: Informer,
        installation: str,
        limits: Body,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._api = api
        self._pods = pods
        """By namespace."""
        self._nodes = nodes
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._installation = installation
        self._limits = limits
        self.epoch = 0
        """That leads: an attempt that it goes on launching may be of an earlier one."""

    @property
    def is_busy(self) -> bool:
        """Whether others wait until they may create something."""
        return self._gate.locked()

    def check(self, plan: LaunchPlan, nodes: Iterable[str]) -> None:
        """Raises LaunchRefused for what cannot run here at all, or on a node that is not there."""
        known = set(nodes)
        for pod in plan.pods:
            if pod.node not in known and not pod.was_made:
                listed = ", ".join(sorted(known)[:20])
                raise LaunchRefused(f"node {pod.node!r} is not part of cluster {self._cluster}; it has {listed}.", node=pod.node)
        proxy = plan.proxy_user()
        if proxy is not None and (proxy.uid is None or proxy.gid is None):
            raise LaunchRefused(
                f"{plan.title} asks to run as {proxy.name!r}, which has no uid and gid for pods of cluster {self._cluster}; ask "
                "the site's admin to give them under `proxy_users`.",
                permanent=True,
            )
        if (why := why_not_bare(plan.work)) is not None:
            raise LaunchRefused(why, permanent=True)
        if image_of(plan, self._settings) is None:
            kind = "image for Spark" if runs_spark(plan.kind, plan.work) else "default one"
            raise LaunchRefused(f"the job names no image, and cluster {self._cluster} has no {kind}; give --image.", permanent=True)
        if sum(len(output.name) + 76 for output in plan.work.outputs) > LARGEST_OUTPUT_LIST:
            raise LaunchRefused(
                f"{len(plan.work.outputs)} outputs are too many for a pod of cluster {self._cluster}; pack them into one.",
                permanent=True,
            )

    async def create(self, plan: LaunchPlan, noted: Noted) -> None:
        """The pods that are neither made nor excluded. Raises LaunchRefused, Bug, ClusterUnreachable."""
        wanted = [pod for pod in plan.pods if not pod.was_made and pod.name not in noted.made and pod.name not in noted.never]
        if noted.is_stopped or not wanted:
            return
        first = next((pod for pod in plan.pods if pod.is_master), plan.pods[0])
        others = [pod for pod in wanted if pod is not first]
        if first in wanted:
            await self._create_pod(plan, first, noted, None)
        owner: Body | None = None
        if plan.work.sidecar or (len(plan.pods) > 1 and self._settings.isolates_gangs):
            beside = await self._owner(plan, first, noted)
            await self._create_beside(plan, wanted, noted, beside)
            # Bare pods have no master whose end would be theirs.
            owner = beside if plan.work.sidecar else None
        gate = asyncio.Semaphore(AT_ONCE_A_GANG)

        async def create(pod: PodPlan) -> None:
            async with gate:
                await self._create_pod(plan, pod, noted, owner)

        results = await asyncio.gather(*(create(pod) for pod in others), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        # A refusal ends the launch; of others it is tried again.
        for failure in sorted(failures, key=lambda each: not isinstance(each, LaunchRefused | Bug)):
            raise failure

    async def _create_pod(self, plan: LaunchPlan, pod: PodPlan, noted: Noted, owner: Body | None) -> None:
        point("grow.pod" if pod.joins else "launch.pod")
        node = self._nodes.objects.get(("", pod.node))
        # A claim may wait for its first consumer; whether it does, the account may not see.
        may_wait = not pod.is_master and bool(claims_of(plan, self._settings))
        is_bound = binds(self._settings.binding, node, self._settings.tolerations, waits_for_consumer=may_wait)
        body = pod_body(plan, pod, self._settings, self._installation, owner, is_bound=is_bound)
        body["metadata"]["annotations"][names.LEADER] = str(self.epoch)
        path = f"/api/v1/namespaces/{noted.namespace}/pods"
        try:
            async with self._gate:
                made = await self._api.create(path, body)
        except ApiError as error:
            if not error.exists_already:
                raise as_refusal(error, self._cluster, f"create pod {noted.namespace}/{body['metadata']['name']}") from error
            made = await self._existing(plan, pod, f"{path}/{body['metadata']['name']}")
        self._pods[noted.namespace].put(made)
        noted.made[pod.name] = made["metadata"]["uid"]

    async def _existing(self, plan: LaunchPlan, pod: PodPlan, path: str) -> Body:
        """A pod of that name, made by an earlier call whose answer was lost. Raises Bug when it is another one."""
        try:
            made = await self._api.call("GET", path)
        except ApiError as error:
            raise as_refusal(error, self._cluster, f"read {path}") from error
        labels = made["metadata"].get("labels", {})
        if labels.get(names.INSTALLATION) != self._installation:
            raise LaunchRefused(f"{path} exists and is not ours; another control plane, or a person, made a pod of that name.")
        was = (labels.get(names.DIGEST), labels.get(names.GANG), labels.get(names.EPOCH))
        if was != (pod.digest, plan.digest, str(plan.epoch)):
            raise Bug(f"pod {pod.name} was launched with another digest ({was[0]}).")
        return made

    async def _owner(self, plan: LaunchPlan, first: PodPlan, noted: Noted) -> Body:
        known = self._pods[noted.namespace].objects.get((noted.namespace, names.pod_name(first.name)))
        if known is None:
            raise LaunchRefused(f"the first pod of {plan.title} is gone; nothing can join it.")
        return objects.owner_reference(known)

    async def _create_beside(self, plan: LaunchPlan, wanted: Sequence[PodPlan], noted: Noted, owner: Body) -> None:
        """The Service and NetworkPolicy of a gang, and the Secrets of these pods. Of a bare gang only the policy."""
        base = f"/api/v1/namespaces/{noted.namespace}"
        bodies: list[tuple[str, Body]] = []
        has_sidecars = plan.work.sidecar
        if has_sidecars and (len(plan.pods) > 1 or plan.work.framework is not Framework.NONE):
            bodies.append((f"{base}/services", objects.service_body(plan, self._installation, owner)))
        if len(plan.pods) > 1 and self._settings.isolates_gangs:
            path = f"/apis/networking.k8s.io/v1/namespaces/{noted.namespace}/networkpolicies"
            bodies.append((path, objects.policy_body(plan, self._installation, owner)))
        for pods in {part[0].name: part for part in (launched_with(plan, pod) for pod in wanted if has_sidecars)}.values():
            secret = objects.secret_body(plan, pods, self._settings, self._installation, owner, self._limits)
            bodies.append((f"{base}/secrets", secret))
        for path, body in bodies:
            try:
                async with self._gate:
                    await self._api.create(path, body)
            except ApiError as error:
                if not error.exists_already:
                    what = f"create {body['kind'].lower()} {noted.namespace}/{body['metadata']['name']}"
                    raise as_refusal(error, self._cluster, what) from error


class Remover:
    """Deletes pods, each by its uid, so that a pod that took its name since is not meant."""

    def __init__(self, api: Api, cluster: str) -> None:
        self._api = api
        self._cluster = cluster

    async def delete(self, pod: Body, grace_s: float) -> None:
        """Ask the kubelet to end it. A pod that is gone, or another one of its name, is ignored."""
        metadata = pod["metadata"]
        options = {"gracePeriodSeconds": max(0, round(grace_s + 0.499)), "preconditions": {"uid": metadata["uid"]}}
        await self._try("DELETE", _path(pod), {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    async def release(self, pod: Body) -> None:
        """Take our finalizer off, so that the API server forgets the pod once it is deleted."""
        kept = [each for each in pod["metadata"].get("finalizers", []) if each != names.FINALIZER]
        patch = {"metadata": {"uid": pod["metadata"]["uid"], "finalizers": kept}}
        await self._try("PATCH", _path(pod), patch, MERGE)

    async def _try(self, method: str, path: str, body: Any, content_type: str = "application/json") -> None:
        try:
            await self._api.call(method, path, body, content_type=content_type)
        except ApiError as error:
            if error.is_gone or (error.status == 409 and not error.exists_already):
                return
            raise as_refusal(error, self._cluster, f"{method.lower()} {path}") from error


def _path(pod: Body) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


# --- a cluster that is given up -----------------------------------------------------------------------------------------


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
