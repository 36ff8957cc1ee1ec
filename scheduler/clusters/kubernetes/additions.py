"""What the site adds to a member's pod: volumes that the job mounts, side-cars that it asked for. Pure functions of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes.env import DIRS, ROOT
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.clusters.rank_env import rank_env
from tuttilab.scheduler.domain.model import SideCar
from tuttilab.scheduler.domain.resources import CPU
from tuttilab.scheduler.domain.volumes import folder_of, source_of

Body = dict[str, Any]
"""Any: JSON of the Kubernetes API."""

OWNER: Final = "{owner}"
PREFIX: Final = "site-"
"""Of a side-car's container, so that its name is none of ours."""
PATIENT: Final = 7 * 86400
"""Probes of a side-car that does not listen yet: the control plane gives up earlier."""


def mounted_volumes(plan: LaunchPlan, settings: KubernetesSettings) -> list[Body]:
    """A volume that is mounted twice is there once."""
    return [{"name": name, **source} for name, source in _sources(plan, settings).values()]


def volume_mounts(plan: LaunchPlan, settings: KubernetesSettings) -> list[Body]:
    found = []
    sources = _sources(plan, settings)
    for mount in plan.work.mounts:
        name, _ = sources[mount.kind, mount.source]
        piece: Body = {"name": name, "mountPath": mount.path, "readOnly": not mount.is_writable}
        if mount.sub_path:
            piece["subPath"] = mount.sub_path.replace(OWNER, folder_of(plan.owner))
        found.append(piece)
    return found


def _sources(plan: LaunchPlan, settings: KubernetesSettings) -> dict[tuple[str, str], tuple[str, Body]]:
    """Name and source of each volume, by kind and source of the mounts."""
    keys = dict.fromkeys((mount.kind, mount.source) for mount in plan.work.mounts)
    return {key: (f"mount-{at}", source_of(*key, settings.cephfs_claim)) for at, key in enumerate(keys)}


def claims_of(plan: LaunchPlan, settings: KubernetesSettings) -> tuple[str, ...]:
    """The claims that members mount. One whose StorageClass waits for its first consumer is bound by kube-scheduler alone, which
    then has to place the pod.
    """
    found = (source.get("persistentVolumeClaim") for _, source in _sources(plan, settings).values())
    return tuple(dict.fromkeys(str(claim["claimName"]) for claim in found if claim is not None))


def sidecar_containers(plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings) -> list[Body]:
    """Native side-cars: they start before the user's container, each once the one before has, and end after it."""
    return [_sidecar(one, plan, pod, settings) for one in plan.work.sidecars]


def _sidecar(one: SideCar, plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings) -> Body:
    members = [other for other in plan.pods if not other.is_master]
    own = {**one.params, **rank_env(plan, pod, members)}
    if one.shares_folder:
        own |= {
            "TUTTILAB_CODE_DIR": DIRS["code"],
            "MODEL_DIR": DIRS["model"],
            "DATA_DIR": DIRS["data"],
            "RESULT_DIR": DIRS["result"],
        }
    amounts = {key: f"{amount}m" if key == CPU else str(amount) for key, amount in one.resources}
    container: Body = {
        "name": f"{PREFIX}{one.name}",
        "image": one.image,
        "restartPolicy": "Always",
        # The site's own variables last: only they, and the command, may refer to others.
        "env": [*literal(own), *({"name": name, "value": value} for name, value in one.env.items())],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "own", "mountPath": ROOT}] if one.shares_folder else [],
    }
    if one.command:
        container["command"] = list(one.command)
    if one.port is not None:
        container["ports"] = [{"containerPort": one.port}]
        container["startupProbe"] = {
            "tcpSocket": {"port": one.port},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": PATIENT,
        }
    return container


def literal(env: Mapping[str, str]) -> list[Body]:
    """Variables whose values refer to no others, sorted, so that the same plan gives the same body."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in sorted(env.items())]
