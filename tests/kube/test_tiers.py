"""Whether the test clusters are what tests take them for: real servers, real containers, and faults that look like faults."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.kube import images
from tests.kube.api import Api, ApiError, Unreachable
from tests.kube.cluster import Cluster
from tests.kube.pods import pod
from tests.kube.processes import eventually
from tests.kube.real import GPU, RealCluster
from tests.kube.tools import build

CONTROL_PLANE = pytest.mark.tier("control-plane")
REAL_PODS = pytest.mark.tier("real-pods")
SLEEP = ("sleep", "1000")


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


@CONTROL_PLANE
def test_the_servers_are_of_the_pinned_version(control_plane_cluster: Cluster) -> None:
    assert control_plane_cluster.api.get("/version")["gitVersion"] == build.KUBERNETES


@CONTROL_PLANE
def test_an_ordinary_user_may_do_nothing_until_a_role_says_so(control_plane_cluster: Cluster, fake_namespace: str) -> None:
    alice = Api(control_plane_cluster.user_kubeconfig("alice"))
    with pytest.raises(ApiError, match=f'User "alice" cannot list resource "pods" .* in the namespace "{fake_namespace}"'):
        alice.get(pods(fake_namespace))
    binding = {
        "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    control_plane_cluster.api.post(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{fake_namespace}/rolebindings", binding)
    eventually("alice may list", lambda: may_list(alice, pods(fake_namespace)))
    assert not may_list(alice, "/api/v1/nodes")


def may_list(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except ApiError as error:
        if error.status != 403:
            raise
        return False
    return True


@CONTROL_PLANE
def test_the_products_account_may_do_its_work_and_no_more(control_plane_cluster: Cluster, fake_namespace: str) -> None:
    ours = Api(control_plane_cluster.service_account_kubeconfig())
    [node] = control_plane_cluster.add_fake_nodes(1)
    ours.post(pods(fake_namespace), pod("ours", SLEEP, image="none", schedulerName="ours"))
    ours.post(f"{pods(fake_namespace)}/ours/binding", {"metadata": {"name": "ours"}, "target": {"kind": "Node", "name": node}})
    control_plane_cluster.wait_for_phase(fake_namespace, "ours", "Running")
    with pytest.raises(ApiError, match="403"):
        ours.delete(f"/api/v1/nodes/{node}")
    with pytest.raises(ApiError, match="403"):
        ours.get("/apis/rbac.authorization.k8s.io/v1/clusterroles")


@CONTROL_PLANE
def test_a_request_without_a_name_is_refused(control_plane_cluster: Cluster) -> None:
    nobody = Api(control_plane_cluster.control_plane.token_kubeconfig("nobody", "made-up"))
    with pytest.raises(ApiError, match="401"):
        nobody.get("/api/v1/nodes")


@CONTROL_PLANE
def test_an_api_server_that_was_down_or_paused_has_forgotten_nothing(control_plane_cluster: Cluster, fake_namespace: str) -> None:
    api = control_plane_cluster.api
    api.post(f"/api/v1/namespaces/{fake_namespace}/configmaps", {"metadata": {"name": "kept"}, "data": {"a": "b"}})
    with control_plane_cluster.api_server_down(), pytest.raises(Unreachable, match="refused"):
        api.get("/version")
    assert api.get(f"/api/v1/namespaces/{fake_namespace}/configmaps/kept")["data"] == {"a": "b"}
    impatient = Api(control_plane_cluster.kubeconfig, timeout_s=1.0)
    with control_plane_cluster.api_server_paused(), pytest.raises(Unreachable, match="Timeout"):
        impatient.get("/version")
    assert api.get("/version")["gitVersion"] == build.KUBERNETES


@REAL_PODS
def test_pods_run_and_say_what_they_did(real_cluster: RealCluster, namespace: str) -> None:
    assert set(real_cluster.real_nodes()) <= real_cluster.ready_nodes()
    code = "import os, sys; print('hello from', os.uname().nodename, sys.version_info[:2])"
    real_cluster.api.post(pods(namespace), pod("hello", ["python3", "-c", code], image=images.PYTHON))
    real_cluster.wait_for_phase(namespace, "hello", "Succeeded")
    assert real_cluster.pod_log(namespace, "hello") == f"hello from hello {version()}\n"
    # exec goes another way than logs: through the API server to the kubelet, both ways at once.
    real_cluster.api.post(pods(namespace), pod("stays", SLEEP, image=images.BUSYBOX))
    real_cluster.wait_for_phase(namespace, "stays", "Running")
    assert real_cluster.kubectl("-n", namespace, "exec", "stays", "--", "hostname") == "stays\n"


def version() -> str:
    """Of the interpreter that runs the tests, which is the one in the image."""
    return str(sys.version_info[:2])


@REAL_PODS
def test_two_pods_on_two_nodes_meet_by_name(real_cluster: RealCluster, namespace: str) -> None:
    first, second = real_cluster.real_nodes()[:2]
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"gang": "g"}}
    real_cluster.api.post(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": "train"}, "spec": service})
    serve = (
        "import socket; s = socket.create_server(('', 2000)); c, peer = s.accept(); c.sendall(b'welcome'); print('met', peer[0])"
    )
    call = """
import socket, time
end = time.monotonic() + 30
while True:
    try:
        print(socket.create_connection(("first.train", 2000), 2).recv(99).decode(), socket.getfqdn("first.train"))
        break
    except OSError:
        assert time.monotonic() < end
        time.sleep(0.1)
"""
    for name, node, code in (("first", first, serve), ("second", second, call)):
        manifest = pod(name, ["python3", "-c", code], image=images.PYTHON, nodeName=node, hostname=name, subdomain="train")
        manifest["metadata"]["labels"] = {"gang": "g"}
        real_cluster.api.post(pods(namespace), manifest)
    for name in ("first", "second"):
        real_cluster.wait_for_phase(namespace, name, "Succeeded")
    address = real_cluster.pod(namespace, "second")["status"]["podIP"]
    assert real_cluster.pod_log(namespace, "first") == f"met {address}\n"
    assert real_cluster.pod_log(namespace, "second").startswith("welcome ")


@REAL_PODS
def test_gpus_are_given_out_by_count_and_given_back(real_cluster: RealCluster, namespace: str) -> None:
    node = real_cluster.real_nodes()[0]
    assert real_cluster.api.get(f"/api/v1/nodes/{node}")["status"]["allocatable"][GPU] == "4"

    def on(name: str, gpus: int) -> dict[str, Any]:
        show = ["sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES; sleep 1000"]
        chosen = {"kubernetes.io/hostname": node}
        return pod(name, show, image=images.BUSYBOX, limits={GPU: str(gpus)}, nodeSelector=chosen)

    real_cluster.api.post(pods(namespace), on("three", 3))
    real_cluster.wait_for_phase(namespace, "three", "Running")
    given = real_cluster.pod_log(namespace, "three").strip().split(",")
    assert len(set(given)) == 3
    assert set(given) <= {"gpu-0", "gpu-1", "gpu-2", "gpu-3"}
    real_cluster.api.post(pods(namespace), on("two", 2))
    eventually("the second waits", lambda: "Insufficient nvidia.com/gpu" in why_unscheduled(real_cluster, namespace, "two"))
    real_cluster.api.delete(f"{pods(namespace)}/three")
    real_cluster.wait_for_phase(namespace, "two", "Running")


def why_unscheduled(cluster: Cluster, namespace: str, name: str) -> str:
    conditions = cluster.pod(namespace, name)["status"].get("conditions") or []
    return " ".join(condition.get("message", "") for condition in conditions if condition["type"] == "PodScheduled")


@REAL_PODS
def test_who_takes_more_memory_than_the_limit_is_killed_for_it(real_cluster: RealCluster, namespace: str) -> None:
    greedy = pod("greedy", ["python3", "-c", "x = bytearray(300 << 20)"], image=images.PYTHON, limits={"memory": "64Mi"})
    real_cluster.api.post(pods(namespace), greedy)
    ended = real_cluster.wait_for_phase(namespace, "greedy", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


@REAL_PODS
def test_a_node_whose_network_is_cut_is_not_ready_and_its_pod_runs_on(
    real_cluster: RealCluster, namespace: str, tell: Callable[[str], None]
) -> None:
    node = real_cluster.real_nodes()[-1]
    count = ["sh", "-c", "while true; do date +%s; sleep 1; done"]
    real_cluster.api.post(pods(namespace), pod("counts", count, image=images.BUSYBOX, nodeName=node))
    real_cluster.wait_for_phase(namespace, "counts", "Running")
    with real_cluster.network_cut(node):
        took = real_cluster.wait_until_not_ready(node)
        cut_until = time.time()
    tell(f"a node whose network is cut is not Ready after {took:.0f} s")
    eventually("its log can be read again", lambda: int(last_line(real_cluster, namespace, "counts")) >= cut_until)
    seen = [int(line) for line in real_cluster.pod_log(namespace, "counts").split()]
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 10


def last_line(cluster: Cluster, namespace: str, name: str) -> str:
    try:
        return cluster.pod_log(namespace, name, tailLines="1").strip() or "0"
    except ApiError:
        return "0"


@REAL_PODS
def test_a_node_that_lost_its_power_comes_back_and_runs_pods(real_cluster: RealCluster, namespace: str) -> None:
    node = real_cluster.real_nodes()[-1]
    real_cluster.stop_node(node)
    real_cluster.wait_until_not_ready(node)
    real_cluster.start_node(node)
    real_cluster.api.post(pods(namespace), pod("again", ["echo", "again"], image=images.BUSYBOX, nodeName=node))
    real_cluster.wait_for_phase(namespace, "again", "Succeeded")
    assert real_cluster.pod_log(namespace, "again") == "again\n"


@CONTROL_PLANE
@pytest.mark.timeout(700)
def test_a_thousand_nodes_are_ready_and_run_pods(
    control_plane_cluster: Cluster, fake_namespace: str, tell: Callable[[str], None]
) -> None:
    began = time.monotonic()
    names = control_plane_cluster.add_fake_nodes(1000, prefix="many")
    took = time.monotonic() - began
    try:
        assert len(set(names) & control_plane_cluster.ready_nodes()) == 1000
        control_plane_cluster.api.post(pods(fake_namespace), pod("gpus", SLEEP, image="none", limits={GPU: "8"}))
        running = control_plane_cluster.wait_for_phase(fake_namespace, "gpus", "Running")
        assert running["spec"]["nodeName"] in control_plane_cluster.ready_nodes()
        tell(f"1,000 fake nodes Ready after {took:.1f} s, {sum(control_plane_cluster.memory_mib().values()):.0f} MiB in all")
    finally:
        control_plane_cluster.remove_fake_nodes(names)
