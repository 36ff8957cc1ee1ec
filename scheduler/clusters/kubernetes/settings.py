"""What an administrator says of a Kubernetes cluster in `tuttilab.yaml`, parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tuttilab.scheduler.domain.model import Toleration
from tuttilab.scheduler.domain.resources import Resources

SIDECAR_COST: Final = Resources.parse({"cpu": "10m", "memory": "64Mi"})
"""Requested for the side-car of each pod, and charged with the gang."""
MASTER_COST: Final = Resources.parse({"cpu": "100m", "memory": "128Mi"})
"""Requested for the master of a gang, and charged with the gang."""


class Binding(StrEnum):
    """Who binds our pods to the nodes that were decided on (ADR 30)."""

    AUTO = "auto"
    """`DIRECT` on nodes that a taint keeps for our pods, `SCHEDULER` on those that others may use."""
    DIRECT = "direct"
    """We, by the node's name in the pod's spec: one write, and the kubelet has the last word."""
    SCHEDULER = "scheduler"
    """kube-scheduler, to the node that the pod's affinity names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """``kubeconfig`` None: the service account of the pod that the control plane runs in. ``context`` None: the file's own."""

    namespace: str
    sidecar_image: str
    report_url: str
    """Where pods reach the control plane: what listens at `listen.pods`, or a proxy before it."""
    kubeconfig: str | None = None
    context: str | None = None
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """Namespace by group; other groups' pods go to ``namespace``."""
    image: str | None = None
    """For jobs that name no image. None: they do not run here."""
    spark_image: str | None = None
    """The same for Spark sessions and applications: it has ``tuttilab[spark]`` in it."""
    pythons: Mapping[str, str] = field(default_factory=dict)
    """Major and minor version of Python by image: a captured cell goes into no image that is known to have another."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of nodes that are there for our pods; no job can name others."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    """Only nodes with all of them are used. Empty: all nodes."""
    logs: str | None = None
    """Folder with the logs of pods, the same on all of several control planes. None: the state folder of the only one."""
    uid: int = 1000
    """User and group that containers run as."""
    cephfs_claim: str = "cephfs-{name}"
    """The PersistentVolumeClaim of a mount's `cephfs: NAME`, as the hub has it."""
    isolates_gangs: bool = False
    """Whether a NetworkPolicy lets only the members of a gang connect to its pods."""
    binding: Binding = Binding.AUTO
    container_patience_s: float = 30.0
    """How long a pod may wait for what may come by itself: an image that could not be pulled, room that the core believed free, a
    side-car of the site that ended."""

    def namespace_of(self, group: str) -> str:
        return self.namespaces.get(group, self.namespace)

    @property
    def all_namespaces(self) -> tuple[str, ...]:
        return tuple(sorted({self.namespace, *self.namespaces.values()}))
