"""Pure functions from a profile's mounts to volumes of a pod: claims, NFS, folders of the node; HDFS; Kerberos in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tuttilab.scheduler.domain.requests import MountRequest, ProfileRequest
from tuttilab.scheduler.domain.volumes import folder_of, source_of

HADOOP_CONF: Final = "/etc/hadoop/conf"
TICKETS: Final = "/run/tuttilab/krb5"
CEPHFS_DRIVER: Final = "cephfs.csi.ceph.com"

Manifest = dict[str, Any]
"""A part of a Kubernetes manifest (``Any``: JSON)."""


@dataclass(frozen=True, slots=True)
class Volumes:
    volumes: tuple[Manifest, ...] = ()
    mounts: tuple[Manifest, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


def volumes_of(profile: ProfileRequest, owner: str, cephfs_claim: str) -> Volumes:
    """``cephfs_claim`` is the template of a claim's name, with ``{name}``. A claim that is mounted twice is one volume."""
    volumes: dict[str, Manifest] = {}
    mounts: list[Manifest] = []
    env: dict[str, str] = {}
    for mount in profile.mounts:
        source = _source_of(mount, cephfs_claim)
        key = repr(source)
        if key not in volumes:
            volumes[key] = {"name": f"tutti-{len(volumes)}", **source}
        piece: Manifest = {"name": volumes[key]["name"], "mountPath": mount.path, "readOnly": mount.mode == "r"}
        if mount.sub_path:
            piece["subPath"] = mount.sub_path.replace("{owner}", folder_of(owner))
        mounts.append(piece)
    if profile.hdfs is not None:
        volumes["hdfs"] = {"name": "tutti-hdfs", "configMap": {"name": profile.hdfs.config}}
        mounts.append({"name": "tutti-hdfs", "mountPath": HADOOP_CONF, "readOnly": True})
        env["HADOOP_CONF_DIR"] = HADOOP_CONF
        if profile.hdfs.kerberos:
            # Never on a disk: whoever has the ticket cache can act as the user.
            volumes["krb5"] = {"name": "tutti-krb5", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
            mounts.append({"name": "tutti-krb5", "mountPath": TICKETS, "readOnly": False})
            env["KRB5CCNAME"] = f"FILE:{TICKETS}/ccache"
    return Volumes(tuple(volumes.values()), tuple(mounts), env)


def _source_of(mount: MountRequest, cephfs_claim: str) -> Manifest:
    kinds = ("host_path", "nfs", "claim", "cephfs")
    kind, source = next((kind, str(value)) for kind in kinds if (value := getattr(mount, kind)) is not None)
    return source_of(kind, source, cephfs_claim)


def cephfs_static(
    name: str, *, namespace: str, claim: str, cluster_id: str, fs_name: str, root_path: str, secret: str, secret_namespace: str
) -> tuple[Manifest, Manifest]:
    """The PersistentVolume and claim of an existing CephFS folder, for an admin to apply once."""
    # Kubernetes requires a size; CephFS enforces the folder's own quota, not this.
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": size,
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "volumeMode": "Filesystem",
            "claimRef": {"namespace": namespace, "name": claim},
            "csi": {
                "driver": CEPHFS_DRIVER,
                "volumeHandle": f"{namespace}-{name}",
                "nodeStageSecretRef": {"name": secret, "namespace": secret_namespace},
                "volumeAttributes": {"clusterID": cluster_id, "fsName": fs_name, "staticVolume": "true", "rootPath": root_path},
            },
        },
    }
    wanted = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": size},
            "storageClassName": "",
            "volumeName": f"{namespace}-{name}",
        },
    }
    return volume, wanted
