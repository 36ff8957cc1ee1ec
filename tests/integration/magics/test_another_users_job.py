"""Two users of one service: the magics of LinkisMagic refuse the other's job by its id, its beginning and its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.integration.api.conftest import Site, Tokens, served
from tuttilab.magics.linkis.jobs import LinkisJobs
from tuttilab.magics.shared.connection import disconnect
from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.spark.provider import RestProvider
from tuttilab.magics.spark.sessions import Sessions
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest, SparkRequest, Who


@dataclass
class Two:
    site: Site
    of_bob: str
    shell: InteractiveShell

    async def run(self, magic: str, line: str) -> None:
        await asyncio.to_thread(self.shell.run_line_magic, magic, line)

    async def refused(self, magic: str, line: str) -> str:
        with pytest.raises((TuttiError, UsageError)) as refused:
            await self.run(magic, line)
        return str(refused.value)


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    users = {f"token-of-{name}": Who(name, ("quant",)) for name in ("ann", "bob")}
    async with served(Site(tmp_path, authenticator=Tokens(users))) as site, AsyncClient(site.url, "token-of-bob") as bob:
        job = await bob.submit(JobRequest(name="secret", command=("true",), queue="quant", pods=(PodRequest(cpus="1"),)))
        await bob.spark_start(SparkRequest(name="his", queue="quant"))
        monkeypatch.setenv("TUTTILAB_URL", site.url)
        monkeypatch.setenv("TUTTILAB_TOKEN", "token-of-ann")
        disconnect()
        shell = InteractiveShell.instance()
        shell.register_magics(LinkisJobs(shell, Sessions(RestProvider())))
        yield Two(site, job.id, shell)
        disconnect()
        InteractiveShell.clear_instance()


@pytest.mark.feature("M06", "M07", "M13")
async def test_another_users_job_and_session_are_refused_and_go_on(two: Two) -> None:
    for spelled in (two.of_bob, two.of_bob[:8], "secret"):
        for magic in ("status", "progress", "log", "kill"):
            assert spelled in await two.refused(magic, f"-i {spelled}")
    said = await two.refused("enginekill", "-i his")
    assert said == "%enginekill: his is no Spark session of yours; you have: none."
    async with AsyncClient(two.site.url, "token-of-bob") as bob:
        phases = {view.name: view.phase for view in (await bob.jobs(all=True)).jobs}
        assert len(phases) == 2
        assert "Cancelled" not in phases.values()
    await two.run("listjob", "-o mine")
    assert two.shell.user_ns["mine"]["tasks"] == []
