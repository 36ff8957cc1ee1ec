"""A control plane whose database is new, on a cluster that others led: above which epoch it begins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.contract.building import a_job, an_attempt, submitted
from tuttilab.scheduler.clusters.kubernetes import fence
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.fence import EPOCH, LeaseFence
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.server.clusters import newest_fenced_epoch
from tuttilab.scheduler.service.launch_plans import Secrets
from tuttilab.scheduler.store.leadership import Candidate
from tuttilab.scheduler.store.sql import SqlStore


class Leases:
    """The API server, of which nothing but Leases is asked."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.versions = 0

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.versions += 1
        self.kept[path] = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.versions)}}
        return self.kept[path]

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "GET" and request.path in self.kept:
            return web.json_response(self.kept[request.path])
        if request.method == "GET":
            return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound", "message": "none"}, status=404)
        body = await request.json()
        path = f"{request.path}/{body['metadata']['name']}" if request.method == "POST" else request.path
        was = self.kept.get(path, {"metadata": {"resourceVersion": None}})["metadata"]["resourceVersion"]
        if body["metadata"].get("resourceVersion") != was:
            return web.json_response({"kind": "Status", "code": 409, "reason": "Conflict", "message": "changed"}, status=409)
        return web.json_response(self.put(path, body))


@pytest.fixture
async def leases(tmp_path: Path) -> AsyncIterator[Leases]:
    found = Leases()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    yield found
    await runner.cleanup()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "RENEW_S", 0.02)
    monkeypatch.setattr(fence, "SILENT_S", 0.2)


def configured(tmp_path: Path, state: str) -> Config:
    """Of control planes with one key, each with a state folder and a database of its own."""
    cluster = {
        "name": "k",
        "kind": "kubernetes",
        "kubeconfig": str(tmp_path / "kubeconfig"),
        "namespace": "ml",
        "sidecar_image": "i",
        "report_url": "http://10.0.0.1:1",
    }
    (tmp_path / state).mkdir(exist_ok=True)
    (tmp_path / "key").write_text("k" * 32)
    return parse_config({"clusters": [cluster], "auth": {"key_file": str(tmp_path / "key")}}, tmp_path / state, "t.yaml")


async def begin(config: Config, state: Path) -> tuple[SqlStore, int]:
    """As a control plane takes its database over."""
    store = SqlStore(config.store.url, candidate=Candidate(folder=state, above=await newest_fenced_epoch(config, state)))
    return store, await store.open()


def fence_of(config: Config, state: Path) -> LeaseFence:
    settings = config.clusters[0].kubernetes
    assert settings is not None
    return LeaseFence(Api("k", settings), "k", "ml", Secrets.of(config.auth.key_file, state).installation, state / "clusters" / "k")


async def test_a_new_database_in_a_new_state_folder_leads_above_those_that_led_the_cluster(leases: Leases, tmp_path: Path) -> None:
    first, second = configured(tmp_path, "first"), configured(tmp_path, "second")
    for expected in (1, 2, 3):
        store, epoch = await begin(first, tmp_path / "first")
        await store.close()
        assert epoch == expected
    before = fence_of(first, tmp_path / "first")
    await before.raise_to(3)

    store, epoch = await begin(second, tmp_path / "second")
    await store.close()

    assert epoch == 4
    after = fence_of(second, tmp_path / "second")
    await after.raise_to(epoch)
    await after.check()
    (lease,) = leases.kept.values()
    assert lease["metadata"]["annotations"][EPOCH] == "4"
    for each in (before, after):
        await each._api.close()


async def test_while_another_one_leads_a_new_database_is_refused_and_its_pods_are_left_alone(
    leases: Leases, tmp_path: Path
) -> None:
    first, second = configured(tmp_path, "first"), configured(tmp_path, "second")
    living = fence_of(first, tmp_path / "first")
    await living.raise_to(3)
    renewing = asyncio.create_task(living.renew())

    with pytest.raises(EnvironmentProblem, match="leads the pods of cluster k with another database, and this one's is new"):
        await newest_fenced_epoch(second, tmp_path / "second")

    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    await living.check()
    await living._api.close()
    assert await newest_fenced_epoch(second, tmp_path / "second") == 3, "once it is dead"


async def test_a_replica_of_a_database_that_leads_by_now_is_not_refused(
    leases: Leases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that share a new database begin together: one of them leads while the other waits."""
    config = configured(tmp_path, "shared")
    leading = fence_of(config, tmp_path / "other")
    await leading.raise_to(3)
    store = SqlStore(config.store.url, candidate=Candidate(above=3))
    looks, read = 0, LeaseFence.read

    async def read_slowly(of: LeaseFence) -> dict[str, Any] | None:
        nonlocal looks
        if of is not leading and (looks := looks + 1) == 2:
            await leading.raise_to(await store.open())
        return await read(of)

    monkeypatch.setattr(LeaseFence, "read", read_slowly)

    assert await newest_fenced_epoch(config, tmp_path / "shared") == 4
    await store.close()
    await leading._api.close()


async def test_a_database_that_was_used_and_clusters_that_do_not_answer_are_not_asked(tmp_path: Path) -> None:
    config = configured(tmp_path, "used")
    (tmp_path / "kubeconfig").write_text("nothing")
    assert await newest_fenced_epoch(config, tmp_path / "used") == 0
    store, epoch = await begin(config, tmp_path / "used")
    assert await store.epoch_if_unused() == 1
    await store.commit(submitted(job := a_job(), epoch=epoch, attempts=(an_attempt(job),)))
    assert await store.epoch_if_unused() is None
    await store.close()
