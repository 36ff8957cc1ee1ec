"""deploy/kubernetes/epoch.yaml on a real API server: pods of an epoch that no longer leads are not made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.clusters import plan
from tests.kube import product_images
from tests.kube.access import ensure, product_rules
from tests.kube.api import Api, ApiError
from tests.kube.cluster import Cluster
from tests.kube.pods import pod
from tests.kube.processes import eventually
from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes.cluster import KubernetesCluster
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.errors import ClusterUnreachable, StaleEpoch

pytestmark = pytest.mark.tier("control-plane")
FILE = product_images.ROOT / "deploy" / "kubernetes" / "epoch.yaml"
PATH = "/apis/admissionregistration.k8s.io/v1"
KINDS = {
    "ValidatingAdmissionPolicy": f"{PATH}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{PATH}/validatingadmissionpolicybindings",
}


@pytest.fixture
def node(control_plane_cluster: Cluster) -> str:
    return control_plane_cluster.add_fake_nodes(1, prefix="epoch")[0]


@pytest.fixture(scope="module")
def policies(control_plane_cluster: Cluster) -> Iterator[None]:
    """Removed once: an API server takes a while to notice that a policy was removed and made again."""
    yield
    for document in documents("ml"):
        control_plane_cluster.api.delete(f"{KINDS[document['kind']]}/{document['metadata']['name']}")


@pytest.fixture
def policy(control_plane_cluster: Cluster, fake_namespace: str, policies: None) -> None:
    """As an administrator applies it, with the namespace of the test."""
    for document in documents(fake_namespace):
        ensure(control_plane_cluster.api, KINDS[document["kind"]], document)


def documents(namespace: str) -> list[Any]:
    return list(yaml.safe_load_all(FILE.read_text(encoding="utf-8").replace("namespace: ml", f"namespace: {namespace}")))


def installation(namespace: str) -> str:
    """Of one test: the Lease of the test before may still count when the next one begins."""
    return f"ours-{namespace}"


@pytest.fixture
async def leaders(
    control_plane_cluster: Cluster, fake_namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[KubernetesCluster, KubernetesCluster]]:
    """Two control planes of one installation, each with a state folder of its own."""
    settings = KubernetesSettings(
        namespace=fake_namespace,
        image="none",
        sidecar_image="none",
        report_url="http://127.0.0.1:9",
        kubeconfig=str(control_plane_cluster.service_account_kubeconfig(product_rules(), name="product")),
    )
    old, new = (KubernetesCluster("k", settings, tmp_path / name, installation(fake_namespace)) for name in ("old", "new"))
    yield old, new
    await old.close()
    await new.close()


def one(node: str, job: str, epoch: int) -> LaunchPlan:
    return replace(plan(job, "true", node=node), epoch=epoch)


def until_it_is_enforced(api: Api, namespace: str, epoch: int) -> None:
    """The API server compiles a policy, and learns of a Lease, a moment after it was written."""
    labels = {"tuttilab.io/installation": installation(namespace), "tuttilab.io/epoch": str(epoch)}

    def is_refused() -> bool:
        body: dict[str, Any] = pod("probe", ["true"], image="none")
        body["metadata"]["labels"] = labels
        try:
            api.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body)
        except ApiError as error:
            return "tuttilab-epoch" in error.message
        return False

    eventually("the policy is enforced", is_refused, 150)


@pytest.mark.usefixtures("policy")
async def test_a_leader_that_was_suspended_before_its_write_makes_no_pod(
    control_plane_cluster: Cluster,
    fake_namespace: str,
    node: str,
    leaders: tuple[KubernetesCluster, KubernetesCluster],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = leaders
    await old.lead(1)
    await old.launch(one(node, "first", 1))

    async def passed(**_: object) -> None:
        """Its comparison, made before it was suspended."""

    monkeypatch.setattr(old._fence, "check", passed)
    await new.lead(2)
    until_it_is_enforced(control_plane_cluster.api, fake_namespace, 1)

    with pytest.raises(StaleEpoch, match="epoch 1 was given, and 2 leads"):
        await old.launch(one(node, "second", 1))

    await new.launch(one(node, "third", 2))
    made = control_plane_cluster.api.get(f"/api/v1/namespaces/{fake_namespace}/pods")["items"]
    assert sorted(each["metadata"]["labels"]["tuttilab.io/job"] for each in made) == ["first", "third"]
    for job in ("first", "third"):
        await new.forget(job, 1, erase=True)


@pytest.mark.usefixtures("policy")
async def test_a_gang_of_an_earlier_epoch_is_completed_by_who_leads_and_by_nobody_else(
    control_plane_cluster: Cluster,
    fake_namespace: str,
    node: str,
    leaders: tuple[KubernetesCluster, KubernetesCluster],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pods carry the epoch in which it was admitted, whoever makes them."""
    old, new = leaders
    gang = plan("gang", "true", members=3, node=node)
    make = old._launcher._create_pod

    async def make_the_first_two(plan: LaunchPlan, pod: PodPlan, *rest: Any) -> None:
        if pod.rank > 0:
            raise ClusterUnreachable("it was suspended here.")
        await make(plan, pod, *rest)

    async def passed(**_: object) -> None:
        """Its comparison, made before it was suspended."""

    await old.lead(1)
    monkeypatch.setattr(old._launcher, "_create_pod", make_the_first_two)
    with pytest.raises(ClusterUnreachable, match="suspended here"):
        await old.launch(gang)
    await new.lead(2)
    until_it_is_enforced(control_plane_cluster.api, fake_namespace, 1)
    monkeypatch.setattr(old._launcher, "_create_pod", make)
    monkeypatch.setattr(old._fence, "check", passed)

    with pytest.raises(StaleEpoch, match="epoch 1 was given, and 2 leads"):
        await old.launch(gang)
    await new.launch(gang)

    made = control_plane_cluster.api.get(f"/api/v1/namespaces/{fake_namespace}/pods")["items"]
    led = {each["metadata"]["name"]: each["metadata"]["annotations"]["tuttilab.io/leader"] for each in made}
    assert led == {"gang-1-master": "1", "gang-1-0": "1", "gang-1-1": "2", "gang-1-2": "2"}
    assert {each["metadata"]["labels"]["tuttilab.io/epoch"] for each in made} == {"1"}
    await new.forget("gang", 1, erase=True)


@pytest.mark.usefixtures("policy")
async def test_pods_of_others_are_not_asked(
    control_plane_cluster: Cluster, fake_namespace: str, leaders: tuple[KubernetesCluster, KubernetesCluster]
) -> None:
    api, path = control_plane_cluster.api, f"/api/v1/namespaces/{fake_namespace}/pods"
    await leaders[0].lead(7)
    until_it_is_enforced(api, fake_namespace, 6)

    api.post(path, pod("nobodys", ["true"], image="none"))
    theirs = pod("theirs", ["true"], image="none")
    theirs["metadata"]["labels"] = {"tuttilab.io/installation": "theirs", "tuttilab.io/epoch": "1"}
    api.post(path, theirs)

    assert sorted(each["metadata"]["name"] for each in api.get(path)["items"]) == ["nobodys", "theirs"]
