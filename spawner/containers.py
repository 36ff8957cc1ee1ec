"""Reads what Kubernetes shows of a server's pod: one sentence for the user, or none while all is well. Pure functions of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tuttilab.scheduler.domain.container_reasons import BACKS_OFF, HOPELESS, is_of_another_machine
from tuttilab.scheduler.domain.resources import MEMORY, parse_memory, show_amount

SERVER: Final = "notebook"
"""KubeSpawner's name of the container."""
PULL: Final = (*BACKS_OFF, "InvalidImageName", "ErrImageNeverPull")
FOR_THE_NODES: Final = "choose an image for the nodes' architecture"
LONGEST: Final = 400
"""Characters of the cluster's own words in a sentence."""

Pod = Mapping[str, Any]
"""As the API server shows it (``Any``: JSON)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a server does not start, or has ended. ``exit_code``: the server's, 1 for one that never ran."""

    exit_code: int
    sentence: str


def problem_of(pod: Pod, *, is_late: bool) -> Problem | None:
    """None while the server may still come, or runs, and for a pod that is being deleted.

    ``is_late``: it has waited long enough for what may come by itself, an image or room.
    """
    if "deletionTimestamp" in pod["metadata"]:
        return None
    return _ended(pod) or _refused(pod) or _waits_in_vain(pod, is_late) or (_not_placed(pod) if is_late else None)


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    """The server's first."""
    status = pod.get("status") or {}
    every = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return sorted(every, key=lambda each: each["name"] != SERVER)


def _ended(pod: Pod) -> Problem | None:
    for container in _containers(pod):
        end = (container.get("state") or {}).get("terminated")
        if end is None or (container["name"] != SERVER and not end.get("exitCode")):
            continue
        code, why, text = int(end.get("exitCode") or 0), str(end.get("reason") or ""), str(end.get("message") or "")
        who = "the server" if container["name"] == SERVER else f"container {container['name']}"
        if why == "OOMKilled":
            remedy = "choose a profile with more"
            return Problem(code or 137, f"{who} used more memory than it has{_memory(pod)} and was killed (OOMKilled); {remedy}")
        if why in ("StartError", "ContainerCannotRun") and is_of_another_machine(text):
            return Problem(code or 1, f"{who} is for another kind of machine than its node ({text[:LONGEST]}); {FOR_THE_NODES}")
        if why in ("StartError", "ContainerCannotRun"):
            return Problem(code or 1, f"{who} could not start in image {container.get('image', '')!r} ({why}: {text[:LONGEST]})")
        if container["name"] != SERVER:
            return Problem(code, f"{who} ended with code {code} before the server could start ({why})")
        if code:
            return Problem(code, f"{who} ended with code {code} ({why})")
    return None


def _memory(pod: Pod) -> str:
    """The server's limit, in words."""
    specs = [each for each in pod["spec"]["containers"] if each["name"] == SERVER]
    limit = specs[0].get("resources", {}).get("limits", {}).get(MEMORY) if specs else None
    return f" ({show_amount(MEMORY, parse_memory(limit))})" if limit else ""


def _refused(pod: Pod) -> Problem | None:
    """By the kubelet, or taken from its node: no container says why."""
    status = pod.get("status") or {}
    if status.get("phase") != "Failed" or _containers(pod):
        return None
    text = f": {status['message'][:LONGEST]}" if status.get("message") else ""
    return Problem(1, f"its node did not run the pod ({status.get('reason') or 'no reason given'}{text}); start it again")


def _waits_in_vain(pod: Pod, is_late: bool) -> Problem | None:
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        why, text = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        image = container.get("image", "")
        if why in BACKS_OFF and is_of_another_machine(text):
            return Problem(1, f"image {image!r} is for another kind of machine than its node ({text[:LONGEST]}); {FOR_THE_NODES}")
        if why not in HOPELESS and not (why in BACKS_OFF and is_late):
            continue
        if why in PULL:
            # The second word of a pull that is tried again says less than the first.
            name = "ImagePullBackOff" if why in BACKS_OFF else why
            remedy = "check its name, and that the nodes may pull it"
            return Problem(1, f"image {image!r} cannot be pulled on this cluster ({name}: {text[:LONGEST]}); {remedy}")
        return Problem(1, f"the container of image {image!r} cannot be made ({why}: {text[:LONGEST]})")
    return None


def _not_placed(pod: Pod) -> Problem | None:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        is_unplaced = condition["type"] == "PodScheduled" and condition["status"] == "False"
        if is_unplaced and condition.get("reason") == "Unschedulable":
            text = str(condition.get("message") or "")[:LONGEST]
            return Problem(1, f"the cluster did not place it on the node that was chosen (Unschedulable: {text}); start it again")
    return None


def words_of(answer: str | bytes | None) -> str:
    """What the API server says in a refusal, on one line; empty for what is none of its answers."""
    try:
        said = json.loads(answer or "")
    except ValueError:
        return ""
    text = said.get("message") if isinstance(said, dict) else None
    return " ".join(str(text or "").split())[:LONGEST]
