"""Builds the clusters that the configuration names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuttilab.scheduler.clusters.base import Cluster
    from tuttilab.scheduler.config.model import ClusterConfig, Config, Limits
    from tuttilab.scheduler.store.base import NoteStore


def build_clusters(config: Config, state: Path, environ: Mapping[str, str], notes: NoteStore | None = None) -> dict[str, Cluster]:
    """By their names. ``notes``: the database, where it is not certain who leads next; otherwise files in the state folder."""
    installation = ""
    if any(cluster.kubernetes is not None for cluster in config.clusters):
        from tuttilab.scheduler.service.launch_plans import Secrets

        installation = Secrets.of(config.auth.key_file, state).installation
    return {cluster.name: _build(cluster, config.limits, state, environ, installation, notes) for cluster in config.clusters}


def _build(
    cluster: ClusterConfig, limits: Limits, state: Path, environ: Mapping[str, str], installation: str, notes: NoteStore | None
) -> Cluster:
    if cluster.kind == "fake":
        from tuttilab.scheduler.clusters.fake import FakeCluster

        return FakeCluster(cluster.name, cluster.nodes or ())
    if cluster.kubernetes is not None:
        from tuttilab.scheduler.clusters.kubernetes.cluster import KubernetesCluster
        from tuttilab.scheduler.service.attempt_notes import StoredNotes

        return KubernetesCluster(
            cluster.name,
            cluster.kubernetes,
            _folder(cluster, state),
            installation,
            keeper=None if notes is None else StoredNotes(notes, cluster.name),
            heartbeat_s=limits.heartbeat_s,
            lease_s=limits.lease_s,
            output_bytes=limits.output_bytes,
            unpacked_bytes=limits.unpacked_bytes,
        )
    from tuttilab.scheduler.clusters.local.cluster import LocalCluster
    from tuttilab.scheduler.clusters.local.owners import Owners

    return LocalCluster(
        cluster.name,
        cluster.nodes,
        _folder(cluster, state),
        environ,
        sys.executable,
        heartbeat_s=limits.heartbeat_s,
        lease_s=limits.lease_s,
        output_bytes=limits.output_bytes,
        unpacked_bytes=limits.unpacked_bytes,
        owners=None if cluster.owners is None else Owners(cluster.owners, cluster.name, state),
    )


def _folder(cluster: ClusterConfig, state: Path) -> Path:
    # A folder each: two clusters must not adopt one another's pods.
    return (state / "clusters" if cluster.owners is None else cluster.owners.folder) / cluster.name


def has_local_cluster(config: Config) -> bool:
    return any(cluster.kind == "local" for cluster in config.clusters)


def newest_fenced_epoch(config: Config, state: Path) -> int:
    """The newest epoch that led a cluster from here, 0 without one; with another database it may be above that one's epoch."""
    from tuttilab.scheduler.clusters.kept import epoch

    return max((epoch.recorded(_folder(cluster, state)) for cluster in config.clusters if cluster.kind != "fake"), default=0)
