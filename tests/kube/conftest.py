"""What the cluster tests share; the clusters themselves are fixtures of `tests/conftest.py`, for the tests of every folder."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.hub.users import amy, ann, bob
from tests.e2e.magics.conftest import Kernel
from tests.kube import lab_image, product_images, real
from tests.kube.access import product_rules
from tests.kube.cluster import Cluster
from tests.kube.job_site import RESTRICTED, SharedSite, Site, made_site
from tests.kube.real import RealCluster

__all__ = ["amy", "ann", "bob"]

OTHERS_LIMIT_S = 300.0
"""For another run on this machine to end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that make real clusters of their own come before the one of the whole run is made, which lives until the end."""
    items.sort(key=lambda item: "no_cluster" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def no_cluster() -> None:
    """There is none on this machine, nor anything of one."""
    with real.alone(OTHERS_LIMIT_S):
        real.remove_leftovers()


@pytest.fixture
def fake_namespace(control_plane_cluster: Cluster) -> Iterator[str]:
    with control_plane_cluster.namespace() as name:
        yield name


@pytest.fixture
def namespace(real_cluster: RealCluster) -> Iterator[str]:
    """On the real cluster."""
    with real_cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def product_cluster(real_cluster: RealCluster) -> RealCluster:
    """The real cluster, with the product's images on its nodes."""
    for image in product_images.made():
        real_cluster.load_image(image)
    return real_cluster


@pytest.fixture(scope="session")
def lab_cluster(product_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> RealCluster:
    """With images of notebook servers as well."""
    place = tmp_path_factory.mktemp("lab-images")
    for image in lab_image.made(place):
        product_cluster.load_image(image)
        image.unlink()
    return product_cluster


@pytest.fixture(scope="session")
def product_kubeconfig(product_cluster: RealCluster) -> Path:
    """Of an account with the rights in deploy/kubernetes/roles.yaml and no other."""
    return product_cluster.service_account_kubeconfig(product_rules(), name="product")


@pytest.fixture
def restricted_namespace(real_cluster: RealCluster) -> Iterator[str]:
    """On the real cluster, with the strictest of Kubernetes' Pod Security levels."""
    with real_cluster.namespace(labels=RESTRICTED) as name:
        yield name


@pytest.fixture(scope="session")
def shared_site(
    product_cluster: RealCluster, product_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedSite]:
    @contextmanager
    def opened() -> Iterator[Site]:
        with (
            product_cluster.namespace(labels=RESTRICTED) as namespace,
            made_site(product_cluster, product_kubeconfig, namespace, tmp_path_factory.mktemp("site")) as site,
        ):
            yield site

    with closing(SharedSite(opened)) as shared:
        yield shared


@pytest.fixture
def site(shared_site: SharedSite) -> Iterator[Site]:
    """It runs, with what is configured for all; a test leaves it as it was, its jobs aside."""
    with shared_site.lent() as site:
        yield site


@pytest.fixture
def own_site(product_cluster: RealCluster, product_kubeconfig: Path, restricted_namespace: str, tmp_path: Path) -> Iterator[Site]:
    """Of one test, which configures it and has it run: `up`."""
    with made_site(product_cluster, product_kubeconfig, restricted_namespace, tmp_path) as site:
        yield site


@pytest.fixture
def kernel(site: Site, tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel({**site.machine.environ, "IPYTHONDIR": str(tmp_path / "ipython")}, "kube.ipynb", cwd=site.machine.home)
    yield made
    made.close()
