"""What the site has: queues as they are configured, clusters and their nodes as they show themselves."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.queues import check_tree
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rows import Rows
from tuttilab.scheduler.instructions import Instruction


def queues_configured(rows: Rows, event: ev.QueuesConfigured, at: float) -> list[Instruction]:
    tree = check_tree(event.queues)
    is_other = tree != rows.queues
    rows.put_queues(tree)
    if is_other or any(
        len(attempt.standing) != len(rows.books.ledger.path(job.queue)) for job, attempt in rows.books.live.values()
    ):
        _stand_anew(rows)
    return []


def _stand_anew(rows: Rows) -> None:
    """Other guarantees: who runs stands to them as if each had been admitted under them, one after the other."""
    ledger = Ledger.of(rows.queues, ())
    for job, attempt in sorted(rows.books.live.values(), key=lambda one: (one[1].admitted_at, one[0].order)):
        standing = ledger.standing(job.queue, attempt.charge)
        ledger.add(job.queue, attempt.charge, len(attempt.pods))
        if standing != attempt.standing:
            rows.put_attempt(replace(attempt, standing=standing))


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
