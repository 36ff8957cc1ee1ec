"""The real service with its real store and a fake cluster, served by uvicorn on loopback."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from tuttilab.scheduler.api import create_app
from tuttilab.scheduler.api.artifacts.process import ArtifactProcess
from tuttilab.scheduler.api.artifacts.routes import blobs_of, commit_artifact
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.domain.errors import Unauthenticated
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.identity.auth import Authenticator, LocalAuthenticator
from tuttilab.scheduler.server.config_reload import Reload
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.sql import SqlStore

TOKEN = "token-of-ana"
CONFIG: dict[str, Any] = {
    "clusters": [
        {
            "name": "here",
            "kind": "fake",
            "nodes": [
                {"name": "a", "cpus": 4, "memory": "8Gi", "resources": {"nvidia.com/gpu": 2}, "labels": {"gpu-model": "a100"}},
                {"name": "b", "cpus": 4, "memory": "8Gi"},
            ],
        }
    ],
    "queues": [
        {"name": "root", "max": {"cpu": 8}},
        {"name": "research", "parent": "root", "weight": 2, "guaranteed": {"cpu": 2}, "max": {"cpu": 6}},
        {"name": "quant", "parent": "root", "groups": ["quant"]},
    ],
    "driver_ports": "30100-30299",
    "defaults": {"queue": "research"},
}


class Tokens:
    """An authenticator for several users: token to identity, as a hub would answer."""

    def __init__(self, users: dict[str, Who]) -> None:
        self._users = users

    async def who(self, token: str) -> Who:
        if token not in self._users:
            raise Unauthenticated("This token is not known.")
        return self._users[token]


@dataclass
class Site:
    """A service that can be served, stopped and served again from the same folder."""

    folder: Path
    authenticator: Authenticator = field(default_factory=lambda: LocalAuthenticator(TOKEN, "ana"))
    limits: Limits = field(default_factory=Limits)
    port: int = 0
    shut_down: Callable[[bool], None] | None = None
    reload: Reload | None = None
    has_artifact_process: bool = False
    artifacts: ArtifactProcess | None = None
    service: Service = field(init=False)
    cluster: FakeCluster = field(init=False)
    _server: uvicorn.Server = field(init=False)
    _serving: "asyncio.Task[None]" = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        config = replace(parse_config(CONFIG, self.folder, "test"), limits=self.limits)
        nodes = config.clusters[0].nodes
        assert nodes is not None
        self.cluster = FakeCluster("here", nodes)
        self.service = Service(config, SqlStore(config.store.url), {"here": self.cluster}, state_dir=self.folder)
        await self.service.start()
        # With the protocol named asyncio turns Nagle's delay off for accepted connections; without it every answer takes 40 ms.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        if self.has_artifact_process:
            self.artifacts = ArtifactProcess(blobs_of(self.service.config), "127.0.0.1", self.limits.ticket_s)
            self.artifacts.set_committer(partial(commit_artifact, self.service))
        app = create_app(self.service, self.authenticator, shut_down=self.shut_down, reload=self.reload, artifacts=self.artifacts)
        settings = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(settings)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # signals are pytest's
        self._serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        while not self._server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._serving
        if self.artifacts is not None:
            await self.artifacts.close()
        await self.service.stop()


class Losing(httpx.AsyncHTTPTransport):
    """A transport that delivers every request and drops the responses to the first ``losses`` POSTs."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses
        self.delivered = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.method == "POST":
            self.delivered += 1
            if self.losses:
                self.losses -= 1
                await response.aclose()
                raise httpx.ReadError("the answer was lost", request=request)
        return response

    def carry(self, client: AsyncClient) -> None:
        client._transport._http = httpx.AsyncClient(transport=self)


@contextlib.asynccontextmanager
async def served(site: Site) -> AsyncIterator[Site]:
    await site.start()
    try:
        yield site
    finally:
        await site.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path)) as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(site.url, TOKEN) as client:
        yield client
