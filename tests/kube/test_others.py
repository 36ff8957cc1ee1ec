"""What pods of others take of the nodes: seen through a real API server, and respected by real gangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.kube.access import product_rules, rule
from tests.kube.cluster import Cluster
from tests.kube.pods import pod
from tuttilab.scheduler.clusters.kubernetes.cluster import KubernetesCluster
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.model import Node
from tuttilab.scheduler.domain.resources import NOTHING, PODS, Resources

pytestmark = pytest.mark.tier("control-plane")
LIMIT_S = 150.0
LABELS = {"pool": "others"}
TWO = Resources.parse({"cpu": 2, "nvidia.com/gpu": 1}) + Resources.of({PODS: 1})


@pytest.fixture
def nodes(control_plane_cluster: Cluster) -> list[str]:
    return control_plane_cluster.add_fake_nodes(2, prefix="others", labels=LABELS)


def opened(kubeconfig: Path, namespace: str, folder: Path) -> KubernetesCluster:
    settings = KubernetesSettings(
        namespace=namespace, sidecar_image="none", report_url="http://127.0.0.1:9", kubeconfig=str(kubeconfig), node_labels=LABELS
    )
    return KubernetesCluster("k", settings, folder, "ours")


@pytest.fixture
async def ours(control_plane_cluster: Cluster, fake_namespace: str, tmp_path: Path) -> AsyncIterator[KubernetesCluster]:
    kubeconfig = control_plane_cluster.service_account_kubeconfig(product_rules(), name="product")
    made = opened(kubeconfig, fake_namespace, tmp_path)
    await made.lead(1)
    yield made
    await made.close()


async def shown(cluster: KubernetesCluster, is_so: Callable[[dict[str, Node]], bool]) -> dict[str, Node]:
    """The first nodes of which it is so."""
    found: dict[str, Node] = {}
    async with asyncio.timeout(LIMIT_S), aclosing(cluster.observe()) as observations:
        async for observation in observations:
            found = {node.name: node for node in observation.nodes} if observation.nodes is not None else found
            if found and is_so(found):
                break
    return found


async def test_pods_of_others_are_seen_as_they_come_and_go(
    control_plane_cluster: Cluster, fake_namespace: str, nodes: list[str], ours: KubernetesCluster
) -> None:
    api, pods = control_plane_cluster.api, f"/api/v1/namespaces/{fake_namespace}/pods"
    limits = {"cpu": "2", "nvidia.com/gpu": "1"}
    for name, node, labels in [
        ("first", nodes[0], {}),
        ("second", nodes[0], {"tuttilab.io/installation": "theirs"}),
        ("own", nodes[1], {"tuttilab.io/installation": "ours"}),
        ("server", nodes[1], {"tuttilab.io/server-of": "ours"}),
        ("their-server", nodes[0], {"tuttilab.io/server-of": "theirs"}),
    ]:
        body = pod(name, ["sleep"], image="none", limits=limits, nodeName=node)
        body["metadata"]["labels"] |= labels
        api.post(pods, body)

    before = await shown(ours, lambda seen: seen[nodes[0]].others == TWO * 3)

    assert before[nodes[1]].others == NOTHING, "our own are in the ledger already"
    assert before[nodes[0]].allocatable == before[nodes[1]].allocatable
    api.delete(f"{pods}/first")
    after = await shown(ours, lambda seen: seen[nodes[0]].others == TWO * 2)
    assert after[nodes[1]].others == NOTHING


async def test_a_pod_that_has_ended_takes_nothing(
    control_plane_cluster: Cluster, fake_namespace: str, nodes: list[str], ours: KubernetesCluster
) -> None:
    api, path = control_plane_cluster.api, f"/api/v1/namespaces/{fake_namespace}/pods"
    api.post(path, pod("one", ["sleep"], image="none", limits={"cpu": "2", "nvidia.com/gpu": "1"}, nodeName=nodes[0]))
    await shown(ours, lambda seen: seen[nodes[0]].others == TWO)

    api.patch(f"{path}/one/status", {"status": {"phase": "Failed"}})

    after = await shown(ours, lambda seen: seen[nodes[0]].others == NOTHING)
    assert after[nodes[0]].others == NOTHING


async def test_without_the_right_to_look_at_them_it_is_said_and_all_goes_on(
    control_plane_cluster: Cluster,
    fake_namespace: str,
    nodes: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = control_plane_cluster.api
    api.post(
        f"/api/v1/namespaces/{fake_namespace}/pods", pod("one", ["sleep"], image="none", limits={"cpu": "2"}, nodeName=nodes[0])
    )
    look = [rule("", ["nodes"], ["get", "list", "watch"]), rule("coordination.k8s.io", ["leases"], ["get", "create", "update"])]
    kubeconfig = control_plane_cluster.service_account_kubeconfig(look, name="near-sighted")
    in_its_own = {"metadata": {"name": "pods"}, "rules": [rule("", ["pods"], ["get", "list", "watch"])]}
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{fake_namespace}"
    api.post(f"{roles}/roles", in_its_own)
    binding = {
        "metadata": {"name": "pods"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"},
        "subjects": [{"kind": "ServiceAccount", "name": "near-sighted", "namespace": "tuttilab"}],
    }
    api.post(f"{roles}/rolebindings", binding)
    cluster = opened(kubeconfig, fake_namespace, tmp_path)
    await cluster.lead(1)

    with caplog.at_level(logging.WARNING):
        seen = await shown(cluster, lambda seen: set(nodes) <= set(seen))
        await shown(cluster, lambda seen: set(nodes) <= set(seen))
    await cluster.close()

    assert seen[nodes[0]].others == NOTHING
    assert caplog.text.count("may not list pods of all namespaces, so what others run is taken for free room") == 1
