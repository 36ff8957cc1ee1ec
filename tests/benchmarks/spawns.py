"""What a spawn costs beside plain KubeSpawner's: a real hub with its proxy, a real API server, nodes that are rows, in one run.

Each user's server is asked for through the hub's API, many at once, as after a class begins. The pods of both run at once and share
one address, where one process of this benchmark answers for all servers; so the time is that of hub, spawner, scheduler and API
server. Plain KubeSpawner is measured before and after ours, because the machine's speed drifts, and the mean counts.
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.benchmarks.figures import Figure
from tests.e2e.hub.guide import HUB_API
from tests.e2e.hub.guide import blocks as guide
from tests.e2e.hub.site import HubSite
from tests.kube.access import product_rules, rules_of
from tests.kube.cluster import Cluster, running_control_plane
from tests.kube.kwok import CAPACITY
from tests.user_machine import eventually, made_machine

PLAIN, OURS = "kubespawner.KubeSpawner", "tutti"
MOST = 1.1
"""Times plain KubeSpawner's time a spawn."""
PROFILE = {"kind": "Profile", "name": "lab", "groups": ["class"], "cpus": 1, "memory": "1Gi"}
LIMIT_S = 900.0


class Answers(BaseHTTPRequestHandler):
    """What a single-user server says to a hub that looks whether it is there."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        pass


class Servers(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True


@contextmanager
def answering() -> Iterator[int]:
    """The port."""
    server = Servers(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Class(HubSite):
    """A hub whose servers are pods of ``cluster``; ``spawner`` makes them."""

    cluster: Cluster = None  # type: ignore[assignment]  # always given
    spawner: str = OURS
    people: int = 1
    at_once: int = 1
    namespace: str = ""
    server_port: int = 0
    bench_token: str = field(default_factory=lambda: secrets.token_hex(32))

    def start_control(self) -> None:
        kubernetes = {
            "name": "k",
            "kind": "kubernetes",
            "kubeconfig": str(self.cluster.service_account_kubeconfig(product_rules(), name="product")),
            "namespace": self.namespace,
            "sidecar_image": "none",
            "image": "none",
            "report_url": "http://127.0.0.1:9",
        }
        config = yaml.safe_load(guide("yaml")[0].replace(HUB_API, f"{self.hub_url}/hub/api"))
        config |= {
            "listen": {"port": self.ports[3]},
            "clusters": [kubernetes],
            "queues": [{"name": "class", "groups": ["class"]}],
            "defaults": {"queue": "class"},
        }
        file = self.folder / "tuttilab.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        arguments = [sys.executable, "-m", "tuttilab.scheduler.server.serve", "--config", str(file)]
        self._start("control", arguments, {"JUPYTERHUB_API_TOKEN": self.service_token})
        eventually(lambda: self._answers(f"{self.control_url}/readyz"))
        profile = self.folder / "profile.yaml"
        profile.write_text(yaml.safe_dump(PROFILE), encoding="utf-8")
        said = self.machine.run("profile", "apply", str(profile), TUTTILAB_URL=self.control_url, TUTTILAB_TOKEN=self.service_token)
        assert said.code == 0, said

    def start_hub(self) -> None:
        kubeconfig = self.cluster.service_account_kubeconfig(rules_of("hub-roles.yaml"), name="hub")
        more = {
            "spawner": self.spawner,
            "namespace": self.namespace,
            "server_port": self.server_port,
            "at_once": self.at_once,
            "bench_token": self.bench_token,
            "groups": {"class": self.names(), "admins": ["root"]},
        }
        self._start_hub(Path(__file__).with_name("spawn_hub_config.py"), more, {"KUBECONFIG": str(kubeconfig)}, 120.0)

    def names(self) -> list[str]:
        return [f"user-{number}" for number in range(self.people)]

    def spawned(self) -> list[float]:
        """Seconds of each spawn, from its request until the hub has the server; the last is that of all."""
        headers = {"Authorization": f"Bearer {self.bench_token}"}
        options = {"profile": PROFILE["name"]} if self.spawner == OURS else {}
        limits = httpx.Limits(max_connections=self.at_once)
        with httpx.Client(base_url=f"{self.url}/hub/api", headers=headers, timeout=LIMIT_S, limits=limits, trust_env=False) as http:
            # The first one also waits for the hub's view of the cluster to open.
            http.post("/users/user-0/server", json=options).raise_for_status()

            def spawn(name: str) -> float:
                began = time.monotonic()
                answer = http.post(f"/users/{name}/server", json=options)
                assert answer.status_code == httpx.codes.CREATED, answer.text
                return time.monotonic() - began

            began = time.monotonic()
            with ThreadPoolExecutor(self.at_once) as pool:
                times = list(pool.map(spawn, self.names()[1:]))
            times.append(time.monotonic() - began)
            with ThreadPoolExecutor(self.at_once) as pool:
                list(pool.map(lambda name: http.delete(f"/users/{name}/server").raise_for_status(), self.names()))
        return times


def measured(cluster: Cluster, folder: Path, spawner: str, people: int, at_once: int, port: int) -> float:
    """Seconds a spawn."""
    folder.mkdir()
    with made_machine(folder) as machine, cluster.namespace("servers") as namespace:
        site = Class(
            machine,
            machine.state,
            cluster=cluster,
            spawner=spawner,
            people=people + 1,
            at_once=at_once,
            namespace=namespace,
            server_port=port,
        )
        site.folder.mkdir(mode=0o700)
        try:
            site.start_control()
            site.start_hub()
            *times, whole = site.spawned()
        except Exception as error:
            error.add_note("\n".join(site.log(name)[-4000:] for name in ("hub", "control")))
            raise
        finally:
            site.close()
    each = whole / people
    print(
        f"     {spawner}: {people} spawns, {at_once} at once: {each:.3f} s each, {statistics.median(times):.1f} s in the middle, "
        f"{max(times):.1f} s at most from request to server",
        flush=True,
    )
    return each


def figures(folder: Path, people: int, at_once: int) -> Iterator[Figure]:
    folder.mkdir()
    with running_control_plane() as cluster, answering() as port:
        cluster.add_fake_nodes(max(2, people // 32), prefix="class", capacity={**CAPACITY, "pods": "250"}, pod_ip="127.0.0.1")
        found = {
            name: measured(cluster, folder / name, spawner, people, at_once, port)
            for name, spawner in (("before", PLAIN), ("ours", OURS), ("after", PLAIN))
        }
    plain = statistics.fmean((found["before"], found["after"]))
    note = f"{found['ours']:.3f} s a spawn against {plain:.3f} s, of {people}, {at_once} at once; {os.cpu_count()} cores for all"
    yield Figure("spawn, of plain KubeSpawner's", found["ours"] / plain, MOST, note, "x")
