"""A test cluster's control-plane tier: real servers on loopback, nodes that are only rows. Needs no root.

`with running_control_plane() as cluster:` makes one; the fixture `control_plane_cluster` is one for the whole run. Several may run
side by side. `tests/kube/real.py` adds nodes that run containers.
"""

from __future__ import annotations

import fcntl
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kube import access, kwok
from tests.kube.control_plane import ControlPlane, User
from tests.kube.processes import Processes, eventually
from tests.kube.tools import build

PREFIX = "tuttilab-kube-"
KILLED_LONG_AGO_S = 60.0
EXCERPT_CHARACTERS = 4000


class Cluster:
    """``kubeconfig`` is the administrator's; ``api`` asks with it. Tests share a cluster: each takes a namespace of its own."""

    def __init__(self, program: Path, root: Path, address: str = "127.0.0.1", *, is_advertised: bool = False) -> None:
        self.program, self.root = program, root
        self.processes = Processes(root / "logs")
        self._users = {name: User(name, groups) for name, groups in (("alice", ("devs",)), ("bob", ()))}
        self.control_plane = ControlPlane(
            program, root, address, self.processes, list(self._users.values()), is_advertised=is_advertised
        )
        self.url, self.kubeconfig, self.api = self.control_plane.url, self.control_plane.admin_kubeconfig, self.control_plane.api
        self._numbers = itertools.count(1)
        self._seen: dict[str, int] = {}

    def start(self) -> None:
        self.control_plane.start()

    def stop(self) -> None:
        self.api.close()
        self.processes.stop_all()

    # Who asks.

    def user_kubeconfig(self, name: str = "alice") -> Path:
        """Of an ordinary user, alice (group devs) or bob, with a token and without a role."""
        return self.control_plane.token_kubeconfig(name, self._users[name].token)

    def service_account_kubeconfig(
        self,
        rules: Sequence[access.Rule] = access.PRODUCT_RULES,
        *,
        name: str = "tuttilab",
        namespace: str = "tuttilab",
        lifetime_s: int = 3600,
    ) -> Path:
        """Of a service account with these rights in all namespaces and no other; its token lives at least 600 s."""
        token = access.service_account_token(self.api, namespace, name, rules, lifetime_s)
        return self.control_plane.token_kubeconfig(f"{namespace}-{name}", token)

    def revoke_tokens(self, *, name: str = "tuttilab", namespace: str = "tuttilab") -> None:
        """Of that service account, which is gone; who asks with one of them is nobody, as when a token expired."""
        self.api.delete(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")

    # Namespaces.

    def new_namespace(self, prefix: str = "test", labels: Mapping[str, str] | None = None) -> str:
        """Usable: its default service account is there."""
        name = f"{prefix}-{next(self._numbers)}"
        self.api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": dict(labels or {})}})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        self.processes.wait_for(f"namespace {name} has its service account", lambda: self.api.exists(account), 120)
        return name

    def drop_namespace(self, name: str) -> None:
        """Its pods at once and without a last word, the rest when the controller manager comes to it. It may be gone."""
        if not self.api.exists(f"/api/v1/namespaces/{name}"):
            return
        self.api.delete(f"/api/v1/namespaces/{name}/pods", {"gracePeriodSeconds": 0})
        self.api.delete(f"/api/v1/namespaces/{name}")

    @contextmanager
    def namespace(self, prefix: str = "test", labels: Mapping[str, str] | None = None) -> Iterator[str]:
        name = self.new_namespace(prefix, labels)
        try:
            yield name
        finally:
            self.drop_namespace(name)

    # Nodes that are only rows.

    def add_fake_nodes(
        self,
        count: int,
        *,
        prefix: str = "fake",
        capacity: Mapping[str, str] = kwok.CAPACITY,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
        limit_s: float = 240.0,
        pod_ip: str = "",
    ) -> list[str]:
        """Their names, PREFIX-1 and so on, when all of them are Ready. ``pod_ip``: of all pods, where these are the first nodes."""
        if not self.processes.is_running("kwok"):
            kwok.start(self.processes, self.program, self.root, self.kubeconfig, self.control_plane.silence_s, pod_ip)
        names = [f"{prefix}-{next(self._numbers)}" for _ in range(count)]
        kwok.create(self.api, [kwok.node(name, capacity, labels, taints) for name in names])
        self.wait_for_nodes(names, limit_s)
        return names

    def remove_node(self, name: str) -> None:
        """The Node object; the garbage collector deletes its pods."""
        self.api.delete(f"/api/v1/nodes/{name}")

    def remove_fake_nodes(self, names: Sequence[str]) -> None:
        kwok.delete(self.api, names)

    def ready_nodes(self) -> set[str]:
        return {node["metadata"]["name"] for node in self.api.get("/api/v1/nodes")["items"] if is_ready(node)}

    def wait_for_nodes(self, names: Sequence[str], limit_s: float = 240.0) -> None:
        every_s = max(0.05, len(names) / 500)  # a list of thousands is work for all
        self.processes.wait_for(f"{len(names)} nodes are Ready", lambda: set(names) <= self.ready_nodes(), limit_s, every_s)

    def wait_until_not_ready(self, name: str, limit_s: float = 240.0) -> float:
        """The seconds it took."""
        return eventually(f"{name} is not Ready", lambda: name not in self.ready_nodes(), limit_s)

    # The API server's outages: see ControlPlane for what each of them is.

    def stop_api_server(self) -> None:
        self.control_plane.stop_api_server()

    def start_api_server(self) -> None:
        self.control_plane.start_api_server()

    def pause_api_server(self) -> None:
        self.control_plane.pause_api_server()

    def resume_api_server(self) -> None:
        self.control_plane.resume_api_server()

    @contextmanager
    def api_server_down(self) -> Iterator[None]:
        self.stop_api_server()
        try:
            yield
        finally:
            self.start_api_server()

    @contextmanager
    def api_server_paused(self) -> Iterator[None]:
        self.pause_api_server()
        try:
            yield
        finally:
            self.resume_api_server()

    # What is to be seen.

    def pod(self, namespace: str, name: str) -> Any:
        return self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")

    def wait_for_phase(self, namespace: str, name: str, *phases: str, limit_s: float = 240.0) -> Any:
        """The pod, when it is in one of the phases; TimeoutError says in which it stayed, and what its containers wait for."""
        end = time.monotonic() + limit_s
        while True:
            pod = self.pod(namespace, name)
            if pod["status"].get("phase") in phases:
                return pod
            if time.monotonic() > end:
                raise TimeoutError(f"{namespace}/{name} is not {' or '.join(phases)} within {limit_s:.0f} s: {pod['status']}")
            time.sleep(0.05)

    def pod_log(self, namespace: str, name: str, **query: str) -> str:
        return self.api.text(f"/api/v1/namespaces/{namespace}/pods/{name}/log", **query)

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, limit_s: float = 240.0) -> str:
        """What the real command says, as the administrator unless told otherwise; CalledProcessError when it fails."""
        command = [str(self.program), "kubectl", "--kubeconfig", str(kubeconfig or self.kubeconfig), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit_s).stdout

    def memory_mib(self) -> dict[str, float]:
        return self.processes.memory_mib()

    def logs(self) -> dict[str, Path]:
        """The log files by the name of their server."""
        return {path.stem: path for path in sorted(self.processes.folder.glob("*.log"))}

    def forget_log_lines(self) -> None:
        """`new_log_lines` shows what comes from now on."""
        self._seen = {name: path.stat().st_size for name, path in self.logs().items()}

    def new_log_lines(self) -> str:
        parts = []
        for name, path in self.logs().items():
            with path.open("rb") as file:
                file.seek(max(self._seen.get(name, 0), path.stat().st_size - EXCERPT_CHARACTERS))
                text = file.read().decode(errors="replace").strip()
            if text:
                parts.append(f"--- {name}\n{text}")
        return "\n".join(parts)


def is_ready(node: Mapping[str, Any]) -> bool:
    """A Node's condition, or a pod's."""
    conditions = node.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


@contextmanager
def running_control_plane() -> Iterator[Cluster]:
    _sweep()
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    with (root / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            cluster = Cluster(build.program(), root)
            try:
                cluster.start()
                yield cluster
            except Exception as error:
                error.add_note(cluster.new_log_lines())
                raise
            finally:
                cluster.stop()
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of runs that were killed: nobody holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < KILLED_LONG_AGO_S:
                continue
            with (folder / "lock").open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
