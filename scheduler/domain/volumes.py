"""How a volume of the site stands in a pod: the same for servers, whose pods the hub makes, and for pods of jobs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote


def source_of(kind: str, source: str, cephfs_claim: str) -> dict[str, Any]:
    """The whole volume: a folder of it is a subPath, of which the kubelet refuses one that leads out by a link.

    ``cephfs_claim`` is the template of a claim's name, with ``{name}``. Any: a part of a Kubernetes manifest.
    """
    if kind == "host_path":
        # Not made when it is missing: a folder of root's would hide that the node lacks the storage.
        return {"hostPath": {"path": source, "type": "Directory"}}
    if kind == "nfs":
        server, _, path = source.partition(":")
        return {"nfs": {"server": server, "path": path}}
    claim = cephfs_claim.format(name=source) if kind == "cephfs" else source
    return {"persistentVolumeClaim": {"claimName": claim}}


def folder_of(owner: str) -> str:
    """A user's name as the name of one folder: unique per user, and never a path that leads elsewhere."""
    escaped = quote(owner, safe="")
    return escaped.replace(".", "%2E") if set(escaped) <= {"."} else escaped
