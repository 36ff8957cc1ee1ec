"""The backend and the whole product before a real API server that refuses, loses answers, goes away, and watches that misbehave.

The nodes are rows (KWOK), so that a pod runs until the test ends it, as a kubelet would.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import doses
from tests.contract.clusters import plan
from tests.kube.access import product_rules
from tests.kube.api import MERGE
from tests.kube.cluster import Cluster
from tests.kube.faults import FaultyApi, faulty_api
from tests.kube.processes import eventually as eventually_it
from tests.ports import free_port
from tests.user_machine import UserMachine, eventually, made_machine
from tuttilab.scheduler.clusters.base import PodState
from tuttilab.scheduler.clusters.kubernetes.cluster import KubernetesCluster
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.errors import ClusterUnreachable
from tuttilab.scheduler.domain.model import PodPhase
from tuttilab.scheduler.domain.wire import to_data

pytestmark = [pytest.mark.tier("control-plane"), pytest.mark.timeout(1500 if doses.IS_SOAK else 700)]
LABELS = {"pool": "unkind"}
OUTAGES_S = (1, 30, 600) if doses.IS_SOAK else (1, 12)
BACK_OFF_S = 2
"""Long enough for five launches in a row not to be over before what refuses them is gone."""
ENDED = {"status": {"phase": "Failed"}}


@pytest.fixture
def faults(control_plane_cluster: Cluster) -> Iterator[FaultyApi]:
    with faulty_api(control_plane_cluster) as faults:
        yield faults


@pytest.fixture
def kubeconfig(control_plane_cluster: Cluster, faults: FaultyApi) -> Path:
    return faults.kubeconfig(control_plane_cluster.service_account_kubeconfig(product_rules(), name="product"))


@pytest.fixture
def node(control_plane_cluster: Cluster) -> Iterator[str]:
    names = control_plane_cluster.add_fake_nodes(1, prefix="unkind", labels=LABELS)
    yield names[0]
    control_plane_cluster.remove_fake_nodes(names)


class Namespace:
    """What the API server has there, and a kubelet's and an administrator's hand."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self._api = cluster.api
        self.path = f"/api/v1/namespaces/{name}/pods"

    def pods(self) -> list[Any]:
        found: list[Any] = self._api.get(self.path)["items"]
        return found

    def of(self, job: str) -> list[Any]:
        return [pod for pod in self.pods() if pod["metadata"]["labels"].get("tuttilab.io/job") == job]

    def end(self, name: str) -> None:
        """As a kubelet says it."""
        self._api.patch(f"{self.path}/{name}/status", ENDED, MERGE)

    def end_those_that_are_told_to(self) -> None:
        for pod in self.pods():
            if "deletionTimestamp" in pod["metadata"] and pod["status"].get("phase") == "Running":
                self.end(pod["metadata"]["name"])


@pytest.fixture
def namespace(control_plane_cluster: Cluster, fake_namespace: str) -> Namespace:
    return Namespace(control_plane_cluster, fake_namespace)


# --- the backend alone ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def backend(kubeconfig: Path, fake_namespace: str, tmp_path: Path) -> AsyncIterator[KubernetesCluster]:
    settings = KubernetesSettings(
        namespace=fake_namespace,
        image="none",
        sidecar_image="none",
        report_url="http://127.0.0.1:9",
        kubeconfig=str(kubeconfig),
        node_labels=LABELS,
    )
    cluster = KubernetesCluster("k", settings, tmp_path, "ours")
    await cluster.lead(1)
    yield cluster
    await cluster.close()


async def launched(backend: KubernetesCluster, job: str, node: str, limit_s: float = 240.0) -> None:
    """As the control plane does: what could not be told is tried again."""
    async with asyncio.timeout(limit_s):
        while True:
            try:
                await backend.launch(plan(job, "true", node=node))
            except ClusterUnreachable:
                await asyncio.sleep(0.2)
            else:
                return


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_launch_into_a_storm_makes_each_pod_once(
    faults: FaultyApi, backend: KubernetesCluster, namespace: Namespace, node: str, status: int
) -> None:
    with faults.refusing(status, times=6, retry_after_s=1):
        with pytest.raises(ClusterUnreachable, match=str(status)):
            await backend.launch(plan("job", "true", node=node))
        await launched(backend, "job", node)

    assert [pod["metadata"]["name"] for pod in namespace.pods()] == ["job-1-0"]


@pytest.mark.parametrize("what", ["pods", "secrets", "services"])
async def test_a_create_whose_answer_is_lost_is_not_made_again(
    faults: FaultyApi, backend: KubernetesCluster, namespace: Namespace, node: str, what: str
) -> None:
    gang = plan("job", "true", members=3, node=node)
    with faults.losing_answers(f"{what}$", times=2) as rule:
        async with asyncio.timeout(60):
            while True:
                try:
                    await backend.launch(gang)
                    break
                except ClusterUnreachable:
                    pass
        assert rule.hits >= 1

    assert sorted(pod["metadata"]["name"] for pod in namespace.pods()) == ["job-1-0", "job-1-1", "job-1-2", "job-1-master"]
    uids = {pod["metadata"]["uid"] for pod in namespace.pods()}
    await backend.launch(gang)
    assert {pod["metadata"]["uid"] for pod in namespace.pods()} == uids


class Watcher:
    """What a control plane knows by the observations: the last state of each pod, from the last complete one on."""

    def __init__(self, backend: KubernetesCluster) -> None:
        self._backend = backend
        self.pods: dict[str, PodState] = {}
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                async with aclosing(self._backend.observe()) as observations:
                    async for seen in observations:
                        if seen.is_complete:
                            self.pods.clear()
                        self.pods.update({pod.name: pod for pod in seen.pods})
            except ClusterUnreachable:
                await asyncio.sleep(0.2)

    async def until(self, phases: dict[str, PodPhase], limit_s: float = 240.0) -> None:
        until = time.monotonic() + limit_s
        while {name: pod.phase for name, pod in self.pods.items() if name in phases} != phases:
            assert time.monotonic() < until, (phases, self.pods)
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(doses.dose("SEEDS", 3, 40)))
async def test_what_is_seen_is_what_is_there_whatever_watches_do(
    faults: FaultyApi, backend: KubernetesCluster, namespace: Namespace, node: str, seed: int
) -> None:
    """Watches break off, lose their place, repeat, hold events back and come without bookmarks, while pods come and end."""
    chance = random.Random(seed)
    watcher = Watcher(backend)
    expected: dict[str, PodPhase] = {}
    counted: Counter[str] = Counter()
    with ExitStack() as stack:
        if chance.random() < 0.5:
            stack.enter_context(faults.lost_bookmarks())
        for number in range(25):
            act = chance.choice(["launch", "launch", "end", "drop", "expire", "hold", "repeat", "refuse"])
            counted[act] += 1
            running = [name for name, phase in expected.items() if phase is PodPhase.RUNNING]
            match act:
                case "launch":
                    await launched(backend, f"job{number}", node)
                    expected[f"job{number}-1-0"] = PodPhase.RUNNING
                case "end" if running:
                    name = chance.choice(running)
                    await asyncio.to_thread(eventually_it, "it runs", partial(_runs, namespace, name), 30)
                    namespace.end(name)
                    expected[name] = PodPhase.ENDED
                case "drop":
                    await asyncio.to_thread(faults.drop_watches)
                case "expire":
                    await asyncio.to_thread(faults.expire_watches)
                case "hold":
                    with faults.held_events():
                        await launched(backend, f"job{number}", node)
                        await asyncio.sleep(0.3)
                    expected[f"job{number}-1-0"] = PodPhase.RUNNING
                case "repeat":
                    with faults.repeated_events():
                        await launched(backend, f"job{number}", node)
                    expected[f"job{number}-1-0"] = PodPhase.RUNNING
                case "refuse":
                    stack.enter_context(faults.refusing(chance.choice([429, 500]), methods="GET", times=3))
        await watcher.until(expected)
    await watcher.close()
    assert {pod["metadata"]["name"] for pod in namespace.pods()} == set(expected), counted


def _runs(namespace: Namespace, name: str) -> bool:
    return any(pod["metadata"]["name"] == name and pod["status"].get("phase") == "Running" for pod in namespace.pods())


# --- the whole product ---------------------------------------------------------------------------------------------------


class Site:
    """A user's machine whose one cluster is behind the proxy."""

    def __init__(self, machine: UserMachine, kubeconfig: Path, namespace: Namespace) -> None:
        self.machine = machine
        self.namespace = namespace
        port = free_port()
        cluster = {
            "name": "k",
            "kind": "kubernetes",
            "kubeconfig": str(kubeconfig),
            "namespace": namespace.name,
            "sidecar_image": "none",
            "image": "none",
            "node_labels": LABELS,
            "report_url": f"http://127.0.0.1:{port}",
            "container_patience_s": 5,
        }
        config = {
            "listen": {"pods": f"127.0.0.1:{port}"},
            "limits": {"back_off_s": BACK_OFF_S, "observe_every_s": 5},
            "clusters": [cluster],
        }
        file = machine.home / "tuttilab.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        said = machine.run("up", "--config", str(file))
        assert said.code == 0, said

    def submit(self) -> str:
        said = self.machine.run("submit", "--cpus", "0.1", "--memory", "64Mi", "--cluster", "k", "--json", "--", "true")
        assert said.code == 0, said
        return str(said.json["id"])

    def job(self, job_id: str) -> Any:
        return to_data(self.machine.client().job(job_id))

    def runs(self, job_id: str) -> bool:
        attempts = self.job(job_id)["attempts"]
        return bool(attempts) and attempts[-1]["phase"] == "Running"

    def until_it_waits_for(self, job_id: str, *sentences: str) -> None:
        """Until one of them is told."""
        said: list[str] = []

        def is_told() -> bool:
            said.append(self.machine.run("explain", job_id).out.replace("\n", " "))
            return any(sentence in said[-1] for sentence in sentences)

        try:
            eventually(is_told, 90)
        except AssertionError:
            raise AssertionError(f"{said[-1]}\n{(self.machine.state / 'control.log').read_text()[-4000:]}") from None

    def until_it_ended(self, job_id: str, phase: str) -> None:
        def has_ended() -> bool:
            self.namespace.end_those_that_are_told_to()
            return bool(self.job(job_id)["phase"] == phase)

        eventually(has_ended, 90)


SILENT = ("cluster k has not answered for", "cluster k does not answer (")
"""What is said of a job that was given room there before that was noticed, and of one that was not."""


@pytest.fixture
def site(kubeconfig: Path, namespace: Namespace, node: str, tmp_path: Path) -> Iterator[Site]:
    assert node
    with made_machine(tmp_path) as machine:
        yield Site(machine, kubeconfig, namespace)


@pytest.mark.parametrize("seconds", OUTAGES_S)
def test_an_outage_of_the_api_server_ends_nothing_and_what_was_asked_meanwhile_is_done_after(
    control_plane_cluster: Cluster, site: Site, seconds: int
) -> None:
    before = site.submit()
    eventually(lambda: site.runs(before), 150)
    to_stop = site.submit()
    eventually(lambda: site.runs(to_stop), 150)
    uid = site.namespace.of(before)[0]["metadata"]["uid"]

    with control_plane_cluster.api_server_down():
        ends_at = time.monotonic() + seconds
        meanwhile = site.submit()
        assert site.machine.run("cancel", to_stop).code == 0
        if seconds > 10:
            site.until_it_waits_for(meanwhile, *SILENT)
            assert site.runs(before), "an outage says nothing of the pods"
        time.sleep(max(0.0, ends_at - time.monotonic()))

    eventually(lambda: site.runs(meanwhile), 90)
    site.until_it_ended(to_stop, "Cancelled")
    assert site.runs(before)
    assert [pod["metadata"]["uid"] for pod in site.namespace.of(before)] == [uid]
    assert len(site.job(before)["attempts"]) == len(site.job(meanwhile)["attempts"]) == 1
    for job in (before, meanwhile):
        assert site.machine.run("cancel", job).code == 0
        site.until_it_ended(job, "Cancelled")
    eventually(lambda: site.namespace.pods() == [], 150)


def test_an_api_server_that_takes_calls_and_says_nothing_is_one_that_does_not_answer(
    control_plane_cluster: Cluster, site: Site
) -> None:
    running = site.submit()
    eventually(lambda: site.runs(running), 150)
    with control_plane_cluster.api_server_paused():
        waiting = site.submit()
        site.until_it_waits_for(waiting, *SILENT)
        assert site.runs(running)

    eventually(lambda: site.runs(waiting), 90)
    assert len(site.job(running)["attempts"]) == 1


def test_credentials_that_are_refused_are_named_and_all_goes_on_when_they_are_good_again(faults: FaultyApi, site: Site) -> None:
    running = site.submit()
    eventually(lambda: site.runs(running), 150)
    with faults.refusing(401):
        faults.drop_watches()
        waiting = site.submit()
        log = site.machine.state / "control.log"
        eventually(lambda: "does not accept our credentials" in log.read_text(encoding="utf-8"), 150)
        site.until_it_waits_for(waiting, *SILENT)

    eventually(lambda: site.runs(waiting), 90)
    assert len(site.job(running)["attempts"]) == 1


@pytest.mark.parametrize("status", [429, 500])
def test_jobs_that_come_in_a_storm_start_once_each(faults: FaultyApi, site: Site, status: int) -> None:
    with faults.refusing(status, methods="POST PATCH DELETE", times=8, retry_after_s=1):
        jobs = [site.submit() for _ in range(3)]
        eventually(lambda: all(map(site.runs, jobs)), 120)

    assert Counter(pod["metadata"]["labels"]["tuttilab.io/job"] for pod in site.namespace.pods()) == dict.fromkeys(jobs, 1)
    for job in jobs:
        assert site.machine.run("cancel", job).code == 0
        site.until_it_ended(job, "Cancelled")
    eventually(lambda: site.namespace.pods() == [], 150)
