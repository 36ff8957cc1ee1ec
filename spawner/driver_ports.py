"""How a server's driver ports are opened: variables that name them, and on Kubernetes a Service with equal ports on every node.

A node port is allowed under Pod Security "restricted", unlike a port of the host; and a driver listens at the port that it tells,
so the three numbers (node, Service, container) are one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

DRIVER_PORTS_VARIABLE: Final = "TUTTILAB_DRIVER_PORTS"
"""Comma-separated."""
DRIVER_HOST_VARIABLE: Final = "TUTTILAB_DRIVER_HOST"
"""The address at which programs elsewhere reach these ports."""
HOST_OF_POD: Final[dict[str, Any]] = {
    "name": DRIVER_HOST_VARIABLE,
    "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}},
}


def service_name(job_id: str) -> str:
    return f"driver-{job_id.lower()}"[:63].rstrip("-")


def service_body(job_id: str, ports: Iterable[int], selector: dict[str, str], pod: dict[str, Any]) -> dict[str, Any]:
    """A Service that goes with its pod. ``pod``: its metadata."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
    opened = [{"name": f"p{port}", "port": port, "targetPort": port, "nodePort": port, "protocol": "TCP"} for port in ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service_name(job_id), "labels": selector, "ownerReferences": [owner]},
        "spec": {"type": "NodePort", "selector": selector, "ports": opened, "publishNotReadyAddresses": True},
    }
