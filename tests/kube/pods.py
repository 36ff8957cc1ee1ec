"""Manifests of the pods that the cluster tests run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def pod(
    name: str,
    command: Sequence[str],
    *,
    image: str,
    limits: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """One container, ended at once when it is deleted. ``spec``: further fields of the pod's spec."""
    container: dict[str, Any] = {"name": "main", "image": image, "command": list(command), "imagePullPolicy": "Never"}
    if limits:
        container["resources"] = {"limits": dict(limits)}
    defaults: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    return {"metadata": {"name": name, "labels": {"name": name}}, "spec": {**defaults, **spec, "containers": [container]}}
