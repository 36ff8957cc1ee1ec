"""Several control planes on one cluster and one Postgres: what one noted of an attempt holds for the next, not for a former one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.clusters import growth, plan, watching
from tests.kube.access import product_rules
from tests.kube.api import MERGE
from tests.kube.cluster import Cluster
from tests.kube.processes import eventually
from tests.postgres import Postgres
from tuttilab.scheduler.clusters.kubernetes.cluster import KubernetesCluster
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.errors import LaunchRefused, NotFound, StaleEpoch, StoreError
from tuttilab.scheduler.service.attempt_notes import StoredNotes
from tuttilab.scheduler.store.sql import SqlStore

pytestmark = [pytest.mark.tier("control-plane"), pytest.mark.requires("postgres")]
ENDED_BY_A_SIGNAL = {
    "phase": "Failed",
    "containerStatuses": [
        {
            "name": "main",
            "image": "none",
            "imageID": "none",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": {"exitCode": 143, "reason": "Error", "containerID": "containerd://main"}},
        }
    ],
}
LABELS = {"pool": "leaders"}
Lead = Callable[..., Awaitable[KubernetesCluster]]


@pytest.fixture
def node(control_plane_cluster: Cluster) -> str:
    return control_plane_cluster.add_fake_nodes(1, prefix="leaders", labels=LABELS)[0]


@pytest.fixture
async def lead(
    control_plane_cluster: Cluster, fake_namespace: str, tmp_path: Path, postgres_server: Postgres
) -> AsyncIterator[Lead]:
    """A control plane with a state folder of its own takes over."""
    database = postgres_server.new_database()
    settings = KubernetesSettings(
        namespace=fake_namespace,
        image="none",
        sidecar_image="none",
        report_url="http://127.0.0.1:9",
        kubeconfig=str(control_plane_cluster.service_account_kubeconfig(product_rules(), name="product")),
        node_labels=LABELS,
        logs=str(tmp_path / "logs"),
    )
    opened: list[tuple[KubernetesCluster, SqlStore]] = []

    async def lead(**changes: Any) -> KubernetesCluster:
        store = SqlStore(postgres_server.url(database))
        epoch = await store.open()
        state = tmp_path / f"state-{epoch}"
        cluster = KubernetesCluster("k", replace(settings, **changes), state, "ours", keeper=StoredNotes(store, "k"))
        opened.append((cluster, store))
        await cluster.lead(epoch)
        return cluster

    yield lead
    for cluster, store in opened:
        await cluster.close()
        await store.close()
    postgres_server.drop(database)


class Namespace:
    def __init__(self, cluster: Cluster, name: str) -> None:
        self._api = cluster.api
        self._base = f"/api/v1/namespaces/{name}"

    def uids(self) -> dict[str, str]:
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self._api.get(f"{self._base}/pods")["items"]}

    def in_deletion(self) -> set[str]:
        pods = (pod["metadata"] for pod in self._api.get(f"{self._base}/pods")["items"])
        return {each["name"] for each in pods if "deletionTimestamp" in each}

    def others(self) -> list[str]:
        """Kinds of what is beside the pods."""
        kinds = {"Secret": "secrets", "Service": "services"}
        return [kind for kind, path in kinds.items() for _ in self._api.get(f"{self._base}/{path}")["items"]]

    def lose(self, name: str) -> None:
        """Somebody deletes the pod by force and takes its finalizer off."""
        self._api.patch(f"{self._base}/pods/{name}", {"metadata": {"finalizers": None}}, MERGE)
        self._api.delete(f"{self._base}/pods/{name}?gracePeriodSeconds=0")

    def end(self, name: str, status: Mapping[str, Any]) -> None:
        """As a kubelet says it."""
        self._api.patch(f"{self._base}/pods/{name}/status", {"status": status}, MERGE)

    def allow_pods(self, count: int) -> None:
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": str(count)}}}
        self._api.post(f"{self._base}/resourcequotas", body)
        path = f"{self._base}/resourcequotas/few"
        eventually("the quota counts", lambda: "hard" in self._api.get(path).get("status", {}))

    def allow_all_pods(self) -> None:
        self._api.delete(f"{self._base}/resourcequotas/few")


@pytest.fixture
def namespace(control_plane_cluster: Cluster, fake_namespace: str) -> Namespace:
    return Namespace(control_plane_cluster, fake_namespace)


async def test_what_was_stopped_stays_stopped_and_ends_as_such_under_the_next_leader(
    lead: Lead, namespace: Namespace, node: str
) -> None:
    old = await lead()
    gang = plan("job", "true", members=2, node=node)
    await old.launch(gang)
    uids = namespace.uids()
    await old.stop("job", 1, 5.0, why="it was cancelled")

    new = await lead()
    await new.launch(gang)
    for name in ("job-1-0", "job-1-1"):
        namespace.end(name, ENDED_BY_A_SIGNAL)
    async with watching(new) as seen:
        ended = await seen.ended("job-1-0", "job-1-1")

    assert [(pod.exit_code, pod.reason) for pod in ended] == [(143, "Stopped")] * 2
    assert namespace.uids() == uids
    await new.forget("job", 1, erase=True)
    assert namespace.uids() == {}


async def test_a_pod_that_was_given_back_before_it_was_made_is_not_made_by_the_next_leader(
    lead: Lead, namespace: Namespace, node: str
) -> None:
    old = await lead()
    gang = plan("job", "true", members=2, node=node)
    await old.launch(gang)
    more = growth(gang, 2, 3)
    given_back, kept = (pod.name for pod in more.pods if pod.joins)
    await old.stop("job", 1, 5.0, [given_back])

    new = await lead()
    await new.launch(more)

    assert set(namespace.uids()) == {"job-1-master", "job-1-0", "job-1-1", kept}
    await new.forget("job", 1, erase=True)


async def test_a_refusal_and_an_end_that_nobody_recorded_are_told_by_the_next_leader(
    lead: Lead, namespace: Namespace, node: str
) -> None:
    """The leader was killed before it committed what its call answered."""
    old = await lead()
    refused, over = plan("refused", "true", members=3, node=node), plan("over", "true", node=node)
    namespace.allow_pods(2)
    with pytest.raises(LaunchRefused, match="a ResourceQuota of the namespace is smaller"):
        await old.launch(refused)
    namespace.allow_all_pods()
    await old.launch(over)
    await old.forget("over", 1)

    new = await lead()
    with pytest.raises(LaunchRefused, match="a ResourceQuota of the namespace is smaller"):
        await new.launch(refused)
    with pytest.raises(LaunchRefused, match="was over and its pods let go of; it is not made again"):
        await new.launch(over)

    assert namespace.uids() == {}
    for job in ("refused", "over"):
        await new.forget(job, 1, erase=True)


async def test_pods_that_were_made_and_not_noted_are_found_and_not_made_again(
    lead: Lead, namespace: Namespace, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await lead()
    gang = plan("job", "true", members=3, node=node)
    keep, calls = old._attempts._keeper.write, []

    async def only_once(*arguments: Any, **more: Any) -> None:
        calls.append(arguments)
        if len(calls) > 1:
            raise StoreError("it was killed here.")
        await keep(*arguments, **more)

    monkeypatch.setattr(old._attempts._keeper, "write", only_once)
    with pytest.raises(StoreError, match="killed here"):
        await old.launch(gang)
    uids = namespace.uids()
    assert len(uids) == 4

    new = await lead()
    await new.launch(gang)

    noted = await new._attempts.find("job", 1)
    assert namespace.uids() == uids
    assert noted is not None
    assert noted.made == uids
    await new.forget("job", 1, erase=True)


async def test_a_former_leader_that_was_suspended_after_its_comparison_makes_and_stops_nothing(
    lead: Lead, namespace: Namespace, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the admission policy: it has to note what it is about to do, and cannot."""
    old = await lead()
    await old.launch(plan("before", "true", node=node))
    new = await lead()
    await new.launch(plan("after", "true", node=node))
    uids = namespace.uids()

    async def passed(**_: object) -> None:
        """Made before it was suspended."""

    monkeypatch.setattr(old._fence, "check", passed)
    with pytest.raises(StaleEpoch, match="epoch 1 was given, and 2 leads"):
        await old.launch(plan("late", "true", node=node))
    with pytest.raises(StaleEpoch):
        await old.stop("before", 1, 5.0)

    assert namespace.uids() == uids
    async with watching(new) as seen:
        assert set(seen.pods) == {"before-1-0", "after-1-0"}
    for job in ("before", "after"):
        await new.forget(job, 1, erase=True)


async def test_pods_whose_note_is_lost_are_stopped_by_their_labels(lead: Lead, namespace: Namespace, node: str) -> None:
    """As with a backup that was made before the launch."""
    old = await lead()
    gang = plan("job", "true", members=2, node=node)
    await old.launch(gang)
    await old._attempts._keeper.erase("job", 1)

    new = await lead()
    await new.stop("job", 1, 5.0)
    await new.launch(gang)
    namespace.end("job-1-0", ENDED_BY_A_SIGNAL)
    async with watching(new) as seen:
        (ended,) = await seen.ended("job-1-0")

    assert ended.reason == "Stopped"
    noted = await new._attempts.find("job", 1)
    assert noted is not None
    assert (noted.digest, noted.made) == (gang.digest, namespace.uids())
    await new.forget("job", 1, erase=True)


async def test_a_log_in_a_folder_that_is_not_shared_is_said_to_be_elsewhere(
    lead: Lead, namespace: Namespace, node: str, tmp_path: Path
) -> None:
    old = await lead()
    await old.launch(plan("job", "true", node=node))
    assert (await old.logs("job", 1, "job-1-0", 0, 10)).lines == ()

    shared = await lead()
    assert (await shared.logs("job", 1, "job-1-0", 0, 10)).lines == ()
    apart = await lead(logs=str(tmp_path / "another"))
    with pytest.raises(NotFound, match=r"another control plane wrote it, to a folder that is not .*another/k here; mend clusters"):
        await apart.logs("job", 1, "job-1-0", 0, 10)
    with pytest.raises(NotFound, match=r"no log is kept here\.$"):
        await apart.logs("unknown", 1, "unknown-1-0", 0, 10)
    await apart.forget("job", 1, erase=True)


@pytest.mark.feature("C01")
async def test_members_and_what_is_beside_them_go_with_their_master_though_nobody_leads(
    lead: Lead, namespace: Namespace, node: str
) -> None:
    """The cluster's own garbage collection does it, as each of them belongs to the master."""
    leader = await lead()
    await leader.launch(plan("job", "true", members=3, node=node))
    assert namespace.others() == ["Secret", "Service"]

    namespace.lose("job-1-master")

    eventually("they are told to end", lambda: namespace.in_deletion() == {"job-1-0", "job-1-1", "job-1-2"})
    eventually("their Service and Secret are gone", lambda: namespace.others() == [])
    await leader.forget("job", 1, erase=True)
    assert namespace.uids() == {}
