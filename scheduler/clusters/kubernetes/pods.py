"""The body of a pod: a pure function of the plan, from an allowlist of typed fields.

What it meets: Pod Security Standards "restricted"; requests equal to limits for the user's container; no GPU visible in a pod that
asked for none; `/dev/shm` as large as the pod's memory allows; tolerations from the cluster's configuration only; no service
account's token. Containers in order: ours prepares folders, code and inputs; the user's image runs a program that ends at once (so
it is pulled before the barrier); side-cars of the site; our side-car, whose start-up probe is the barrier; the user's, with its own
command. ADR 26. A bare pod (`sidecar: false`) has the user's container alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.env import (
    DIRS,
    POD_IP,
    ROOT,
    SECRETS_VOLUME,
    has_address,
    has_endpoints,
    pod_env,
    secrets_of,
)
from tuttilab.scheduler.clusters.kubernetes.names import once_a_plan
from tuttilab.scheduler.clusters.kubernetes.settings import MASTER_COST, SIDECAR_COST, KubernetesSettings
from tuttilab.scheduler.clusters.rank_env import rank_env
from tuttilab.scheduler.core.kinds.spark import OF_IMAGE
from tuttilab.scheduler.core.placement.work_places import runs_spark
from tuttilab.scheduler.domain.model import SideCar
from tuttilab.scheduler.domain.resources import CPU, MEMORY, Resources
from tuttilab.scheduler.domain.volumes import folder_of, source_of

Body = dict[str, Any]
"""Any: JSON of the Kubernetes API."""

MAIN: Final = "main"
SIDECAR: Final = "sidecar"
PREPARE: Final = "prepare"
IMAGE: Final = "image"
PORT: Final = 15990
"""Of the side-car's probes, and of the master in its own pod."""
PROGRAM: Final = "/opt/tuttilab/sidecar/container/__main__.py"
"""In our image (deploy/kubernetes/sidecar.Containerfile)."""
SECRETS: Final = "/run/tuttilab"
PLAN_FILE: Final = f"{SECRETS}/plan.json"
OWN_DIR: Final = f"{ROOT}/pod"
PASSWD: Final = "passwd"  # noqa: S105  a file's name, not a secret
"""In `OWN_DIR`: accounts of a pod of Spark, whose Java wants a name for the number that it runs as."""
FLUSH_S: Final = 120
"""For the side-car to keep outputs after user code has ended by itself."""
LEAVE_S: Final = 10
"""The same where there are none. The kubelet lets user code that fails its liveness probe run on for this time beside its grace."""
LONGEST_BARRIER_S: Final = 7 * 86400
"""The start-up probe never gives up before the control plane does: the kubelet would only restart the side-car."""
OWNER: Final = "{owner}"
PREFIX: Final = "site-"
"""Of a side-car's container, so that its name is none of ours."""
PATIENT: Final = 7 * 86400
"""Probes of a side-car that does not listen yet: the control plane gives up earlier."""
_OWN_CPU: Final = "1"
"""Most of a core that our containers may use at times; they request a hundredth."""


def pod_body(
    plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings, installation: str, owner: Body | None, *, is_bound: bool = False
) -> Body:
    """``owner``: an ownerReference to the gang's master, for its members. ``is_bound``: to its node, by us (`binding`)."""
    is_bare = not plan.work.sidecar
    metadata: Body = {
        "name": names.pod_name(pod.name),
        "labels": names.pod_labels(plan, pod, installation),
        "annotations": {names.POD: pod.name, names.JOB: plan.job_id},
        "finalizers": [names.FINALIZER],
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    spec: Body = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": names.pod_name(pod.name),
        **({} if is_bare else {"subdomain": names.service_name(plan)}),
        "terminationGracePeriodSeconds": math.ceil(plan.work.grace_s) + _leave_s(plan),
        "securityContext": _account(plan, settings),
        **({"nodeName": pod.node} if is_bound else {"affinity": _on_node(pod.node)}),
        "tolerations": _tolerations(settings),
        "volumes": _volumes(plan, pod, settings),
    }
    image = image_of(plan, settings) or ""
    if pod.is_master:
        spec["containers"] = [_master(settings)]
    elif is_bare:
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "plan"]
        spec["containers"] = [_bare(_main(plan, pod, settings, image))]
    else:
        ours = _prepare(plan, pod, settings), _image_check(image), _sidecar(plan, pod, settings)
        spec["initContainers"] = [*ours[:-1], *sidecar_containers(plan, pod, settings), ours[-1]]
        spec["containers"] = [_main(plan, pod, settings, image)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def image_of(plan: LaunchPlan, settings: KubernetesSettings) -> str | None:
    """The job's, or the cluster's for jobs of its sort; None where neither names one."""
    return plan.work.image or (settings.spark_image if runs_spark(plan.kind, plan.work) else settings.image)


def _command(plan: LaunchPlan) -> list[str]:
    """A Python that a Spark job did not choose for an image is one of the submitter's machine."""
    own = list(plan.work.command)
    return [OF_IMAGE, *own[1:]] if runs_spark(plan.kind, plan.work) and plan.work.image is None else own


def _account(plan: LaunchPlan, settings: KubernetesSettings) -> Body:
    proxy = plan.run_as
    uid, gid = (settings.uid, settings.uid) if proxy is None or proxy.uid is None else (proxy.uid, proxy.gid)
    found: Body = {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": gid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    # Of a volume that is mounted the kubelet would give every file to that group, on each start.
    return found if plan.work.mounts else found | {"fsGroup": gid}


def _leave_s(plan: LaunchPlan) -> int:
    if not plan.work.sidecar:
        return 0
    return FLUSH_S if plan.work.outputs else LEAVE_S


def _on_node(node: str) -> Body:
    """To the node that the core chose, for kube-scheduler, which honours taints and volumes."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    term = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}


def _tolerations(settings: KubernetesSettings) -> list[Body]:
    found = []
    for each in settings.tolerations:
        toleration: Body = {"key": each.key, "operator": "Exists" if each.value is None else "Equal"}
        found.append(toleration | ({"value": each.value} if each.value else {}) | ({"effect": each.effect} if each.effect else {}))
    return found


def _volumes(plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings) -> list[Body]:
    own = {"name": "own", "emptyDir": {}}
    items = [{"key": names.pod_name(pod.name), "path": "plan.json"}]
    # Without a group of the pod's the file is root's alone; only our containers have it.
    mode = 0o444 if plan.work.mounts else 0o440
    secret = {"secretName": names.secret_name(plan, launched_with(plan, pod)), "defaultMode": mode, "items": items}
    volumes: list[Body] = [own, {"name": "plan", "secret": secret}]
    if not pod.is_master:
        shm: Body = {"medium": "Memory"}
        if pod.resources[MEMORY]:
            shm["sizeLimit"] = str(pod.resources[MEMORY])
        volumes.append({"name": "shm", "emptyDir": shm})
        if secrets_of(plan, pod):
            volumes.append({"name": "secrets", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
        volumes += mounted_volumes(plan, settings)
    return volumes


SECRET_PODS: Final = 400
"""Plans in one Secret, which may have 1 MiB."""


def launched_with(plan: LaunchPlan, pod: PodPlan) -> tuple[PodPlan, ...]:
    """The pods whose plans are in the same Secret. Those of one growth are apart from those of the start and of other growths."""
    return _parts(plan).get(pod.name, (pod,))


@once_a_plan
def _parts(plan: LaunchPlan) -> Mapping[str, tuple[PodPlan, ...]]:
    groups: dict[str, list[PodPlan]] = {}
    for pod in plan.pods:
        # Grown pods carry their growth at the end of their names (ADR 15).
        groups.setdefault(pod.name.rpartition("-")[2] if pod.joins else "", []).append(pod)
    found: dict[str, tuple[PodPlan, ...]] = {}
    for group in groups.values():
        for start in range(0, len(group), SECRET_PODS):
            part = tuple(group[start : start + SECRET_PODS])
            found |= dict.fromkeys((pod.name for pod in part), part)
    return found


def _quantities(resources: Resources) -> dict[str, str]:
    return {key: f"{amount}m" if key == CPU else str(amount) for key, amount in resources}


def _restricted() -> Body:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _ours(name: str, program: str, settings: KubernetesSettings, cost: Resources) -> Body:
    requests = _quantities(cost)
    return {
        "name": name,
        "image": settings.sidecar_image,
        "command": ["python3", "-I", "-S", PROGRAM, program, PLAN_FILE],
        "env": [{"name": "TUTTILAB_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
        "resources": {"requests": requests, "limits": {**requests, CPU: _OWN_CPU}},
        "securityContext": {**_restricted(), "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "own", "mountPath": ROOT}, {"name": "plan", "mountPath": SECRETS, "readOnly": True}],
    }


def _master(settings: KubernetesSettings) -> Body:
    return _ours(MAIN, "master", settings, MASTER_COST)


def _prepare(plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings) -> Body:
    container = _ours(PREPARE, "prepare", settings, SIDECAR_COST)
    return container | {"volumeMounts": [*container["volumeMounts"], *_secret_mounts(plan, pod)]}


def _secret_mounts(plan: LaunchPlan, pod: PodPlan) -> list[Body]:
    return [{"name": "secrets", "mountPath": SECRETS_VOLUME}] if secrets_of(plan, pod) else []


def _own_address() -> Body:
    return {"name": POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def _image_check(image: str) -> Body:
    requests = _quantities(SIDECAR_COST)
    return {
        "name": IMAGE,
        "image": image,
        "command": [f"{OWN_DIR}/nothing"],
        "resources": {"requests": requests, "limits": {**requests, CPU: _OWN_CPU}},
        "securityContext": _restricted(),
        "volumeMounts": [{"name": "own", "mountPath": ROOT}],
    }


def _sidecar(plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings) -> Body:
    probe = {"httpGet": {"path": "/started", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5}
    container = _ours(SIDECAR, "member", settings, SIDECAR_COST)
    return {
        **container,
        "env": [*container["env"], *([_own_address()] if has_endpoints(plan, pod) else [])],
        "restartPolicy": "Always",
        "startupProbe": {**probe, "failureThreshold": LONGEST_BARRIER_S},
    }


def _main(plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings, image: str) -> Body:
    amounts = _quantities(pod.resources)
    mounts: list[Body] = [{"name": "own", "mountPath": ROOT}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    container: Body = {
        "name": MAIN,
        "image": image,
        "command": _command(plan),
        "env": [*literal(pod_env(plan, pod)), *([_own_address()] if has_address(plan, pod) else [])],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": _restricted(),
        "volumeMounts": [*mounts, *_secret_mounts(plan, pod), *volume_mounts(plan, settings)],
        # A pod that is cut off is ended by its own kubelet, through a partition too: within 15 s after the lease is lost.
        "livenessProbe": {
            "httpGet": {"path": "/alive", "port": PORT},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
            "terminationGracePeriodSeconds": max(1, math.ceil(plan.work.grace_s)),
        },
    }
    is_spark = runs_spark(plan.kind, plan.work)
    if is_spark:
        accounts = {"name": "own", "mountPath": "/etc/passwd", "subPath": f"{OWN_DIR.removeprefix(ROOT)[1:]}/{PASSWD}"}
        container["volumeMounts"].append(accounts | {"readOnly": True})
    workdir = plan.work.workdir
    if workdir is not None or plan.work.code or is_spark:
        # Else the folder is the image's own.
        container["workingDir"] = workdir if workdir and workdir.startswith("/") else f"{DIRS['work']}/{workdir or ''}".rstrip("/")
    return container


def _bare(main: Body) -> Body:
    """Without what stands on a side-car: no folder of ours but that of HOME, and no probe."""
    mounts = [mount | {"mountPath": DIRS["work"]} if mount["name"] == "own" else mount for mount in main["volumeMounts"]]
    return {key: value for key, value in main.items() if key != "livenessProbe"} | {"volumeMounts": mounts}


# --- what the site adds to a member -----------------------------------------------------------------------------------


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
    return [_of_site(one, plan, pod, settings) for one in plan.work.sidecars]


def _of_site(one: SideCar, plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings) -> Body:
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
