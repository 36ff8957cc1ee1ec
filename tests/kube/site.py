"""What `make kube-up` puts onto its cluster for a person: a control plane of the product, and a hub whose servers are pods."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kube import lab_image, product_images, real
from tests.kube.hub_site import KubeHubSite, made_kube_hub
from tests.kube.real import RealCluster

TOKEN_S = 7 * 86400
SITE = real.ROOT / "site"
HOME = "/tmp"
SMALL: dict[str, Any] = {"groups": ["research", "quant"], "cpus": 1, "memory": "1Gi", "env": {"HOME": HOME}}
PROFILES: list[dict[str, Any]] = [
    {"name": "cpu", "title": "One core", **SMALL},
    {"name": "gpu", "title": "One core and one GPU", "gpus": 1, **SMALL},
]


@contextmanager
def running_site(cluster: RealCluster) -> Iterator[dict[str, str]]:
    """What a person needs to use it, by the word it is printed with. It ends with its jobs and servers."""
    load_images(cluster)
    SITE.mkdir(mode=0o700)
    own: dict[str, Any] = {
        "password": secrets.token_hex(8),
        "service_token": secrets.token_hex(32),
        "proxy_token": secrets.token_hex(32),
    }
    more = {"container_patience_s": 30, "notebook_dir": HOME}
    with made_kube_hub(SITE, cluster, PROFILES, token_s=TOKEN_S, patience_s=60.0, more=more, **own) as site:
        try:
            yield places(site)
        finally:
            # Its pods go with the cluster: a hub that ended by itself would stop each server first.
            for name in list(site.processes):
                site.kill(name)


def places(site: KubeHubSite) -> dict[str, str]:
    return {
        "hub": site.url,
        "control plane": site.control_url,
        "state folder": str(site.machine.state),
        "configuration": str(site.folder / "tuttilab.yaml"),
        "log": str(site.folder / "control.out"),
        "password": site.password,
    }


def load_images(cluster: RealCluster) -> None:
    for image in product_images.made():
        cluster.load_image(image)
    with tempfile.TemporaryDirectory(dir=real.ROOT) as place:
        for image in lab_image.made(Path(place), [lab_image.LAB]):
            cluster.load_image(image)
