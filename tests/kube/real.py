"""A test cluster whose nodes run containers, with DNS and GPUs on paper. Needs root and Debian's containerd.

`with running_real_cluster() as cluster:` makes one; the fixture `real_cluster` is one for the whole run. Its names and addresses
are the machine's, so there is one at a time: who comes second waits. It ends with the process that made it; what a killed one
leaves, the next one removes before it starts.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.kube import cgroups, device_plugin, images, network, nodes
from tests.kube.api import ApiError
from tests.kube.cluster import Cluster
from tests.kube.processes import eventually
from tests.kube.tools import build
from tests.ports import free_port

ROOT = Path("/tmp/tuttilab-real")
HOLDER = "holder.json"
LOCK = "\0tuttilab-real-cluster"
"""A name of the network namespace that the names of the network belong to; the kernel frees it with the process."""
LOCK_LIMIT_S = 600.0
PYTHONPATH = Path(__file__).resolve().parent.parent.parent
GPU = "nvidia.com/gpu"


class RealCluster(Cluster):
    """``host`` is the machine's address for its pods: a test that serves something to them listens there."""

    host = network.HOST

    def __init__(self, program: Path, root: Path = ROOT) -> None:
        super().__init__(program, root, network.HOST, is_advertised=True)
        self._images = images.made()
        self._nodes: dict[str, nodes.Node] = {}
        self._node_numbers = itertools.count()
        self._started: dict[str, str] = {}

    def start(self) -> None:
        super().start()
        self._start_dns()

    # Nodes.

    def add_node(self, *, gpus: int = 0, labels: Mapping[str, str] | None = None) -> str:
        """Its name; it is not Ready yet (`wait_for_nodes`), so that several may start at once."""
        number = next(self._node_numbers)
        node = nodes.Node(number, self.root / f"n{number}", dict(labels or {}), gpus)
        self._nodes[node.name] = node
        self._run(node)
        return node.name

    def stop_node(self, name: str) -> None:
        """Power off: all its processes are gone at once, the Node object stays."""
        self.processes.stop(f"{name}-gpu")
        self.processes.stop(name)
        network.disconnect(self._nodes[name].number)

    def remove_node(self, name: str) -> None:
        """Power off, and the Node object away. A fake node's as well."""
        if name in self._nodes:
            self.stop_node(name)
            del self._nodes[name]
        super().remove_node(name)

    def start_node(self, name: str, limit_s: float = 240.0) -> None:
        """Power on again, until it is Ready: with its images, and with the pods that the API server still has for it."""
        self._run(self._nodes[name])
        self.wait_for_node(name, limit_s)

    def cut_network(self, name: str) -> None:
        """Its pods run on, and reach nobody outside the node."""
        network.cut(self._nodes[name].number)

    def mend_network(self, name: str) -> None:
        network.mend(self._nodes[name].number)

    @contextmanager
    def network_cut(self, name: str) -> Iterator[None]:
        self.cut_network(name)
        try:
            yield
        finally:
            self.mend_network(name)
            self.wait_for_nodes([name])

    @contextmanager
    def gpus_unhealthy(self, count: int) -> Iterator[None]:
        """So many of each node, which its kubelet knows when this is entered and, healthy again, when it is left."""

        def told(unhealthy: int) -> None:
            for node in self._nodes.values():
                (node.device_plugins / device_plugin.UNHEALTHY).write_text(str(unhealthy), encoding="ascii")
            for name, node in self._nodes.items():
                left = str(node.gpus - unhealthy)

                def is_known(path: str = f"/api/v1/nodes/{name}", left: str = left) -> bool:
                    return bool(self.api.get(path)["status"]["allocatable"].get(GPU) == left)

                self.processes.wait_for(f"{name} can give out {left} GPUs", is_known)

        told(count)
        try:
            yield
        finally:
            told(0)

    def real_nodes(self) -> list[str]:
        return list(self._nodes)

    def wait_for_node(self, name: str, limit_s: float = 240.0) -> None:
        """Ready, its GPUs counted, as it said itself since it was started last."""
        gpus = str(self._nodes[name].gpus)

        def is_complete() -> bool:
            try:
                node = self.api.get(f"/api/v1/nodes/{name}")
            except ApiError as error:
                if error.status == 404:
                    return False
                raise
            [ready] = [condition for condition in node["status"]["conditions"] if condition["type"] == "Ready"]
            is_counted = gpus == "0" or node["status"]["allocatable"].get(GPU) == gpus
            return bool(is_counted and ready["status"] == "True" and ready["lastHeartbeatTime"] >= self._started[name])

        self.processes.wait_for(f"{name} is Ready with {gpus} GPUs", is_complete, limit_s)

    def load_image(self, image: Path) -> None:
        """An OCI layout in a tar (`images.image`), onto every node that runs."""
        for name, node in self._nodes.items():
            if self.processes.is_running(name):
                nodes.load_image(node.socket, image)

    def trust_registry(self, address: str) -> None:
        """HOST:PORT, over plain HTTP."""
        for node in self._nodes.values():
            nodes.trust_registry(node, address)

    def logs(self) -> dict[str, Path]:
        of_nodes = {f"{node.name} {path.stem}": path for node in self._nodes.values() for path in nodes.logs(node) if path.exists()}
        return super().logs() | of_nodes

    def _run(self, node: nodes.Node) -> None:
        others = [other.number for other in self._nodes.values() if other is not node and self.processes.is_running(other.name)]
        network.connect(node.number, others)
        self._started[node.name] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        nodes.start(node, self.control_plane, self.processes, self.program, self._images)
        if node.gpus:
            self._python(f"{node.name}-gpu", "tests.kube.device_plugin", str(node.device_plugins), GPU, str(node.gpus))

    def _start_dns(self) -> None:
        """A Service kube-dns without a selector, which leads to our own server on the machine."""
        port = free_port(network.HOST)
        self._python("dns", "tests.kube.dns", str(self.kubeconfig), network.HOST, str(port))
        service = {"clusterIP": nodes.DNS, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}
        self.api.post("/api/v1/namespaces/kube-system/services", {"metadata": {"name": "kube-dns"}, "spec": service})
        slice = {
            "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "ports": [{"name": "dns", "port": port, "protocol": "UDP"}],
            "endpoints": [{"addresses": [network.HOST], "conditions": {"ready": True}}],
        }
        self.api.post("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", slice)

    def _python(self, name: str, module: str, *arguments: str) -> None:
        self.processes.start(name, sys.executable, "-m", module, *arguments, environment={"PYTHONPATH": str(PYTHONPATH)})


class ClusterInUse(Exception):
    """Another process has the machine's one real cluster; says which, and what to do."""


@contextmanager
def running_real_cluster(node_count: int = 2, gpus: int = 4, wait_s: float = LOCK_LIMIT_S) -> Iterator[RealCluster]:
    """All nodes are Ready. ``gpus``: on each of them. ClusterInUse when another has not ended after ``wait_s``."""
    with alone(wait_s):
        remove_leftovers()
        ROOT.mkdir(mode=0o700)
        (ROOT / HOLDER).write_text(json.dumps({"pid": os.getpid(), "command": sys.argv}), encoding="utf-8")
        try:
            network.start()
            cluster = RealCluster(build.program())
            try:
                cluster.start()
                for name in [cluster.add_node(gpus=gpus) for _ in range(node_count)]:
                    cluster.wait_for_node(name)
                yield cluster
            except Exception as error:
                error.add_note(cluster.new_log_lines())
                raise
            finally:
                cluster.stop()
        finally:
            remove_leftovers()


@contextmanager
def alone(wait_s: float) -> Iterator[None]:
    end = time.monotonic() + wait_s
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(LOCK)
                break
            except OSError:
                if time.monotonic() > end:
                    raise ClusterInUse(f"{_holder()} has a real cluster; if it is that of `make kube-up`: make kube-down") from None
                time.sleep(0.2)
        yield


def _holder() -> str:
    try:
        said = json.loads((ROOT / HOLDER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    return f"process {said['pid']} ({' '.join(said['command'])})"


def leftovers() -> list[str]:
    """What there is of a cluster on this machine: links, network namespaces, cgroups, files. Nothing, when none runs."""
    files = [str(ROOT)] if ROOT.exists() else []
    return network.left() + [str(path) for path in cgroups.left(f"{network.NAME}*")] + files


def remove_leftovers() -> None:
    network.remove()
    cgroups.remove(f"{network.NAME}*")
    if ROOT.exists():
        # A process that was killed a moment ago may still be closing a file.
        eventually(f"{ROOT} is removed", _is_removed)


def _is_removed() -> bool:
    shutil.rmtree(ROOT, ignore_errors=True)
    return not ROOT.exists()
