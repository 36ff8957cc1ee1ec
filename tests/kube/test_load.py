"""A small part of what `make bench-kube` measures, without a word about time: what is bound where, and what it costs in writes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.kube.cluster import Cluster
from tests.kube.load import Counted, bodies_by_name, counted, product, remove_pods, writes
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = [pytest.mark.tier("control-plane"), pytest.mark.timeout(700)]
LABELS = {"pool": "load"}
PODS, NODES = 100, 20
LIMIT_S = 200.0


@pytest.mark.parametrize(("size", "has_sidecars"), [(1, True), (20, True), (100, False)])
def test_each_pod_is_made_once_and_bound_where_it_was_decided_within_two_writes(
    control_plane_cluster: Cluster, fake_namespace: str, tmp_path: Path, size: int, has_sidecars: bool
) -> None:
    nodes = control_plane_cluster.add_fake_nodes(NODES, prefix="load", labels=LABELS)
    gangs = PODS // size
    expected = PODS + (gangs if size > 1 and has_sidecars else 0)
    pods = (PodRequest(role="worker", count=size, cpus="1", memory="64Mi"),)
    request = JobRequest(name="load", pods=pods, command=("true",), sidecar=has_sidecars, cluster="k")
    try:
        with product(control_plane_cluster, fake_namespace, tmp_path / "product", node_labels=LABELS) as control:
            before = writes(control_plane_cluster)
            with Counted(control_plane_cluster, fake_namespace) as seen:
                jobs = control.client.submit_many([request] * gangs)
                seen.until("bound", expected, LIMIT_S)
                written = counted(before, writes(control_plane_cluster)) / expected
            found = bodies_by_name(control_plane_cluster, fake_namespace)
            decided = {
                pod.name: pod.node for job in jobs for attempt in control.client.job(job.id).attempts for pod in attempt.pods
            }
            attempts = Counter(len(control.client.job(job.id).attempts) for job in jobs)

        assert {name: body["spec"]["nodeName"] for name, body in found.items()} == decided
        assert set(decided.values()) <= set(nodes)
        assert len(decided) == expected, "no pod twice"
        assert attempts == {1: gangs}
        assert written <= 2.1, "a pod and what goes with it"
        by_scheduler = [name for name, body in found.items() if "affinity" in body["spec"]]
        assert not by_scheduler
    finally:
        remove_pods(control_plane_cluster, fake_namespace)
        control_plane_cluster.remove_fake_nodes(nodes)
