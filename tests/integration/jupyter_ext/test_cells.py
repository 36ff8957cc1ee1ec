"""A real Jupyter server of the hub's kind before a real service: it tells that a cell runs, and is not stopped for others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from tornado.escape import json_encode
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.integration.api.conftest import Site, Tokens, served
from tests.lab import TOKEN
from tests.ports import free_port
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.model import NOTEBOOK_VARIABLE
from tuttilab.scheduler.domain.requests import JobRequest, NotebookRequest, PodRequest, ProfileRequest, RenewRequest, Who

pytestmark = pytest.mark.timeout(700)
HUB, ANN = "token-of-the-hub", "token-of-ann"
USERS = {HUB: Who("tuttilab", is_admin=True, is_hub=True), ANN: Who("ann", ("quant",))}
STARTS_S = 150.0
AUTHORIZED = {"Authorization": f"token {TOKEN}"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path, Tokens(USERS))) as site:
        yield site


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(STARTS_S):
        while not await is_so():  # noqa: ASYNC110  it asks a server, which has no event for it
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def jupyter(site: Site, job_id: str) -> AsyncIterator[str]:
    """The Jupyter server as a spawner starts it, with the hub token of its user."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    own = {"TUTTILAB_URL": site.url, "JUPYTERHUB_API_TOKEN": ANN, "TUTTILAB_TOKEN": ANN, NOTEBOOK_VARIABLE: job_id}
    environ = {**os.environ, **own, "HOME": str(site.folder), "JUPYTER_RUNTIME_DIR": str(site.folder / "runtime")}
    options = [f"--ServerApp.port={port}", f"--IdentityProvider.token={TOKEN}", "--allow-root"]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jupyter_server", *options, cwd=site.folder, env=environ, stdout=quiet, stderr=quiet
    )
    try:
        async with asyncio.timeout(STARTS_S), httpx.AsyncClient(trust_env=False, headers=AUTHORIZED) as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(f"{url}/api/status")).is_success:
                        break
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def kernel(url: str) -> WebSocketClientConnection:
    async with httpx.AsyncClient(trust_env=False, headers=AUTHORIZED, timeout=STARTS_S) as http:
        made = (await http.post(f"{url}/api/kernels", json={"name": "python3"})).raise_for_status().json()
    path = f"/api/kernels/{made['id']}/channels"
    return await websocket_connect(HTTPRequest(f"ws{url.removeprefix('http')}{path}", headers=AUTHORIZED))


async def run(socket: WebSocketClientConnection, code: str) -> None:
    asked = uuid.uuid4().hex
    header = {"msg_id": asked, "msg_type": "execute_request", "session": asked, "username": "", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    await socket.write_message(
        json_encode({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []})
    )


async def test_server_tells_that_a_cell_runs_and_is_not_stopped_for_a_guaranteed_share(site: Site) -> None:
    """Two servers borrow all that `research` is guaranteed; the one that is a real server runs a cell."""
    async with AsyncClient(site.url, HUB) as hub:
        await hub.apply_profile(ProfileRequest(name="wide", groups=("quant",), queue="quant", cpus=4, preemptible=True))
        busy, idle = [await started(hub, name) for name in ("busy", "idle")]

        async def is_wanted(job_id: str) -> bool:
            return (await hub.renew(job_id, RenewRequest(phase="running"))).is_wanted

        async def is_idle_stopped() -> bool:
            return not await is_wanted(idle)

        async def has_reported() -> bool:
            return bool(active_at)

        active_at = site.service.state.usage.active_at
        async with jupyter(site, busy) as url:
            socket = await kernel(url)
            await asyncio.sleep(3.0)
            assert active_at == {}, "a kernel without a cell is told as a running cell"

            await run(socket, "import time; time.sleep(600)")
            await until(has_reported)
            assert list(active_at) == [busy]

            await hub.submit(JobRequest(name="claim", queue="research", pods=(PodRequest(cpus=1),), command=("true",)))
            await until(is_idle_stopped)
            assert await is_wanted(busy)
            socket.close()


async def started(hub: AsyncClient, name: str) -> str:
    asked = NotebookRequest(owner="ann", groups=("quant",), server=name, profile="wide")
    job_id = (await hub.notebook(asked)).job.id

    async def is_admitted() -> bool:
        return (await hub.renew(job_id, RenewRequest(phase="waiting"))).is_admitted

    await until(is_admitted)
    await hub.renew(job_id, RenewRequest(phase="running"))
    return job_id
