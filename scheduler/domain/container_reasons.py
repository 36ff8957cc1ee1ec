"""Why Kubernetes says that a container waits, for whoever reads the pods of jobs and of notebook servers."""

from __future__ import annotations

from typing import Final

BACKS_OFF: Final = ("ErrImagePull", "ImagePullBackOff")
"""An image that could not be pulled and is tried again: it may still come."""
HOPELESS: Final = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Why a container waits that waits in vain."""
_REFUSALS: Final = (
    "InvalidNodeInfo",
    "NodeAffinity",
    "NodePorts",
    "PodOSNotSupported",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "SMTAlignmentError",
    "TaintToleration",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
    "UnexpectedPredicateFailureType",
    "Unschedulable",
)


def is_of_another_machine(text: str) -> bool:
    """Whether a runtime says that an image, or a program in it, is for another architecture than the node's: waiting is in vain."""
    return "exec format error" in text or "no match for platform in manifest" in text or "no matching manifest for" in text


def is_refusal_of_node(reason: str) -> bool:
    """Whether a pod ended without having run because its node did not take it: its kubelet (OutOfcpu, OutOfpods, …) or, for a pod
    that it was to bind there, kube-scheduler. Another node may take it."""
    return reason.startswith("OutOf") or reason in _REFUSALS
