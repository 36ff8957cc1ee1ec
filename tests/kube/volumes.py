"""A folder of the machine, which all nodes see, as a volume with its claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.kube.cluster import Cluster


def make_claim(cluster: Cluster, namespace: str, name: str, folder: Path) -> None:
    """Volumes are no namespace's: `drop_volume` removes it afterwards."""
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume: dict[str, Any] = {
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            **shared,
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": namespace, "name": name},
        },
    }
    claim = {
        "metadata": {"name": name},
        "spec": {**shared, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume["metadata"]["name"]},
    }
    cluster.api.post("/api/v1/persistentvolumes", volume)
    cluster.api.post(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim)


def drop_volume(cluster: Cluster, namespace: str, name: str) -> None:
    cluster.api.delete(f"/api/v1/persistentvolumes/{namespace}-{name}")
