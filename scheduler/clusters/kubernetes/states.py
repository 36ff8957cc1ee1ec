"""Reads what the API server shows of pods and nodes: pure functions from JSON to `PodState` and `Node`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tuttilab.scheduler.clusters.base import PodState
from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.pods import IMAGE, MAIN, PREFIX, PREPARE, SIDECAR, Body
from tuttilab.scheduler.domain.container_reasons import BACKS_OFF, HOPELESS, is_of_another_machine
from tuttilab.scheduler.domain.model import MASTER, Node, PodPhase, Taint, Toleration
from tuttilab.scheduler.domain.resources import BYTE_UNITS, CPU, MAX_AMOUNT, MEMORY, NOTHING, PODS, Resources

STORAGE: Final = "ephemeral-storage"
UNREACHABLE_S: Final = 20.0
"""A stopped pod that is out of reach counts as ended this long after its grace."""
KILLED: Final = 128 + 9
COMMAND_NOT_FOUND: Final = "CommandNotFound"
WRONG_ARCHITECTURE: Final = "WrongArchitecture"
STORAGE_EXCEEDED: Final = "StorageExceeded"
"""The node put the pod out because it wrote more than it had asked for, as it would the next one."""
_SI: Final = {**BYTE_UNITS, "E": 10**18, "Ei": 2**60}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d{1,2})|(m|u|n|[kKMGTPE]i?))?")
LONGEST_EVICTION: Final = 300
"""Characters of what a node says of an eviction."""
_OWN_LIMIT = re.compile(
    r"exceed\w* (?:the total limit of containers|its local ephemeral storage limit)|usage of EmptyDir volume .* exceeds",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(r"no such file or directory|executable file not found")


def amount(text: object) -> Decimal:
    """A quantity as the API server writes it (``1500m``, ``128974848``, ``129e6``, ``123Mi``); 0 for anything else."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        return Decimal(0)
    number, exponent, unit = match.groups()
    if exponent:
        return Decimal(number) * Decimal(10) ** int(exponent)
    small = {"m": Decimal("0.001"), "u": Decimal("0.000001"), "n": Decimal("0.000000001")}
    return Decimal(number) * small.get(unit or "", Decimal(_SI.get(unit or "", 1)))


def is_device(key: str) -> bool:
    """Whether a device plugin, or an admin, adds this resource to nodes."""
    return "/" in key and not key.startswith("attachable-volumes")


def resources_of(amounts: Mapping[str, object]) -> Resources:
    """Milli-cores, bytes and whole devices; what nobody asks for by name (pods, hugepages) is left out."""
    found = {}
    for key, text in amounts.items():
        if key in (CPU, MEMORY, STORAGE) or is_device(key):
            found[key] = min(int(amount(text) * (1000 if key == CPU else 1)), MAX_AMOUNT)
    return Resources.of(found)


def node_of(node: Body, cluster: str, tolerations: Iterable[Toleration], others: Resources = NOTHING) -> Node:
    """Taints that all our pods tolerate are left out: for them they are none. ``others``: what pods of others take of it."""
    status = node.get("status", {})
    allocatable = status.get("allocatable", {})
    given = resources_of(allocatable)
    devices = resources_of({key: amount for key, amount in status.get("capacity", {}).items() if is_device(key)})
    kept = {taint: None for taint in taints_of(node) if not any(tolerates(each, taint) for each in tolerations)}
    return Node(
        name=node["metadata"]["name"],
        cluster=cluster,
        allocatable=given + Resources.of({PODS: int(amount(allocatable.get(PODS, 0)))}),
        labels=dict(node["metadata"].get("labels", {})),
        taints=tuple(kept),
        is_ready=is_ready(node),
        others=others,
        # Capacity counts what is unhealthy; the kubelet leaves it there for a while when the device plugin has gone.
        failing=Resources.of((key, max(number - given[key], 0)) for key, number in devices),
    )


def taints_of(node: Body) -> list[Taint]:
    spec = node.get("spec", {})
    taints = [Taint(each["key"], each.get("value", ""), each["effect"]) for each in spec.get("taints", [])]
    return [*taints, Taint("node.kubernetes.io/unschedulable")] if spec.get("unschedulable") else taints


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    values = toleration.value in (None, taint.value)
    return toleration.key == taint.key and values and toleration.effect in (None, taint.effect)


def is_ready(node: Body) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def readiness_changed_at(node: Body) -> str:
    conditions = node.get("status", {}).get("conditions", [])
    return next((str(each.get("lastTransitionTime", "")) for each in conditions if each["type"] == "Ready"), "")


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod as the API server shows it, and what we know beside: whether it is out of reach, and why we ended it, if we did."""

    pod: Body
    is_out_of_reach: bool = False
    """Its node has been silent for so long that the pod's lease, probes and grace are over."""
    is_told: bool = False
    """Whether we asked it to stop before it had ended."""
    why: str = ""
    """Reason for which we deleted the pod before user code ran; empty for a stop that was asked for."""

    @property
    def labels(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.pod["metadata"].get("labels", {})
        return found

    @property
    def name(self) -> str:
        """Its name in the control plane."""
        metadata = self.pod["metadata"]
        return str(metadata.get("annotations", {}).get(names.POD, metadata["name"]))

    @property
    def job_id(self) -> str:
        return str(self.pod["metadata"].get("annotations", {}).get(names.JOB, self.labels[names.JOB]))

    @property
    def attempt(self) -> int:
        return int(self.labels[names.ATTEMPT])

    @property
    def is_deleted(self) -> bool:
        return "deletionTimestamp" in self.pod["metadata"]

    @property
    def is_over(self) -> bool:
        """Whether no container of it runs any more, or ever will."""
        return self.pod.get("status", {}).get("phase") in ("Succeeded", "Failed")

    def container(self, name: str) -> Body:
        """Its status; empty while there is none."""
        status = self.pod.get("status", {})
        every = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
        return next((each for each in every if each["name"] == name), {})

    def ended(self, name: str) -> Body | None:
        """How a container that ran has ended; None for one that has not, or never ran."""
        terminated: Body | None = self.container(name).get("state", {}).get("terminated")
        return terminated if terminated is not None and terminated.get("containerID") else None

    def has_started(self, name: str) -> bool:
        state = self.container(name).get("state", {})
        return "running" in state or self.ended(name) is not None


def state_of(seen: Seen, now: float) -> PodState:
    """``now``: Unix time by the API server's clock, for pods of nodes that do not answer; what a node says of it is not read."""
    labels, metadata = seen.labels, seen.pod["metadata"]
    phase, exit_code, reason, outputs = _phase(seen, now)
    return PodState(
        job_id=seen.job_id,
        attempt=seen.attempt,
        name=seen.name,
        uid=metadata["uid"],
        phase=phase,
        exit_code=exit_code,
        reason=reason,
        outputs=outputs,
        epoch=int(labels[names.EPOCH]),
    )


def _phase(seen: Seen, now: float) -> tuple[PodPhase, int | None, str, Mapping[str, str]]:
    if seen.is_over:
        return PodPhase.ENDED, *_end(seen)
    if seen.is_deleted and seen.is_out_of_reach and now > unix_time(seen.pod["metadata"]["deletionTimestamp"]) + UNREACHABLE_S:
        return PodPhase.ENDED, None, "NodeLost", {}
    if seen.has_started(MAIN):
        return PodPhase.RUNNING, None, "", {}
    return PodPhase.PENDING, None, "", {}


def _end(seen: Seen) -> tuple[int | None, str, Mapping[str, str]]:
    """Exit code, reason and outputs of a pod that is over."""
    main, message = seen.ended(MAIN), message_of(seen)
    if main is None:
        return *_end_before_main(seen, message), {}
    code, reason = int(main.get("exitCode", 0)), str(main.get("reason", ""))
    outputs = {str(key): str(value) for key, value in (message.get("outputs") or {}).items()}
    pod_reason = str(seen.pod["status"].get("reason", ""))
    if pod_reason == "Evicted" and (said := " ".join(str(seen.pod["status"].get("message", "")).split())):
        if _OWN_LIMIT.search(said):
            return code or 137, STORAGE_EXCEEDED, outputs
        return None, f"Evicted: {said[:LONGEST_EVICTION]}", outputs
    if pod_reason == "Evicted" or (code and (why := _disruption(seen))):
        return None, pod_reason or why, outputs
    if reason == "OOMKilled":
        return code or 137, reason, outputs
    if reason in ("StartError", "ContainerCannotRun"):
        said = str(main.get("message", ""))
        if _NOT_FOUND.search(said):
            return 127, COMMAND_NOT_FOUND, outputs
        return 126, WRONG_ARCHITECTURE if is_of_another_machine(said) else "CommandNotExecutable", outputs
    told = str(message.get("reason", ""))
    if seen.labels.get(names.ROLE) == MASTER and (code == 0 or (seen.is_told and code == KILLED)):
        # A first process that has no handler yet does not hear that it is to stop: it is killed when its grace has passed.
        return 0, "Completed", outputs
    if seen.is_told:
        return code, "Stopped", outputs
    if told == "LeaseLost":
        return code, told, outputs
    if seen.is_deleted and code:
        return None, "Deleted", outputs  # by a person, or by another program: no failure of the job
    if code == 0 and told:
        return 1, told, outputs  # without a declared output the run is no success
    return code, "Completed" if code == 0 else "Error", outputs


def _end_before_main(seen: Seen, message: Mapping[str, Any]) -> tuple[int | None, str]:
    if seen.why:
        # Room that was not there is no failure of the job; an image that is not there is.
        return (None if seen.why == UNSCHEDULABLE else 1), seen.why
    if seen.is_deleted and not _disruption(seen):
        return (0, "Completed") if seen.labels.get(names.ROLE) == MASTER else (143, "NeverStarted")
    for name in (PREPARE, IMAGE):
        ended = seen.ended(name)
        if ended is not None and ended.get("exitCode"):
            if ended.get("reason") == "OOMKilled":
                return 137, "OOMKilled"
            return 1, str(message.get("reason") or ("InputMissing" if name == PREPARE else "ImageNotRunnable"))
    # The kubelet refused it (OutOfcpu, UnexpectedAdmissionError …), or its node went: no failure of the job.
    return None, str(seen.pod["status"].get("reason") or _disruption(seen) or "Lost")


def _disruption(seen: Seen) -> str:
    """Why others ended the pod: an eviction, a node that went, a pod of higher priority. Empty when nobody did."""
    conditions = seen.pod.get("status", {}).get("conditions", [])
    found = (each for each in conditions if each["type"] == "DisruptionTarget" and each["status"] == "True")
    return next((str(each.get("reason", "Evicted")) for each in found), "")


def message_of(seen: Seen) -> Mapping[str, Any]:
    """What our container left: ``reason``, ``message`` and ``outputs``. Outside the user's reach, yet only read, never trusted."""
    for name in (SIDECAR, PREPARE):
        ended = seen.ended(name)
        try:
            found = json.loads((ended or {}).get("message") or "{}")
        except ValueError:
            continue
        if isinstance(found, dict) and found and isinstance(found.get("outputs", {}), dict):
            return found
    return {}


UNSCHEDULABLE: Final = "Unschedulable"
SIDECAR_FAILED: Final = "SideCarFailed"


def hopeless(seen: Seen, now: float, patience_s: float) -> tuple[str, str] | None:
    """Reason and sentence of a pod whose user code will not start; None while it may. Such a pod is to be deleted.

    ``now``: as of `state_of`. ``patience_s``: how long it may wait for what may come by itself.
    """
    if seen.is_over or seen.is_deleted or seen.has_started(MAIN):
        return None
    age_s = now - unix_time(seen.pod["metadata"]["creationTimestamp"])
    inner = seen.pod.get("status", {}).get("initContainerStatuses", [])
    of_site = [each["name"] for each in inner if each["name"].startswith(PREFIX)]
    for name in (PREPARE, IMAGE, *of_site, SIDECAR, MAIN):
        status = seen.container(name)
        waiting = status.get("state", {}).get("waiting") or {}
        why, text = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        if why in BACKS_OFF and is_of_another_machine(text):
            return WRONG_ARCHITECTURE, (
                f"image {status.get('image', '')!r} has nothing for its node's kind of machine ({text[:400]}); build or choose one "
                "for the nodes' architecture."
            )
        if why in HOPELESS or (why in BACKS_OFF and age_s > patience_s):
            what = "image" if why in BACKS_OFF or "Image" in why else f"container {name} of image"
            return why.replace("ErrImagePull", "ImagePullBackOff"), (
                f"{what} {status.get('image', '')!r} cannot be {'pulled' if what == 'image' else 'started'} on this cluster "
                f"({why}: {text[:400]}); check its name, and that the nodes may pull it."
            )
        if why == "CrashLoopBackOff" and name in of_site and age_s > patience_s:
            last = status.get("lastState", {}).get("terminated") or {}
            return SIDECAR_FAILED, (
                f"side-car {name.removeprefix(PREFIX)!r} of the site ended {status.get('restartCount', 0)} times, last with code "
                f"{last.get('exitCode', '?')} ({last.get('reason', 'no reason')}); ask whoever offers it, or submit without it."
            )
    for condition in seen.pod.get("status", {}).get("conditions", []):
        is_unschedulable = condition["type"] == "PodScheduled" and condition.get("reason") == UNSCHEDULABLE
        if is_unschedulable and condition["status"] == "False" and age_s > patience_s:
            return (
                UNSCHEDULABLE,
                f"the cluster did not place the pod on the node that was chosen: {condition.get('message', '')[:400]}",
            )
    return None


def unix_time(text: str) -> float:
    """Of a time as the API server writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
