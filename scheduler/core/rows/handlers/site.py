"""The site: configured queues, observed clusters and their nodes."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.ordering.queues import check_tree
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rows.rows import Rows
from tuttilab.scheduler.core.rows.tuning import tuned_queues
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction


def queues_configured(rows: Rows, event: ev.QueuesConfigured, at: float) -> list[Instruction]:
    tree = check_tree(event.queues)
    has_changed = tree != rows.queues
    rows.put_queues(tree)
    if has_changed or any(
        len(attempt.standing) != len(rows.usage.ledger.path(job.queue)) for job, attempt in rows.usage.live.values()
    ):
        _recompute_standings(rows)
    return []


def policy_tuned(rows: Rows, event: ev.PolicyTuned, at: float) -> list[Instruction]:
    rows.put_queues(check_tree(tuned_queues(tuple(rows.queues.values()), event.values, at, event.by, event.why)))
    return []


def _recompute_standings(rows: Rows) -> None:
    """After other guarantees: the standing of each live attempt as if all had been admitted under them, in the same order."""
    ledger = Ledger.of(rows.queues, ())
    for job, attempt in sorted(rows.usage.live.values(), key=lambda one: (one[1].admitted_at, one[0].order)):
        standing = ledger.standing(job.queue, attempt.charge)
        ledger.add(job.queue, attempt.charge, len(attempt.pods))
        if standing != attempt.standing:
            rows.put_attempt(replace(attempt, standing=standing))


def cluster_observed(rows: Rows, event: ev.ClusterObserved, at: float) -> list[Instruction]:
    known = rows.clusters.get(event.cluster.name)
    since, why, back = (known.unreachable_since, known.unreachable_why, known.reachable_since) if known else (None, "", None)
    rows.put_cluster(replace(event.cluster, unreachable_since=since, unreachable_why=why, reachable_since=back))
    return []


def others_observed(rows: Rows, event: ev.OthersObserved, at: float) -> list[Instruction]:
    cluster = rows.clusters.get(event.cluster)
    if cluster is not None:
        nodes = [replace(node, others=event.taken[node.name]) if node.name in event.taken else node for node in cluster.nodes]
        rows.put_cluster(replace(cluster, nodes=tuple(nodes)))
    return []


def cluster_lost(rows: Rows, event: ev.ClusterLost, at: float) -> list[Instruction]:
    cluster = rows.clusters.get(event.cluster)
    if cluster is not None and cluster.unreachable_since is None:
        rows.put_cluster(replace(cluster, unreachable_since=at, unreachable_why=event.why))
    return []


def cluster_back(rows: Rows, event: ev.ClusterBack, at: float) -> list[Instruction]:
    cluster = rows.clusters.get(event.cluster)
    if cluster is not None:
        rows.put_cluster(replace(cluster, unreachable_since=None, unreachable_why="", reachable_since=at))
    return []
