"""Nodes that are only rows: KWOK keeps them Ready and says of each pod on them that it runs. By the thousand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.kube.api import Api
from tests.kube.processes import Processes
from tests.ports import free_port

MARK = "kwok.x-k8s.io/node"
CAPACITY: Mapping[str, str] = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "110", "nvidia.com/gpu": "8"}
PARALLEL = 32
POD_IP = "podIP: {{ index . 0 | Quote }}"
"""In KWOK's stages."""
# Its usual four at a time would wait for one another on a machine that is busy.
OPTIONS = """\
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  nodePlayStageParallelism: 16
  podPlayStageParallelism: 16
  nodeLeaseParallelism: 16
"""


def start(processes: Processes, program: Path, root: Path, kubeconfig: Path, silence_s: int, pod_ip: str = "") -> None:
    """``silence_s``: after which the controller manager calls a node not ready. ``pod_ip``: of every pod, if not one of its own.

    It minds the nodes with KWOK's annotation; pods with an owner of kind Job end at once, others run until they are deleted.
    """
    stages = root / "kwok-stages.yaml"
    text = subprocess.check_output([program, "kwok-stages"], text=True, timeout=60)
    if pod_ip:
        assert POD_IP in text
        text = text.replace(POD_IP, f'podIP: "{pod_ip}"')
    stages.write_text(OPTIONS + text, encoding="utf-8")
    processes.start(
        "kwok",
        program,
        "kwok",
        f"--config={stages}",
        f"--kubeconfig={kubeconfig}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={MARK}=fake",
        # A lease is renewed after a quarter of its time.
        f"--node-lease-duration-seconds={2 * silence_s}",
        "--v=WARN",
        "--cidr=10.250.0.1/16",
        "--node-ip=127.0.0.1",
        "--node-name=kwok",
        f"--server-address=127.0.0.1:{free_port()}",
        environment={"HOME": str(root), "KWOK_WORKDIR": str(root / "kwok")},
    )


def node(
    name: str, capacity: Mapping[str, str], labels: Mapping[str, str] | None = None, taints: Iterable[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """The manifest of one."""
    return {
        "metadata": {
            "name": name,
            "annotations": {MARK: "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "kwok", **(labels or {})},
        },
        "spec": {"taints": list(taints)},
        "status": {"capacity": dict(capacity), "allocatable": dict(capacity)},
    }


def delete(api: Api, names: Sequence[str]) -> None:
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda name: api.delete(f"/api/v1/nodes/{name}"), names))


def create(api: Api, manifests: Sequence[Mapping[str, Any]]) -> None:
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda manifest: api.post("/api/v1/nodes", manifest), manifests))
