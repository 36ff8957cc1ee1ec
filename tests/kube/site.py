"""A control plane of the product on the cluster of `make kube-up`, for a person who wants to run gangs in containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from tests.kube import product_images, real
from tests.kube.processes import free_port
from tests.kube.real import RealCluster

NAMESPACE_LABELS = {"pod-security.kubernetes.io/enforce": "restricted"}
TOKEN_S = 7 * 86400
LIMIT_S = 120
STATE = real.ROOT / "control-plane"


@contextmanager
def running_control_plane(cluster: RealCluster) -> Iterator[dict[str, str]]:
    """What a person needs to use it, by the word it is printed with. It ends with its jobs."""
    for image in product_images.made():
        cluster.load_image(image)
    kubeconfig = cluster.service_account_kubeconfig(product_rules(), name="product", lifetime_s=TOKEN_S)
    port = free_port(cluster.host)
    config = {
        "listen": {"pods": f"{cluster.host}:{port}"},
        "clusters": [
            {
                "name": "kube",
                "kind": "kubernetes",
                "kubeconfig": str(kubeconfig),
                "namespace": cluster.new_namespace("jobs", NAMESPACE_LABELS),
                "sidecar_image": product_images.SIDECAR,
                "image": product_images.NOTEBOOK,
                "report_url": f"http://{cluster.host}:{port}",
            }
        ],
    }
    STATE.mkdir(mode=0o700)
    file = STATE / "tuttilab.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    try:
        tuttilab("up", "--config", str(file))
        runtime = json.loads((STATE / "runtime.json").read_text(encoding="utf-8"))
        yield {"control plane": runtime["url"], "state folder": str(STATE), "configuration": str(file)}
    finally:
        tuttilab("down", "--now", must_work=False)


def product_rules() -> list[dict[str, list[str]]]:
    """The rights in deploy/kubernetes/roles.yaml."""
    return rules_of("roles.yaml")


def rules_of(file: str) -> list[dict[str, list[str]]]:
    """The rights in a file of deploy/kubernetes."""
    text = (product_images.ROOT / "deploy" / "kubernetes" / file).read_text(encoding="utf-8")
    return [rule for document in yaml.safe_load_all(text) for rule in document.get("rules", [])]


def tuttilab(*arguments: str, must_work: bool = True) -> None:
    """Raises RuntimeError with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tuttilab.scheduler.cli", *arguments],
        env={**os.environ, "TUTTILAB_STATE_DIR": str(STATE)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if must_work and done.returncode != 0:
        raise RuntimeError(f"tuttilab {arguments[0]} ended with {done.returncode}: {done.stderr or done.stdout}")
