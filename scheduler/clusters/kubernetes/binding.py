"""Which pods we bind to their nodes ourselves, by the node's name in the pod's spec. ADR 30 says why so.

Such a pod passes kube-scheduler by: nothing checks taints that keep pods out, and nothing gives a volume that waits for its first
consumer a node. So it is done only where the node, as it is now, takes our pods, and no volume of the pod waits. What is left is
the kubelet's own check of room, which refuses (OutOfcpu and others) where a pod of others came in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tuttilab.scheduler.clusters.kubernetes.pods import Body
from tuttilab.scheduler.clusters.kubernetes.settings import Binding
from tuttilab.scheduler.clusters.kubernetes.states import taints_of, tolerates
from tuttilab.scheduler.domain.model import Toleration

_KEEPS_OUT: Final = ("NoSchedule", "NoExecute")
_CONDITIONS: Final = "node.kubernetes.io/"
"""Taints of nodes that have a problem: they keep no node for anybody."""


def binds(binding: Binding, node: Body | None, tolerations: Iterable[Toleration], *, waits_for_consumer: bool = False) -> bool:
    """Whether we bind a pod to ``node``; otherwise kube-scheduler does.

    ``waits_for_consumer``: a volume of the pod is made, or chosen, only when kube-scheduler has found the pod's node.
    """
    if binding is Binding.SCHEDULER or node is None or waits_for_consumer:
        return False
    allowed = tuple(tolerations)
    taints = [taint for taint in taints_of(node) if taint.effect in _KEEPS_OUT]
    if not all(any(tolerates(each, taint) for each in allowed) for taint in taints):
        return False
    return binding is Binding.DIRECT or any(not taint.key.startswith(_CONDITIONS) for taint in taints)
