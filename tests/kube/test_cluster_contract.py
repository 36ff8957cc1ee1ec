"""What every cluster promises (`tests/contract/test_clusters.py`), asked of Kubernetes with real containers.

Most of each test is waiting for them, so a few run at a time, each in a namespace of its own, and pytest hears of each in its turn.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.contract import clusters, test_clusters
from tests.contract.clusters import Place
from tests.kube import images, product_images
from tests.kube.job_site import RESTRICTED
from tests.kube.real import RealCluster
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]
AT_ONCE = 3
"""As many gangs as the nodes have room for, whatever the machine."""
LIMIT_S = 280.0
DEADLINE_S = 150.0
"""Of one wait of a test, on a machine that is busy with much else."""


class Runs:
    """The tests of this module that were chosen, begun in their order in a loop of its own."""

    def __init__(self, items: Sequence[pytest.Item], settings: KubernetesSettings, cluster: RealCluster, folder: Path) -> None:
        self._settings = settings
        self._cluster = cluster
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="contract", daemon=True)
        self._thread.start()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._results: dict[str, Future[None]] = {
            item.nodeid: asyncio.run_coroutine_threadsafe(self._run(item, number), self._loop) for number, item in enumerate(items)
        }

    def result(self, item: pytest.Item) -> None:
        self._results[item.nodeid].result()

    async def _run(self, item: Any, number: int) -> None:
        given = item.callspec.params if hasattr(item, "callspec") else {}
        folder = self._folder / str(number)
        async with self._turns:
            namespace = await asyncio.to_thread(self._cluster.new_namespace, "contract", RESTRICTED)
            place = self._place(namespace, folder)
            try:
                async with asyncio.timeout(LIMIT_S):
                    await item.function.of(place=place, cluster=place.open(), **given)
            finally:
                await place.close()
                await asyncio.to_thread(self._cluster.drop_namespace, namespace)

    def _place(self, namespace: str, folder: Path) -> Place:
        folder.mkdir()
        first, second = self._cluster.real_nodes()[:2]
        settings = KubernetesSettings(
            kubeconfig=self._settings.kubeconfig,
            namespace=namespace,
            image=self._settings.image,
            sidecar_image=self._settings.sidecar_image,
            report_url=self._settings.report_url,
        )
        return Place("kubernetes", folder, {"a": first, "b": second}, settings)

    def close(self) -> None:
        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(LIMIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, product_cluster: RealCluster, product_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    settings = KubernetesSettings(
        kubeconfig=str(product_kubeconfig),
        namespace="",
        image=images.BUSYBOX,
        sidecar_image=product_images.SIDECAR,
        # Nobody listens at the discard port: pods live without a control plane.
        report_url=f"http://{product_cluster.host}:9",
    )
    items = [item for item in request.session.items if item.path == Path(__file__)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "DEADLINE_S", DEADLINE_S)
        runs = Runs(items, settings, product_cluster, tmp_path_factory.mktemp("contract"))
        yield runs
        runs.close()


def asked_of_kubernetes(of: Callable[..., Any]) -> Callable[..., None]:
    """The test of the contract with its marks and parameters, whose place and cluster are ours."""

    def test(runs: Runs, request: pytest.FixtureRequest, **_: object) -> None:
        runs.result(request.node)

    own = [each for each in inspect.signature(of).parameters.values() if each.name not in ("place", "cluster")]
    fixtures = [each for each in inspect.signature(test).parameters.values() if each.kind is not each.VAR_KEYWORD]
    test.__signature__ = inspect.Signature([*fixtures, *own])  # type: ignore[attr-defined]  # pytest reads it
    test.__name__, test.__doc__ = of.__name__, of.__doc__
    test.pytestmark = getattr(of, "pytestmark", [])  # type: ignore[attr-defined]  # where pytest keeps them
    test.of = of  # type: ignore[attr-defined]
    return test


for name, found in list(vars(test_clusters).items()):
    if name.startswith("test_"):
        globals()[name] = asked_of_kubernetes(found)
