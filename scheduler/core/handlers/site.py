"""What the site has: queues as they are configured, clusters and their nodes as they show themselves."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.queues import check_tree
from tuttilab.scheduler.core.rows import Rows
from tuttilab.scheduler.instructions import Instruction


def queues_configured(rows: Rows, event: ev.QueuesConfigured, at: float) -> list[Instruction]:
    rows.put_queues(check_tree(event.queues))
    return []


def cluster_observed(rows: Rows, event: ev.ClusterObserved, at: float) -> list[Instruction]:
    known = rows.clusters.get(event.cluster.name)
    since = known.unreachable_since if known else None
    rows.put_cluster(replace(event.cluster, unreachable_since=since))
    return []


def cluster_lost(rows: Rows, event: ev.ClusterLost, at: float) -> list[Instruction]:
    cluster = rows.clusters.get(event.cluster)
    if cluster is not None and cluster.unreachable_since is None:
        rows.put_cluster(replace(cluster, unreachable_since=at))
    return []


def cluster_back(rows: Rows, event: ev.ClusterBack, at: float) -> list[Instruction]:
    cluster = rows.clusters.get(event.cluster)
    if cluster is not None:
        rows.put_cluster(replace(cluster, unreachable_since=None))
    return []
