"""Two control planes on one Postgres and one real API server, whose nodes are rows: jobs come while leaders die and stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube.access import product_rules
from tests.kube.api import MERGE
from tests.kube.cluster import Cluster
from tests.ports import free_port
from tests.postgres import Postgres
from tests.replicas import Replica, Site, made_site
from tests.user_machine import eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = [pytest.mark.tier("control-plane"), pytest.mark.requires("postgres"), pytest.mark.timeout(700)]

LABELS = {"pool": "takeover"}
JOBS = 6
TAKEN_OVER_S = 120.0


class Seen:
    """Each pod that ever was there, by name its uids."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._api = cluster.api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self.uids: dict[str, set[str]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def items(self) -> list[Any]:
        found: list[Any] = self._api.get(self._path)["items"]
        return found

    def _run(self) -> None:
        while not self._end.wait(0.1):
            for pod in self.items():
                self.uids.setdefault(pod["metadata"]["name"], set()).add(pod["metadata"]["uid"])

    def end_those_that_are_told_to(self) -> None:
        """As a kubelet does."""
        for pod in self.items():
            if "deletionTimestamp" in pod["metadata"] and pod["status"].get("phase") == "Running":
                self._api.patch(f"{self._path}/{pod['metadata']['name']}/status", {"status": {"phase": "Failed"}}, MERGE)

    def close(self) -> None:
        self._end.set()
        self._thread.join(30)


@pytest.fixture
def site(tmp_path: Path, postgres_server: Postgres) -> Iterator[Site]:
    with made_site(tmp_path, postgres_server) as site:
        yield site


@pytest.fixture
def seen(control_plane_cluster: Cluster, fake_namespace: str) -> Iterator[Seen]:
    seen = Seen(control_plane_cluster, fake_namespace)
    yield seen
    seen.close()


@pytest.fixture
def start(control_plane_cluster: Cluster, fake_namespace: str, site: Site) -> Callable[[str], Replica]:
    nodes = control_plane_cluster.add_fake_nodes(3, prefix="takeover", labels=LABELS)
    control_plane_cluster.wait_for_nodes(nodes)
    cluster = {
        "name": "k",
        "kind": "kubernetes",
        "kubeconfig": str(control_plane_cluster.service_account_kubeconfig(product_rules(), name="product")),
        "namespace": fake_namespace,
        "sidecar_image": "none",
        "image": "none",
        "node_labels": LABELS,
        "report_url": "http://127.0.0.1:9",
        "logs": str(site.folder / "logs"),
    }

    def start(name: str) -> Replica:
        config = {
            "store": {"url": site.url},
            "auth": {"key_file": str(site.folder / "key")},
            "listen": {"pods": f"127.0.0.1:{free_port()}"},
            "clusters": [cluster],
        }
        return site.start(name, yaml.safe_dump(config).replace("{", "{{").replace("}", "}}"))

    return start


def submitted(client: Client, count: int = JOBS) -> list[str]:
    pod = PodRequest(cpus="0.1", memory="64Mi")
    return [client.submit(JobRequest(name=f"job{number}", pods=(pod,), command=("true",))).id for number in range(count)]


def until_all_run(client: Client, jobs: list[str]) -> None:
    def run() -> bool:
        try:
            views = [client.job(job) for job in jobs]
        except TuttiError:
            return False
        return all(view.attempts and view.attempts[-1].phase == "Running" for view in views)

    eventually(run, TAKEN_OVER_S * 2)


def test_leaders_that_are_killed_and_suspended_start_nothing_twice_and_bring_nothing_back(
    start: Callable[[str], Replica], site: Site, seen: Seen
) -> None:
    start("one")
    start("two")
    first = site.leader()
    with first.client() as client:
        (stopped,) = submitted(client, 1)
        until_all_run(client, [stopped])
        client.cancel(stopped)
        jobs = submitted(client)
    first.signal(signal.SIGKILL)  # in the midst of their launches
    first.process.wait(150)
    second = next(replica for replica in site.replicas.values() if replica is not first)
    with second.client() as client:
        until_all_run(client, jobs)
        seen.end_those_that_are_told_to()
        eventually(lambda: client.job(stopped).phase == "Cancelled", 150)
        start(first.name)
        jobs += submitted(client)
    second.signal(signal.SIGSTOP)
    third = site.replicas[first.name]
    eventually(lambda: third.knows(jobs[-1]), TAKEN_OVER_S)
    second.signal(signal.SIGCONT)

    with third.client() as client:
        until_all_run(client, jobs)
        jobs += submitted(client, 2)
        until_all_run(client, jobs)
        assert [len(client.job(job).attempts) for job in (stopped, *jobs)] == [1] * (len(jobs) + 1)
        assert {pod["metadata"]["labels"]["tuttilab.io/job"] for pod in seen.items()} == set(jobs)
        assert [name for name, uids in seen.uids.items() if len(uids) > 1] == []
        for job in jobs:
            client.cancel(job)

        def nothing_is_left() -> bool:
            seen.end_those_that_are_told_to()
            return not seen.items()

        eventually(nothing_is_left, 120)
        assert {client.job(job).phase for job in jobs} == {"Cancelled"}
