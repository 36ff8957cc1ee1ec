"""Servers that a hub has forgotten give their room back; a hub that does not answer, or may not tell, ends none."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import Site, served
from tuttilab.scheduler import hub_servers
from tuttilab.scheduler.auth import HubSettings
from tuttilab.scheduler.model import Job, JobPhase
from tuttilab.scheduler.requests import NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.servers import Servers

HUB = HubSettings("http://hub/hub/api", "tuttilab", "token-of-the-hub")
SEEN: dict[str, Any] = {"/hub/api/users": []}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path)) as site:
        await Servers(site.service).apply_profile(ProfileRequest(name="cpu", preemptible=True), Who("root", is_admin=True))
        yield site


async def running(site: Site, owner: str, server: str = "") -> Job:
    job = await Servers(site.service).start(NotebookRequest(owner=owner, server=server))
    async with asyncio.timeout(5.0):
        while site.service.state.live_attempt(job.id) is None:
            await site.service.wait_change(site.service.last_seq, 0.05)
    return await Servers(site.service).renew(job.id, RenewRequest(phase="running"))


async def look(site: Site, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, silent_s: float = 0.0) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "token token-of-the-hub"
        found = answers.get(request.url.raw_path.decode().partition("?")[0], 404)
        return httpx.Response(found) if isinstance(found, int) else httpx.Response(200, json=found)

    monkeypatch.setattr(hub_servers, "SILENT_S", silent_s)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await hub_servers.look_once(site.service, HUB, http)


def phase(site: Site, job: Job) -> JobPhase:
    return site.service.state.jobs[job.id].phase


async def test_server_that_the_hub_has_no_more_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, named, gone = await running(site, "ann"), await running(site, "ann", "two"), await running(site, "a/b")
    answers = {"/hub/api/users/ann": {"servers": {"": {}}}, "/hub/api/users/a%2Fb": {"servers": {}}, **SEEN}

    await look(site, answers, monkeypatch)

    assert [phase(site, job) for job in (kept, named, gone)] == [JobPhase.ACTIVE, JobPhase.SUCCEEDED, JobPhase.SUCCEEDED]


async def test_server_of_a_user_who_is_gone_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    await look(site, SEEN, monkeypatch)

    assert phase(site, job) is JobPhase.SUCCEEDED


@pytest.mark.parametrize("answers", [{}, {"/hub/api/users/ann": {"name": "ann"}, **SEEN}])
async def test_hub_that_may_not_tell_ends_nothing(site: Site, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    await look(site, answers, monkeypatch)

    assert phase(site, job) is JobPhase.ACTIVE


async def test_hub_that_is_ill_ends_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    with pytest.raises(httpx.HTTPError):
        await look(site, {"/hub/api/users/ann": 503}, monkeypatch)

    assert phase(site, job) is JobPhase.ACTIVE


async def test_server_that_was_heard_of_lately_is_not_asked_about(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    await look(site, SEEN, monkeypatch, silent_s=60.0)

    assert phase(site, job) is JobPhase.ACTIVE
