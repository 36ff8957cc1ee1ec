"""Names and labels of what we create: short, injective, and enough to find an attempt's objects again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes.once import once_a_plan
from tuttilab.scheduler.domain.model import DOMAIN

INSTALLATION: Final = f"{DOMAIN}/installation"
"""Label: which control plane an object belongs to. Two of them in one namespace do not see each other's pods."""
JOB: Final = f"{DOMAIN}/job"
ATTEMPT: Final = f"{DOMAIN}/attempt"
RANK: Final = f"{DOMAIN}/rank"
ROLE: Final = f"{DOMAIN}/role"
EPOCH: Final = f"{DOMAIN}/epoch"
DIGEST: Final = f"{DOMAIN}/digest"
GANG: Final = f"{DOMAIN}/gang"
"""Label: the attempt's digest; `DIGEST` is the pod's own."""
LEADER: Final = f"{DOMAIN}/leader"
"""Annotation: the epoch that led when the pod was made. `EPOCH` is the one in which its attempt was admitted."""
POD: Final = f"{DOMAIN}/pod"
"""Annotation: the pod's name in the control plane, which may be no name of Kubernetes."""
FINALIZER: Final = f"{DOMAIN}/end"
"""Keeps a pod's object until its end is committed."""
LONGEST: Final = 63

_LABEL = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OURS = "tt-"


def pod_name(name: str) -> str:
    """The pod's name as a host name: itself if it is one, else a digest of it."""
    return name if _LABEL.fullmatch(name) and not name.startswith(_OURS) else f"{_OURS}{_digest(name)}"


@once_a_plan
def service_name(plan: LaunchPlan) -> str:
    """Of the gang's headless Service, which gives its pods their names. Of two epochs the same attempt has two."""
    return f"{_OURS}{_digest(f'{plan.job_id}/{plan.attempt}/{plan.epoch}')[:20]}"


def secret_name(plan: LaunchPlan, pods: tuple[PodPlan, ...]) -> str:
    """Of the Secret with the plans of these pods."""
    return f"{service_name(plan)}-{_digest(' '.join(pod.name for pod in pods))[:10]}"


def host_name(plan: LaunchPlan, pod: PodPlan) -> str:
    """By which the pods of the gang reach ``pod``, inside its namespace."""
    return f"{pod_name(pod.name)}.{service_name(plan)}"


def attempt_labels(plan: LaunchPlan, installation: str) -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "tuttilab", INSTALLATION: installation, **_own_labels(plan)}


@once_a_plan
def _own_labels(plan: LaunchPlan) -> Mapping[str, str]:
    return {
        JOB: label_value(plan.job_id),
        ATTEMPT: str(plan.attempt),
        EPOCH: str(plan.epoch),
        GANG: plan.digest,
    }


def pod_labels(plan: LaunchPlan, pod: PodPlan, installation: str) -> dict[str, str]:
    own = {RANK: str(pod.rank) if pod.rank >= 0 else "master", ROLE: label_value(pod.role), DIGEST: pod.digest}
    return {**attempt_labels(plan, installation), **own}


def selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def label_value(text: str) -> str:
    """The text if it is a label's value, else a digest of it."""
    return text if len(text) <= LONGEST and _VALUE.fullmatch(text) else _digest(text)


def _digest(text: str) -> str:
    """160 bits, so that no two texts have the same one."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]
