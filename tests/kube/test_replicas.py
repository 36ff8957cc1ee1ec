"""Two control planes on one real Postgres, with gangs in containers of a real Kubernetes: one is killed, or suspended."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube import images, product_images
from tests.kube.real import RealCluster
from tests.ports import free_port
from tests.postgres import Postgres
from tests.replicas import Replica, Site, made_site
from tests.user_machine import eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.requires("postgres"), pytest.mark.timeout(700)]

TAKEN_OVER_S = 120.0
"""The lease of 6 s, the start of the next leader, and its first look at the cluster."""
LINES = 60
COUNTER = f"import time; print('begun', flush=True)\nfor n in range({LINES}): print('n', n, flush=True); time.sleep(0.5)"
SLEEPER = "import signal, time; signal.signal(15, lambda *_: exit(143)); print('on', flush=True); time.sleep(600)"


class Balancer:
    """What a site has before its replicas, for pods: passes each connection to the first of ``ports`` that takes it."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.ports: list[int] = []
        self._listening = socket.create_server((host, 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        for port in list(self.ports):
            with contextlib.suppress(OSError):
                server = socket.create_connection((self.host, port), 2)
                server.settimeout(None)
                threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
                self._pump(client, server)
                return
        client.close()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                sink.sendall(block)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


class Pair:
    """Two replicas whose one cluster is Kubernetes."""

    def __init__(self, site: Site, cluster: RealCluster, kubeconfig: Path, namespace: str, balancer: Balancer) -> None:
        self.site = site
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._balancer = balancer
        self._settings = {
            "name": "k",
            "kind": "kubernetes",
            "kubeconfig": str(kubeconfig),
            "namespace": namespace,
            "sidecar_image": product_images.SIDECAR,
            "image": images.PYTHON,
            "report_url": f"http://{balancer.host}:{balancer.port}",
            "logs": str(site.folder / "logs"),
        }
        self._ports: dict[str, int] = {}

    def start(self, name: str) -> Replica:
        port = self._ports.setdefault(name, free_port(self._balancer.host))
        config = {
            "store": {"url": self.site.url},
            "auth": {"key_file": str(self.site.folder / "key")},
            "artifacts": {"url": str(self.site.folder / "artifacts")},
            "listen": {"pods": f"{self._balancer.host}:{port}"},
            "limits": {"barrier_s": 60},
            "clusters": [self._settings],
        }
        replica = self.site.start(name, yaml.safe_dump(config).replace("{", "{{").replace("}", "}}"))
        self._balancer.ports = [*(other for other in self._balancer.ports if other != port), port]
        return replica

    def no_pods_to(self, replica: Replica) -> None:
        """As a probe has it for a replica that does not answer."""
        self._balancer.ports = [port for name, port in self._ports.items() if name != replica.name]

    def pods(self) -> dict[str, str]:
        """Uids by name."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self._items()}

    def _items(self) -> list[Any]:
        found: list[Any] = self._cluster.api.get(self._path)["items"]
        return found

    def told(self) -> str:
        """For a failure: what the replicas say, and the pods."""
        logs = [path.read_text(encoding="utf-8")[-3000:] for path in sorted(self.site.folder.glob("*/control.log"))]
        return "\n---\n".join([*logs, json.dumps([pod["status"] for pod in self._items()])[:3000]])

    def submit(self, client: Client, code: str, *, workers: int = 2) -> str:
        pods = (PodRequest(count=workers, cpus="0.1", memory="64Mi"),)
        return client.submit(JobRequest(name="gang", pods=pods, command=("python3", "-c", code), grace="10s")).id

    def until(self, client: Client, job: str, phase: str, limit_s: float = 240.0) -> Any:
        """The job, once it or its newest attempt is in that phase."""

        def is_there() -> Any:
            with contextlib.suppress(TuttiError):
                seen = client.job(job)
                if phase in (seen.phase, *(attempt.phase for attempt in seen.attempts[-1:])):
                    return seen
            return None

        try:
            return eventually(is_there, limit_s)
        except AssertionError:
            raise AssertionError(f"{client.job(job)}\n{self.told()}") from None

    def log(self, client: Client, job: str, rank: int) -> list[str]:
        """All of it, to its end."""
        lines: list[str] = []

        def is_read() -> bool:
            view = client.logs(job, rank=rank, start=len(lines))
            lines.extend(view.lines)
            return view.is_end

        eventually(is_read, 90)
        return lines


@pytest.fixture
def pair(
    product_cluster: RealCluster,
    product_kubeconfig: Path,
    restricted_namespace: str,
    tmp_path: Path,
    postgres_server: Postgres,
) -> Iterator[Pair]:
    with made_site(tmp_path, postgres_server) as site, contextlib.closing(Balancer(product_cluster.host)) as balancer:
        yield Pair(site, product_cluster, product_kubeconfig, restricted_namespace, balancer)


def counted() -> list[str]:
    return ["begun", *(f"n {n}" for n in range(LINES))]


@pytest.mark.feature("B06", "O08")
def test_a_gang_outlives_its_leader_with_whole_logs_and_what_was_stopped_stays_stopped(
    pair: Pair, tell: Callable[[str], None]
) -> None:
    first = pair.start("first")
    second = pair.start("second")
    with first.client() as client:
        running, stopped = pair.submit(client, COUNTER), pair.submit(client, SLEEPER, workers=1)
        pair.until(client, running, "Running")
        pair.until(client, stopped, "Running")
        eventually(lambda: client.logs(stopped).lines)
        eventually(lambda: len(client.logs(running, rank=1).lines) > 5)
        uids = pair.pods()
        client.cancel(stopped)
    first.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    pair.no_pods_to(first)

    with second.client() as client:
        eventually(lambda: second.knows(running), TAKEN_OVER_S)
        taken_over_s = time.monotonic() - killed_at
        ended = pair.until(client, running, "Succeeded")
        cancelled = pair.until(client, stopped, "Cancelled")
        logs = [pair.log(client, running, rank) for rank in (0, 1)]

    tell(f"a leader with gangs on Kubernetes was killed: the next one answered {taken_over_s:.1f} s later")
    assert len(ended.attempts) == len(cancelled.attempts) == 1
    assert {pod.exit_code for pod in ended.attempts[0].pods} == {0}
    (member,) = cancelled.attempts[0].pods
    assert (member.exit_code, member.reason) == (143, "Stopped")
    assert logs == [counted()] * 2
    assert pair.pods().items() <= uids.items()
    eventually(lambda: not pair.pods())


def test_a_leader_that_was_suspended_and_goes_on_makes_nothing_and_spoils_no_log(pair: Pair) -> None:
    first = pair.start("first")
    second = pair.start("second")
    with first.client() as client:
        running = pair.submit(client, COUNTER)
        pair.until(client, running, "Running")
        eventually(lambda: len(client.logs(running, rank=1).lines) > 5)
        late = pair.submit(client, COUNTER)
    first.signal(signal.SIGSTOP)
    pair.no_pods_to(first)
    eventually(lambda: second.knows(late), TAKEN_OVER_S)
    first.signal(signal.SIGCONT)

    with second.client() as client:
        ended = [pair.until(client, job, "Succeeded") for job in (running, late)]
        logs = [pair.log(client, job, rank) for job in (running, late) for rank in (0, 1)]

    assert [len(job.attempts) for job in ended] == [1, 1]
    assert logs == [counted()] * 4
    eventually(lambda: not pair.pods())
    with first.client() as client:
        assert client.job(late).phase == "Succeeded", "it follows"
