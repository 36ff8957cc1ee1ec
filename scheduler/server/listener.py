"""Binds the port and serves an ASGI application on it; while it serves, clients find the process in its state folder."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.discovery import LastRun, Runtime
from tuttilab.scheduler.server.readiness import ReadinessPipe

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

DRAIN_REQUESTS_S: Final = 2
"""How long requests in flight may take when the process ends; long polls are cut off then."""

PORT_KEY: Final = "listen.port"

log = logging.getLogger(__name__)


def bind(host: str, port: int, key: str = PORT_KEY) -> socket.socket:
    """A listening socket, configured by ``key``. Raises EnvironmentProblem that names the port when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio does not turn Nagle's algorithm off, which costs 40 ms an answer.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # After a restart the port still has connections in TIME_WAIT.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # Two sockets may be bound with SO_REUSEADDR; only one may listen.
        bound.listen(2048)
    except OSError as error:
        bound.close()
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        free = " (0: any that is free)" if key == PORT_KEY else ""
        raise EnvironmentProblem(
            f"Port {port} of {host} {why}; end what listens there, or set {key} to another one{free}."
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(app: ASGIApp, started: asyncio.Event) -> uvicorn.Server:
    """Sets ``started`` once it serves."""
    from tuttilab.scheduler.api.connections import GuardedServer

    class Server(GuardedServer):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    return Server(app, drain_s=DRAIN_REQUESTS_S)


async def serve_app(app: ASGIApp, bound: socket.socket, runtime: Runtime, readiness: ReadinessPipe, end: Awaitable[object]) -> None:
    """Serve until ``end`` is done or the server ends by itself; publishes ``runtime`` meanwhile."""
    started = asyncio.Event()
    server = _server(app, started)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    await asyncio.wait({serving, asyncio.ensure_future(started.wait())}, return_when=asyncio.FIRST_COMPLETED)
    discovery.write_last(Path(runtime.state_dir), LastRun(config=runtime.config, is_site=runtime.is_site))
    discovery.write_runtime(runtime)
    log.info("ready: %s, pid %d", runtime.url, runtime.pid)
    readiness.ready()
    ending = asyncio.ensure_future(end)
    await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
    unpublish(runtime)
    ending.cancel()
    server.should_exit = True
    await serving


@contextlib.asynccontextmanager
async def serving_pods(app: ASGIApp, address: tuple[str, int] | None) -> AsyncIterator[None]:
    """While it is entered, ``app`` is served at ``address`` too. Raises EnvironmentProblem when the port is taken."""
    if address is None:
        yield
        return
    bound = bind(*address, key="listen.pods")
    server = _server(app, asyncio.Event())
    serving = asyncio.create_task(server.serve(sockets=[bound]), name="pods")
    log.info("pods are served at %s", url_of(bound))
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        bound.close()


def unpublish(runtime: Runtime) -> None:
    """Delete the files by which clients find this process; those of a successor stay."""
    state = Path(runtime.state_dir)
    found = discovery.find(state).runtime
    if found is not None and found.process == runtime.process:
        discovery.runtime_file(state).unlink(missing_ok=True)
        discovery.token_file(state).unlink(missing_ok=True)
