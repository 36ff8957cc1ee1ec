"""A control plane with two users, a Spark proxy in a process of its own, and gRPC servers that speak Spark Connect as sessions."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from pyspark.sql.connect.proto import base_pb2 as messages
from pyspark.sql.connect.proto import base_pb2_grpc as services

from tests.integration.api.conftest import Site, Tokens, served
from tests.ports import free_port
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.fake import _FakePod
from tuttilab.scheduler.domain.requests import SparkRequest, Who
from tuttilab.scheduler.spark.proxy.process import TOKEN_FILE

USERS = {"of-ann": Who("ann", ("research",)), "of-eve": Who("eve", ("research",)), "of-vic": Who("vic", (), is_viewer=True)}
DETAILS = b"\x08\x0d\x12\x05oh no"


@dataclass
class Connect(services.SparkConnectServiceServicer):
    """Answers as Spark Connect does, and keeps what it was asked."""

    asked: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    size: int = 10

    def _keep(self, request: Any, context: Any) -> None:  # Any: generated without types
        self.asked.append((request, dict(context.invocation_metadata())))

    async def Config(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        context.set_trailing_metadata((("set-cookie", "a=b"), ("x-secret", "s")))
        return messages.ConfigResponse(session_id=request.session_id, warnings=["it is you"])

    async def AnalyzePlan(self, request: Any, context: Any) -> Any:
        self._keep(request, context)
        context.set_trailing_metadata((("grpc-status-details-bin", DETAILS), ("set-cookie", "a=b")))
        await context.abort(grpc.StatusCode.INTERNAL, "oh no")

    async def ExecutePlan(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._keep(request, context)
        yield messages.ExecutePlanResponse(session_id=request.session_id, response_id="1")
        self.begun.release()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield messages.ExecutePlanResponse(session_id="x" * self.size, response_id="2")

    async def AddArtifacts(self, requests: Any, context: Any) -> Any:
        async for request in requests:
            self._keep(request, context)
        return messages.AddArtifactsResponse(session_id="s")


@dataclass
class Sessions:
    """What a test drives: the control plane, the proxy's address, and each user's client and server."""

    site: Site
    target: str
    metrics: str
    proxy: subprocess.Popen[bytes]
    servers: list[grpc.aio.Server] = field(default_factory=list)

    async def session(self, token: str, name: str = "default") -> tuple[str, Connect]:
        """A session of the user of this token, its job's id and its server."""
        async with AsyncClient(self.site.url, token) as client:
            connect, server = Connect(), grpc.aio.server()
            services.add_SparkConnectServiceServicer_to_server(connect, server)  # type: ignore[no-untyped-call]  # generated
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            self.servers.append(server)
            self._pods_offer(f"127.0.0.1:{port}")
            job_id = (await client.spark_start(SparkRequest(name=name))).job_id
            async with asyncio.timeout(60):
                while not next(view for view in await client.spark_sessions() if view.name == name).is_ready:  # noqa: ASYNC110  as elsewhere
                    await asyncio.sleep(0.02)
        return job_id, connect

    async def unready(self, token: str, name: str) -> str:
        """The job of a session that does not come up."""
        async with AsyncClient(self.site.url, token) as client:
            self._pods_offer("")
            return (await client.spark_start(SparkRequest(name=name))).job_id

    def _pods_offer(self, address: str) -> None:
        """The next pod is a session whose server listens there; nowhere without an address."""
        cluster = self.site.cluster
        create = type(cluster)._create

        def offering(plan: LaunchPlan, pod: PodPlan) -> _FakePod:
            made = create(cluster, plan, pod)
            made.steps = deque([*([("offer", "connect", address)] if address else []), ("sleep", "1000000")])
            return made

        cluster._create = offering  # type: ignore[method-assign]  # what its jobs do is read from their command, which is fixed here

    def secret(self, job_id: str) -> str:
        attempt = self.site.service.state.live_attempt(job_id)
        assert attempt is not None
        return self.site.service.secrets.spark_token(job_id, attempt.number)

    def stub(
        self, token: str, *more: tuple[str, str], options: Sequence[tuple[str, int]] = ()
    ) -> tuple[Any, list[tuple[str, str]]]:
        """A client of the proxy and its metadata. Any: generated without types."""
        channel = grpc.aio.insecure_channel(self.target, options=list(options))
        stub = services.SparkConnectServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        return stub, [("authorization", f"Bearer {token}"), *more]


def started(*options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tuttilab.scheduler.cli", "spark-proxy", *options], stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    async with served(Site(tmp_path, Tokens(USERS))) as site:
        token = tmp_path / TOKEN_FILE
        token.touch(mode=0o600)
        token.write_text(site.service.secrets.proxy_token())
        port, metrics = free_port(), free_port()
        process = started(
            "--url", site.url, "--token-file", str(token), "--listen", f"127.0.0.1:{port}", "--metrics", f"127.0.0.1:{metrics}"
        )  # fmt: skip
        found = Sessions(site, f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics", process)
        try:
            channel = grpc.aio.insecure_channel(found.target)
            async with asyncio.timeout(120):
                await channel.channel_ready()
            await channel.close()
            yield found
        finally:
            end(process)
            for server in found.servers:
                with contextlib.suppress(Exception):
                    await server.stop(None)


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes() + b"\0" + Path(f"/proc/{pid}/cmdline").read_bytes()
