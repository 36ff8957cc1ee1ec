"""Pods fetch their job's code and inputs with their own token and leave outputs, as side-cars in containers do; nothing else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import TOKEN, Site
from tests.integration.api.test_routes import AUTHORIZED, V, is_running
from tuttilab.scheduler.api.middleware import PodsOnly
from tuttilab.sidecar import context
from tuttilab.sidecar.artifacts import http_store, outputs
from tuttilab.sidecar.protocol import pod_token

CODE, INPUT, OTHER = b"no real bundle", b"x,y\n1,2\n", b"somebody else's"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url, headers=AUTHORIZED, timeout=150) as http:
        for content in (CODE, INPUT, OTHER):
            assert (await http.put(f"{V}/artifacts/{digest(content)}", content=content)).status_code == 201
        yield http


@pytest.fixture
async def plan(site: Site, http: httpx.AsyncClient, tmp_path: Path) -> dict[str, Any]:
    """What a side-car of a job that runs would have."""
    job = {
        "name": "p",
        "command": ["sleep", "600"],
        "inputs": [{"path": "data.csv", "artifact": digest(INPUT)}],
        "outputs": [{"name": "model", "path": "model.bin"}],
    }
    job_id = (await http.post(f"{V}/jobs", json=job)).json()["id"]
    async with asyncio.timeout(60):
        while not is_running(site, job_id):  # noqa: ASYNC110  the state has no event to wait for
            await asyncio.sleep(0.02)
    (pod,) = site.service.state.attempts[job_id, 1].pods
    dirs = {name: str(tmp_path / name) for name in ("pod", "data", "result", "work", "code")}
    for folder in dirs.values():
        Path(folder).mkdir()
    token = pod_token(site.service.secrets.attempt_key(job_id, 1, 1), pod.rank, pod.name)
    return {
        "job_id": job_id,
        "attempt": 1,
        "epoch": 1,
        "rank": 0,
        "token": token,
        "artifacts_url": site.url,
        "dirs": dirs,
        "env": {},
        "code": None,
        "inputs": job["inputs"],
        "outputs": [{"name": "model", "path": "model.bin", "is_optional": False}],
    }


async def test_a_pod_fetches_its_inputs(plan: dict[str, Any]) -> None:
    await asyncio.to_thread(context.prepare, plan)

    assert (Path(plan["dirs"]["data"]) / "data.csv").read_bytes() == INPUT


async def test_a_pod_does_not_fetch_what_is_not_its_jobs(plan: dict[str, Any]) -> None:
    with pytest.raises(http_store.TransferFailed, match="404"):
        await asyncio.to_thread(http_store.fetch, plan, digest(OTHER))


async def test_what_a_pod_leaves_belongs_to_the_owner_of_its_job(plan: dict[str, Any], http: httpx.AsyncClient) -> None:
    model = bytes(range(256)) * 9000
    (Path(plan["dirs"]["result"]) / "model.bin").write_bytes(model)

    kept = await asyncio.to_thread(outputs.keep, plan)

    assert kept == ({"model": digest(model)}, "", "")
    assert (await http.get(f"{V}/artifacts/{digest(model)}")).content == model


@pytest.mark.parametrize("changes", [{"token": "wrong"}, {"epoch": 2}, {"attempt": 2}, {"job_id": "other"}, {"token": TOKEN}])
async def test_another_token_or_another_claim_is_refused(plan: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(http_store.TransferFailed, match="401"):
        await asyncio.to_thread(http_store.fetch, {**plan, **changes}, digest(INPUT))


async def test_a_pod_whose_job_is_over_is_refused(plan: dict[str, Any], http: httpx.AsyncClient, site: Site) -> None:
    await http.post(f"{V}/jobs/{plan['job_id']}/cancel")
    async with asyncio.timeout(60):
        while site.service.state.live_attempt(plan["job_id"]) is not None:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.02)

    with pytest.raises(http_store.TransferFailed, match="404"):
        await asyncio.to_thread(http_store.fetch, plan, digest(INPUT))


async def test_an_artifact_that_is_not_what_its_name_says_is_not_kept(plan: dict[str, Any], http: httpx.AsyncClient) -> None:
    claims = {key: plan[key] for key in ("job_id", "attempt", "epoch")}
    headers = {"Authorization": f"Bearer {plan['token']}"}

    answer = await http.put(f"{V}/pods/artifacts/{digest(b'a')}", content=b"b", params=claims, headers=headers)

    assert (answer.status_code, answer.json()["type"]) == (400, "bad-input")


async def test_the_address_for_pods_serves_them_and_nothing_else() -> None:
    async def reached(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(PodsOnly(reached)), base_url="http://pods") as pods:
        own = [f"{V}/pods/report", f"{V}/pods/displays", f"{V}/pods/artifacts/{'a' * 64}"]
        paths = [*own, f"{V}/jobs", "/healthz", f"{V}/pods", f"{V}/pods/report/"]
        statuses = [(await pods.get(path)).status_code for path in (*paths, f"{V}/pods/artifacts/a/b")]

    assert statuses == [200, 200, 200, 404, 404, 404, 404, 404]
