"""Many pods at once on the control-plane tier, for the benchmark and for the test of a small part of it.

The product's control plane as a process, who counts what becomes of its pods, and what the API server was asked to write meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import yaml

from tests.kube.access import product_rules
from tests.kube.cluster import Cluster
from tests.ports import free_port
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.clusters.kubernetes import launch, names
from tuttilab.scheduler.clusters.kubernetes.api import MERGE
from tuttilab.scheduler.clusters.kubernetes.api import Api as ProductApi
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.errors import ClusterUnreachable
from tuttilab.scheduler.runtime.discovery import read_runtime

PLAIN = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""Without the objects: whoever only counts needs none."""
_WRITES = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>[\d.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
WRITING = ("POST", "PUT", "PATCH", "DELETE", "DELETECOLLECTION")
OURS = ("pods", "pods/binding", "secrets", "services", "networkpolicies", "events")
"""What whoever starts pods writes. Others write pods/status (nodes), leases, and what controllers make of Services."""


def writes(cluster: Cluster) -> Counter[tuple[str, str]]:
    """Successful writes since the API server began, by verb and resource."""
    found: Counter[tuple[str, str]] = Counter()
    for line in _WRITES.finditer(cluster.api.text("/metrics")):
        labels = dict(_LABEL.findall(line["labels"]))
        if labels["verb"] in WRITING and labels["code"].startswith("2"):
            resource = "/".join(filter(None, (labels["resource"], labels["subresource"])))
            found[labels["verb"], resource] += int(float(line["count"]))
    return found


def counted(before: Counter[tuple[str, str]], after: Counter[tuple[str, str]], resources: tuple[str, ...] = OURS) -> int:
    return sum(count for (_, resource), count in (after - before).items() if resource in resources)


class Counted:
    """How many pods of a namespace are bound, and how many run: by watches of which only the events are counted."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        config = json.loads(cluster.kubeconfig.read_text(encoding="utf-8"))
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=b64decode(server["certificate-authority-data"]).decode())
        pem = cluster.root / "counted.pem"
        pem.touch(0o600)
        pem.write_bytes(b64decode(user["client-certificate-data"]) + b64decode(user["client-key-data"]))
        context.load_cert_chain(pem)
        timeout = httpx.Timeout(60, read=None)
        self._client = httpx.Client(base_url=server["server"], verify=context, timeout=timeout, trust_env=False)
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._version = cluster.api.get(self._path, limit="1")["metadata"]["resourceVersion"]
        self.bound, self.running = 0, 0
        self.last: dict[str, float] = {}
        """When the last one came to be so (monotonic)."""
        self._is_over = False

    def __enter__(self) -> Self:
        for what, field in (("bound", "spec.nodeName!="), ("running", "status.phase=Running")):
            threading.Thread(target=self._watch, args=(what, field), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over = True

    def _watch(self, what: str, field: str) -> None:
        """The API server ends a watch that does not keep up; it goes on where it was."""
        version = self._version
        while not self._is_over:
            query = {"watch": "true", "fieldSelector": field, "resourceVersion": version, "timeoutSeconds": "3600"}
            with self._client.stream("GET", self._path, params=query, headers={"Accept": PLAIN}) as answer:
                rest = b""
                for block in answer.iter_raw():
                    if self._is_over:
                        return
                    *whole, rest = (rest + block).split(b"\n")
                    if not whole:
                        continue
                    assert not whole[-1].startswith(b'{"type":"ERROR"'), whole[-1]
                    version = json.loads(whole[-1])["object"]["metadata"]["resourceVersion"]
                    new = sum(line.startswith(b'{"type":"ADDED"') for line in whole)
                    if new:
                        setattr(self, what, getattr(self, what) + new)
                        self.last[what] = time.monotonic()

    def until(self, what: str, count: int, limit_s: float) -> float:
        """When the last of ``count`` pods came to be so (monotonic); after ``limit_s`` TimeoutError."""
        end = time.monotonic() + limit_s
        while getattr(self, what) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{getattr(self, what)} of {count} pods are {what} after {limit_s:.0f} s")
            time.sleep(0.05)
        return self.last[what]


class Product:
    """A control plane in a process of its own, whose one cluster is the one of the test."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, **settings: Any) -> None:
        self._folder = folder
        port = free_port()
        kubernetes = {
            "name": "k",
            "kind": "kubernetes",
            "kubeconfig": str(cluster.service_account_kubeconfig(product_rules(), name="product")),
            "namespace": namespace,
            "sidecar_image": "none",
            "image": "none",
            "report_url": f"http://127.0.0.1:{port}",
            "binding": "direct",
            **settings,
        }
        self._file = folder / "tuttilab.yaml"
        config = {
            "listen": {"pods": f"127.0.0.1:{port}"},
            "clusters": [kubernetes],
            "limits": {"barrier_s": 3600, "lost_after_s": 600},
        }
        self._file.write_text(yaml.safe_dump(config), encoding="utf-8")
        self._environ = {**os.environ, "TUTTILAB_STATE_DIR": str(folder / "state")}
        self.most_rss = 0
        self._process: psutil.Process | None = None

    def up(self) -> None:
        command = [sys.executable, "-m", "tuttilab.scheduler.cli", "up", "--config", str(self._file)]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr or done.stdout
        runtime = read_runtime(self._folder / "state")
        assert runtime is not None
        self._process = psutil.Process(runtime.pid)
        self.client = Client(runtime.url, runtime.token)
        self.most_rss = 0
        threading.Thread(target=self._weigh, args=(self._process,), daemon=True).start()

    def _weigh(self, process: psutil.Process) -> None:
        while True:
            try:
                self.most_rss = max(self.most_rss, process.memory_info().rss)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.1)

    def cpu_s(self) -> float:
        assert self._process is not None
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def kill(self) -> None:
        """What it started stays."""
        if self._process is not None:
            self.client.close()
            self._process.kill()
            self._process.wait(150)
            self._process = None

    def log(self) -> str:
        return (self._folder / "state" / "control.log").read_text(encoding="utf-8")[-6000:]


@contextmanager
def product(cluster: Cluster, namespace: str, folder: Path, **settings: Any) -> Iterator[Product]:
    folder.mkdir(parents=True)
    made = Product(cluster, namespace, folder, **settings)
    made.up()
    try:
        yield made
    except Exception as error:
        error.add_note(made.log())
        raise
    finally:
        made.kill()


def product_api(cluster: Cluster) -> ProductApi:
    """The product's own client, as the administrator."""
    settings = KubernetesSettings(
        namespace="default", sidecar_image="none", report_url="http://127.0.0.1:9", kubeconfig=str(cluster.kubeconfig)
    )
    return ProductApi("k", settings)


async def in_turns(calls: Iterator[Any], at_once: int = launch.AT_ONCE) -> None:
    """Await all of ``calls``, so many at a time."""

    async def work() -> None:
        for call in calls:
            await call

    await asyncio.gather(*(work() for _ in range(at_once)))


def remove_pods(cluster: Cluster, namespace: str) -> None:
    """At once, whatever finalizers they have."""
    path = f"/api/v1/namespaces/{namespace}/pods"

    async def freed(api: ProductApi, name: str) -> None:
        while True:
            try:
                await api.call("PATCH", f"{path}/{name}", {"metadata": {"finalizers": None}}, content_type=MERGE)
            except ApiError as error:
                if not error.is_gone:
                    raise
            except ClusterUnreachable:
                continue  # a busy machine
            return

    async def run() -> None:
        api = product_api(cluster)
        try:
            while True:
                try:
                    await api.call("DELETE", path, {"gracePeriodSeconds": 0})
                    break
                except ClusterUnreachable:
                    continue  # so many take longer than a call may, on a busy machine
            while found := (await api.call("GET", path, query={"limit": 2000}))["items"]:
                await in_turns(freed(api, item["metadata"]["name"]) for item in found)
        finally:
            await api.close()

    asyncio.run(run())


def bodies_by_name(cluster: Cluster, namespace: str) -> Mapping[str, Any]:
    """By the pods' names in the control plane."""
    items = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return {item["metadata"]["annotations"][names.POD]: item for item in items}
