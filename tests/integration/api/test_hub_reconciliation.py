"""Servers that a hub does not know any more are ended; a hub that does not answer, or whose answer is refused, ends none."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import Site, served
from tuttilab.scheduler.domain.model import Job, JobPhase
from tuttilab.scheduler.domain.requests import NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.identity import hub_reconciliation
from tuttilab.scheduler.identity.auth import HubSettings
from tuttilab.scheduler.usecases.notebooks import Notebooks
from tuttilab.scheduler.usecases.profiles import Profiles

HUB = HubSettings("http://hub/hub/api", "tuttilab", "token-of-the-hub")
USERS_ARE_SHOWN: dict[str, Any] = {"/hub/api/users": []}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path)) as site:
        await Profiles(site.service).apply(ProfileRequest(name="cpu", preemptible=True), Who("root", is_admin=True))
        yield site


async def running(site: Site, owner: str, server: str = "") -> Job:
    job = await Notebooks(site.service).start(NotebookRequest(owner=owner, server=server))
    async with asyncio.timeout(60):
        while site.service.state.live_attempt(job.id) is None:
            await site.service.wait_change(site.service.last_seq, 0.05)
    return await Notebooks(site.service).renew(job.id, RenewRequest(phase="running"))


async def reconcile(site: Site, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, silent_s: float = 0.0) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "token token-of-the-hub"
        found = answers.get(request.url.raw_path.decode().partition("?")[0], 404)
        return httpx.Response(found) if isinstance(found, int) else httpx.Response(200, json=found)

    monkeypatch.setattr(hub_reconciliation, "SILENT_S", silent_s)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await hub_reconciliation.reconcile_with_hub(site.service, HUB, http)


def phase(site: Site, job: Job) -> JobPhase:
    return site.service.state.jobs[job.id].phase


async def test_server_that_the_hub_does_not_know_any_more_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, named, other = await running(site, "ann"), await running(site, "ann", "two"), await running(site, "a/b")
    answers = {"/hub/api/users/ann": {"servers": {"": {}}}, "/hub/api/users/a%2Fb": {"servers": {}}, **USERS_ARE_SHOWN}

    await reconcile(site, answers, monkeypatch)

    assert [phase(site, job) for job in (kept, named, other)] == [JobPhase.ACTIVE, JobPhase.SUCCEEDED, JobPhase.SUCCEEDED]


async def test_server_of_a_deleted_user_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    await reconcile(site, USERS_ARE_SHOWN, monkeypatch)

    assert phase(site, job) is JobPhase.SUCCEEDED


@pytest.mark.parametrize("answers", [{}, {"/hub/api/users/ann": {"name": "ann"}, **USERS_ARE_SHOWN}])
async def test_hub_that_hides_its_users_ends_nothing(site: Site, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    await reconcile(site, answers, monkeypatch)

    assert phase(site, job) is JobPhase.ACTIVE


async def test_hub_that_fails_ends_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    with pytest.raises(httpx.HTTPError):
        await reconcile(site, {"/hub/api/users/ann": 503}, monkeypatch)

    assert phase(site, job) is JobPhase.ACTIVE


async def test_server_that_was_renewed_lately_is_not_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await running(site, "ann")

    await reconcile(site, USERS_ARE_SHOWN, monkeypatch, silent_s=60.0)

    assert phase(site, job) is JobPhase.ACTIVE
