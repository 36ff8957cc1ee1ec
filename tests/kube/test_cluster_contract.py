"""What every cluster promises (`tests/contract/test_clusters.py`), asked of Kubernetes with real containers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.clusters import Place
from tests.contract.test_clusters import *  # noqa: F403  its tests, with the fixture below in place of theirs
from tests.kube import images, product_images
from tests.kube.real import RealCluster
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings

pytestmark = pytest.mark.tier("real-pods")


@pytest.fixture  # type: ignore[no-redef]  # in place of the contract's own
async def place(
    product_cluster: RealCluster, product_kubeconfig: Path, restricted_namespace: str, tmp_path: Path
) -> AsyncIterator[Place]:
    first, second = product_cluster.real_nodes()[:2]
    settings = KubernetesSettings(
        kubeconfig=str(product_kubeconfig),
        namespace=restricted_namespace,
        image=images.BUSYBOX,
        sidecar_image=product_images.SIDECAR,
        # Nobody listens at the discard port: pods live without a control plane.
        report_url=f"http://{product_cluster.host}:9",
    )
    place = Place("kubernetes", tmp_path, {"a": first, "b": second}, settings)
    yield place
    await place.close()
