"""Checks what `tuttilab.yaml` says of a Kubernetes cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tuttilab.scheduler.clusters.kubernetes.settings import Binding, KubernetesSettings
from tuttilab.scheduler.config.file import ClusterFile
from tuttilab.scheduler.core.placement.taints import toleration_of
from tuttilab.scheduler.domain.errors import BadInput

KIND: Final = "kubernetes"
OWN_KEYS: Final = (
    *("kubeconfig", "in_cluster", "context", "namespace", "namespaces", "image", "sidecar_image", "report_url", "logs"),
    *("tolerations", "node_labels", "uid", "isolate_gangs", "cephfs_claim", "binding", "container_patience_s", "pythons"),
    "spark_image",
)
"""Keys that clusters of other kinds do not have."""
LARGEST_UID: Final = 2**31 - 1
LONGEST_PATIENCE_S: Final = 86400

_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PYTHON = re.compile(r"[23]\.\d{1,2}")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]{0,254}")


def settings_of(file: ClusterFile, path: str, state_dir: Path) -> KubernetesSettings | None:
    """None for another kind. Raises BadInput naming the key below ``path``."""
    if file.kind != KIND:
        _refuse_own_keys(file, path)
        return None
    if file.nodes is not None:
        raise BadInput(f"{path}.nodes: a kubernetes cluster has nodes of its own; expected no such key, or node_labels to choose.")
    if file.in_cluster == (file.kubeconfig is not None):
        raise BadInput(
            f"{path}.kubeconfig: expected a kubeconfig, or in_cluster: true for a control plane in a pod of that cluster."
        )
    if file.in_cluster and file.context is not None:
        raise BadInput(f"{path}.context: it names a part of a kubeconfig; expected no such key with in_cluster.")
    namespace = _namespace(file.namespace, f"{path}.namespace")
    for group, name in file.namespaces.items():
        _namespace(name, f"{path}.namespaces.{group}")
    for key, label in file.node_labels.items():
        if not key or len(label) > 63:
            raise BadInput(f"{path}.node_labels.{key}: {label[:80]!r} is not a label's value; expected up to 63 characters.")
    if not 1 <= file.uid <= LARGEST_UID:
        raise BadInput(f"{path}.uid: {file.uid} cannot be used; expected 1 to {LARGEST_UID}: pods do not run as root.")
    if file.binding not in list(Binding):
        raise BadInput(f"{path}.binding: {file.binding[:40]!r} is not known; expected one of {', '.join(Binding)}.")
    if not 1 <= file.container_patience_s <= LONGEST_PATIENCE_S:
        raise BadInput(
            f"{path}.container_patience_s: {file.container_patience_s} cannot be used; expected 1 to {LONGEST_PATIENCE_S} seconds."
        )
    return KubernetesSettings(
        namespace=namespace,
        namespaces=dict(file.namespaces),
        kubeconfig=None if file.kubeconfig is None else str(state_dir / Path(file.kubeconfig).expanduser()),
        context=file.context,
        image=None if file.image is None else image_of(file.image, f"{path}.image"),
        spark_image=None if file.spark_image is None else image_of(file.spark_image, f"{path}.spark_image"),
        sidecar_image=image_of(file.sidecar_image or "", f"{path}.sidecar_image"),
        report_url=_report_url(file.report_url, f"{path}.report_url"),
        logs=None if file.logs is None else str(state_dir / Path(file.logs).expanduser()),
        tolerations=tuple(toleration_of(text, f"{path}.tolerations[{at}]") for at, text in enumerate(file.tolerations)),
        node_labels=dict(file.node_labels),
        pythons={
            image_of(image, f"{path}.pythons"): _python(text, f"{path}.pythons.{image}") for image, text in file.pythons.items()
        },
        uid=file.uid,
        isolates_gangs=file.isolate_gangs,
        cephfs_claim=_cephfs_claim(file.cephfs_claim, f"{path}.cephfs_claim"),
        binding=Binding(file.binding),
        container_patience_s=float(file.container_patience_s),
    )


def _refuse_own_keys(file: ClusterFile, path: str) -> None:
    defaults: Mapping[str, object] = {item.name: getattr(ClusterFile(name="", kind=""), item.name) for item in fields(ClusterFile)}
    for key in OWN_KEYS:
        if getattr(file, key) != defaults[key]:
            raise BadInput(f"{path}.{key}: it goes with kind {KIND}; expected no such key with kind {file.kind}.")


def _namespace(name: str | None, path: str) -> str:
    if name is None or not _NAMESPACE.fullmatch(name):
        raise BadInput(f"{path}: {name!r} is not a namespace; expected up to 63 lower-case letters, digits and '-'.")
    return name


def _cephfs_claim(template: str, path: str) -> str:
    before, found, after = template.partition("{name}")
    if not found or not _NAMESPACE.fullmatch(f"{before}x{after}"):
        raise BadInput(f"{path}: {template[:80]!r} is no claim's name with the volume's; expected one such as cephfs-{{name}}.")
    return template


def _python(version: str, path: str) -> str:
    if not _PYTHON.fullmatch(version):
        raise BadInput(f'{path}: {version[:40]!r} is no version of Python; expected major and minor, such as "3.12".')
    return version


def image_of(image: str, path: str) -> str:
    """Raises BadInput for what is no image."""
    if not _IMAGE.fullmatch(image):
        raise BadInput(f"{path}: {image[:80]!r} is not an image; expected one such as registry.example/tuttilab-sidecar:1.0.")
    return image


def _report_url(url: str | None, path: str) -> str:
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadInput(
            f"{path}: {url!r} is no URL at which pods reach the control plane; expected one such as http://10.0.0.5:8790, "
            "with listen.pods: 10.0.0.5:8790."
        )
    return (url or "").rstrip("/")
