"""What a cell displays in a container comes to the control plane while it runs, sent by the pod's side-car with the pod's token."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import TOKEN, Site
from tests.integration.api.test_routes import AUTHORIZED, V, is_running
from tuttilab.scheduler.clusters.base import DisplayChunk, KeepsDisplays
from tuttilab.scheduler.clusters.kept import displays
from tuttilab.scheduler.clusters.kubernetes.cluster import KubernetesCluster
from tuttilab.sidecar.container import shown
from tuttilab.sidecar.protocol import pod_token

PICTURE = {"data": {"image/png": base64.b64encode(bytes(2**20)).decode()}, "metadata": {}, "id": None, "update": False}


class Keeping:
    """The site's cluster, which on top of that takes displays, as Kubernetes does."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    async def keep_displays(self, job_id: str, attempt: int, pod: str, start: int, body: bytes) -> int:
        return displays.append(self._folder, start, body)

    async def displays(self, job_id: str, attempt: int, pod: str, start: int) -> DisplayChunk:
        return displays.read_displays(self._folder, start)


def test_kubernetes_is_a_cluster_whose_pods_send_what_they_display() -> None:
    assert issubclass(KubernetesCluster, KeepsDisplays)


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url, headers=AUTHORIZED, timeout=150) as http:
        yield http


@pytest.fixture
async def plan(site: Site, http: httpx.AsyncClient, tmp_path: Path) -> dict[str, Any]:
    """What a side-car of a cell that runs would have."""
    job = {"name": "p", "command": ["sleep", "600"], "outputs": [{"name": "display", "path": shown.NAME, "optional": True}]}
    job_id = (await http.post(f"{V}/jobs", json=job)).json()["id"]
    async with asyncio.timeout(60):
        while not is_running(site, job_id):  # noqa: ASYNC110  the state has no event to wait for
            await asyncio.sleep(0.02)
    (pod,) = site.service.state.attempts[job_id, 1].pods
    (tmp_path / "result").mkdir()
    token = pod_token(site.service.secrets.attempt_key(job_id, 1, 1), pod.rank, pod.name)
    claim = {"job_id": job_id, "attempt": 1, "epoch": 1, "token": token}
    return {**claim, "report_url": site.url, "dirs": {"result": str(tmp_path / "result")}, "outputs": [{"path": shown.NAME}]}


@pytest.fixture
def keeping(site: Site, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    name, cluster = next(iter(site.service.clusters.items()))
    site.service.clusters[name] = Keeping(cluster, tmp_path / "kept")


def show(plan: dict[str, Any], *records: dict[str, Any], rest: str = "") -> None:
    with open(f"{plan['dirs']['result']}/{shown.NAME}", "a", encoding="utf-8") as file:
        file.write("".join(f"{json.dumps(record)}\n" for record in records) + rest)


@pytest.mark.usefixtures("keeping")
async def test_what_a_cell_displays_is_there_while_it_runs(plan: dict[str, Any], http: httpx.AsyncClient) -> None:
    assert shown.is_asked_for(plan)
    at = await asyncio.to_thread(shown.send, plan, 0)
    assert at == 0  # it displayed nothing so far
    show(plan, PICTURE, rest='{"half": ')
    at = await asyncio.to_thread(shown.send, plan, at)
    show(plan, rest="1}\n")

    at = await asyncio.to_thread(shown.send, plan, at)

    told = (await http.get(f"{V}/jobs/{plan['job_id']}/displays")).json()
    assert [json.loads(line) for line in told["lines"]] == [PICTURE, {"half": 1}]
    assert told["next"] == at
    # A side-car that was restarted begins at the start and hears where to go on.
    assert await asyncio.to_thread(shown.send, plan, 0) == at
    assert len((await http.get(f"{V}/jobs/{plan['job_id']}/displays")).json()["lines"]) == 2


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("changes", [{"token": "wrong"}, {"epoch": 2}, {"attempt": 2}, {"job_id": "other"}, {"token": TOKEN}])
async def test_another_token_or_another_claim_is_refused(plan: dict[str, Any], changes: dict[str, Any]) -> None:
    # Small, so that the refusal does not come while it is being sent.
    show(plan, {"data": {"text/plain": "42"}, "metadata": {}, "id": None, "update": False})
    with pytest.raises(shown.Refused, match="401"):
        await asyncio.to_thread(shown.send, {**plan, **changes}, 0)


@pytest.mark.usefixtures("keeping")
async def test_too_much_is_refused_before_it_is_read(plan: dict[str, Any], http: httpx.AsyncClient) -> None:
    claims = {key: plan[key] for key in ("job_id", "attempt", "epoch")}
    headers = {"Authorization": f"Bearer {plan['token']}"}
    answer = await http.post(f"{V}/pods/displays", content=bytes(displays.LARGEST + 1), params=claims, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (413, "too-large")


async def test_a_cluster_that_sees_the_files_itself_takes_none(plan: dict[str, Any]) -> None:
    show(plan, PICTURE)
    with pytest.raises(shown.Refused, match=r"404.*its cluster sees them itself"):
        await asyncio.to_thread(shown.send, plan, 0)


async def test_a_link_in_the_place_of_the_file_is_not_followed(plan: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}\n")
    (tmp_path / "result" / shown.NAME).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        await asyncio.to_thread(shown.send, plan, 0)
