"""Pods that we bind ourselves, kubelets that refuse them, and bare pods, in containers of a real Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kube import images
from tests.kube.access import product_rules, rule
from tests.kube.job_site import RESTRICTED, SLEEPER, SharedSite, Site, made_site
from tests.kube.pods import pod as pod_of
from tests.kube.real import RealCluster
from tests.user_machine import eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.clusters.kubernetes.states import amount
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import JobRequest, OutputRequest, PodRequest

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]
SMALL = (PodRequest(role="worker", count=2, cpus="0.1", memory="64Mi"),)


def near_sighted(cluster: RealCluster, namespace: str) -> Path:
    """An account with the product's rights in its namespace, which does not see what others run on the nodes."""
    nodes = [rule("", ["nodes"], ["get", "list", "watch"])]
    kubeconfig = cluster.service_account_kubeconfig(nodes, name=f"near-{namespace}")
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    cluster.api.post(f"{roles}/roles", {"metadata": {"name": "own"}, "rules": product_rules()})
    binding = {
        "metadata": {"name": "own"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "own"},
        "subjects": [{"kind": "ServiceAccount", "name": f"near-{namespace}", "namespace": "tuttilab"}],
    }
    cluster.api.post(f"{roles}/rolebindings", binding)
    return kubeconfig


@pytest.fixture(scope="module")
def shared_site(product_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedSite]:
    @contextmanager
    def opened() -> Iterator[Site]:
        with product_cluster.namespace(labels=RESTRICTED) as namespace:
            kubeconfig = near_sighted(product_cluster, namespace)
            with made_site(product_cluster, kubeconfig, namespace, tmp_path_factory.mktemp("direct")) as site:
                site.settings["binding"] = "direct"
                yield site

    with closing(SharedSite(opened)) as shared:
        yield shared


@pytest.fixture
def client(site: Site) -> Client:
    return site.machine.client()


def unscheduled(pod: Any) -> bool:
    return "affinity" not in pod["spec"] and bool(pod["spec"]["nodeName"])


def test_a_kubelet_that_refuses_costs_one_retry_on_another_node(site: Site) -> None:
    """A pod of others came in between: nobody told the control plane of it."""
    probe = site.started("--", *SLEEPER)
    site.until_running(probe)
    (pod,) = site.pods()
    assert unscheduled(pod)
    chosen = pod["spec"]["nodeName"]
    assert site.machine.run("cancel", probe).code == 0
    site.until(probe, "Cancelled")
    cpus = amount(site.cluster.api.get(f"/api/v1/nodes/{chosen}")["status"]["allocatable"]["cpu"])
    with site.cluster.namespace() as others:
        limits = {"cpu": f"{int(cpus * 1000) - 500}m"}
        theirs = pod_of("theirs", ["sleep", "1000"], image=images.BUSYBOX, limits=limits, nodeName=chosen)
        site.cluster.api.post(f"/api/v1/namespaces/{others}/pods", theirs)
        site.cluster.wait_for_phase(others, "theirs", "Running")

        job = site.started("--cpus", "1", "--", *SLEEPER)
        found = eventually(lambda: (shown := site.job(job))["attempts"][1:] and shown, 150)

        first = found["attempts"][0]
        assert (first["phase"], first["pods"][0]["node"], first["pods"][0]["reason"]) == ("Lost", chosen, "OutOfcpu")
        assert first["reason"] == f"node {chosen} did not take pod {first['pods'][0]['name']} (OutOfcpu)"
        running = site.until_running(job)
        assert [attempt["pods"][0]["node"] != chosen for attempt in running["attempts"]] == [False, True]
        assert site.machine.run("cancel", job).code == 0
        site.until(job, "Cancelled")


def test_bare_pods_are_the_users_containers_with_their_exit_codes_and_logs(site: Site, client: Client) -> None:
    code = 'echo "rank $TUTTILAB_RANK"; touch $HOME/x && ls / && exit $((TUTTILAB_RANK * 3))'
    request = JobRequest(pods=SMALL, command=("sh", "-c", code), image=images.BUSYBOX, sidecar=False)
    job = client.submit(request).id

    ended = site.until(job, "Failed")

    codes = {pod["rank"]: pod["exit_code"] for pod in ended["attempts"][-1]["pods"]}
    assert (codes[1], ended["exit_code"], len(codes)) == (3, 3, 2)
    log = site.logs(job)
    assert "rank 0" in log
    assert "rank 1" in log
    site.until_nothing_is_left()
    good = client.submit(JobRequest(pods=SMALL, command=("sleep", "3"), image=images.BUSYBOX, sidecar=False)).id
    shown: list[Any] = eventually(lambda: len(pods := site.pods()) == 2 and pods, 90)
    assert [[*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]][0]["name"] for pod in shown] == ["main"] * 2
    assert not any(volume.get("secret") or volume.get("projected") for pod in shown for volume in pod["spec"]["volumes"])
    assert site.until(good, "Succeeded")["exit_code"] == 0


def test_a_bare_pod_is_stopped_and_what_needs_a_side_car_is_refused_at_once(site: Site, client: Client) -> None:
    job = client.submit(JobRequest(pods=SMALL, command=SLEEPER, image=images.PYTHON, sidecar=False)).id
    site.until_running(job)
    eventually(lambda: site.logs(job).count(" on\n") == 2)

    assert site.machine.run("cancel", job).code == 0

    ended = site.until(job, "Cancelled")
    assert [pod["exit_code"] for pod in ended["attempts"][-1]["pods"]] == [143, 143]
    outputs = (OutputRequest(name="m", path="m.pt"),)
    with pytest.raises(BadInput, match="sidecar: without one a container has nobody for outputs; expected sidecar: true"):
        client.submit(JobRequest(pods=SMALL, command=("true",), image=images.BUSYBOX, sidecar=False, outputs=outputs))
    site.until_nothing_is_left()
