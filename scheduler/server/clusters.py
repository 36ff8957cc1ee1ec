"""Builds the clusters that the configuration names."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuttilab.scheduler.domain.errors import ClusterUnreachable, EnvironmentProblem

if TYPE_CHECKING:
    from tuttilab.scheduler.clusters.base import Cluster
    from tuttilab.scheduler.config.model import ClusterConfig, Config, Limits
    from tuttilab.scheduler.store.base import NoteStore

log = logging.getLogger(__name__)


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


async def newest_fenced_epoch(config: Config, state: Path) -> int:
    """The newest epoch that led a cluster, 0 without one, as far as we can know; with another database it may be above that one's.

    From the state folder; with a database that is new, from the clusters too. Raises EnvironmentProblem where another control
    plane leads one of them, StoreError.
    """
    from tuttilab.scheduler.clusters.kept import epoch

    known = max((epoch.recorded(_folder(cluster, state)) for cluster in config.clusters if cluster.kind != "fake"), default=0)
    if known or not any(cluster.kubernetes is not None for cluster in config.clusters):
        return known
    own = await _epoch_if_unused(config.store.url)
    if own is None:
        return known
    found = await asyncio.gather(*(_last_led(cluster, config, state, own) for cluster in config.clusters))
    newest = max(led for led, _ in found)
    for cluster, (led, is_led) in zip(config.clusters, found, strict=True):
        now = await _epoch_if_unused(config.store.url) if is_led else None
        # Another replica may lead this database by now.
        if now is not None and now < led:
            raise EnvironmentProblem(
                f"a control plane of this key leads the pods of cluster {cluster.name} with another database, and this one's is "
                "new. Two would end one another's jobs: end the other one first, or give this one its store.url or an "
                "auth.key_file of its own."
            )
    return newest


async def _epoch_if_unused(url: str) -> int | None:
    from tuttilab.scheduler.store.sql import SqlStore

    store = SqlStore(url)
    try:
        return await store.epoch_if_unused()
    finally:
        await store.close()


async def _last_led(cluster: ClusterConfig, config: Config, state: Path, above: int) -> tuple[int, bool]:
    if cluster.kubernetes is None:
        return 0, False
    from tuttilab.scheduler.clusters.kubernetes.fence import last_led
    from tuttilab.scheduler.service.launch_plans import Secrets

    try:
        return await last_led(cluster.name, cluster.kubernetes, Secrets.of(config.auth.key_file, state).installation, above)
    except ClusterUnreachable as error:
        log.warning("whether a control plane with another database led cluster %s is not known: %s", cluster.name, error)
        return 0, False
