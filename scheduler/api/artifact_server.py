"""Serves the bytes of big artifacts: `python -m tuttilab.scheduler.api.artifact_server`, a child of the control plane.

It has no database and knows no users: a ticket says what its bearer may do. On its standard input come its settings, a line of
JSON, then an answer to each note that it writes to its standard output: an artifact is acknowledged when the control plane has
committed its row. When the input ends, the control plane is gone, and so is this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tuttilab.scheduler import wire
from tuttilab.scheduler.api.problems import response_of
from tuttilab.scheduler.api.receiving import receive
from tuttilab.scheduler.api.tickets import Ticket
from tuttilab.scheduler.errors import BadInput, StoreError, TuttiError
from tuttilab.scheduler.store.blobs import Blobs

PATH: Final = "/artifacts/{artifact_id}"


class ControlPlane:
    """The other end of the pipes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str | None]] = {}

    async def received(self, artifact_id: str, owner: str, size: int) -> None:
        """Returns after the commit of the artifact's row. Raises StoreError when there was none."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        note = {"number": number, "artifact": artifact_id, "owner": owner, "size": size}
        # A line is shorter than what a pipe takes in one piece.
        os.write(sys.stdout.fileno(), json.dumps(note).encode() + b"\n")
        refused = await answer
        if refused is not None:
            raise StoreError(refused)

    async def listen(self) -> None:
        """Until the control plane is gone."""
        while line := await self._reader.readline():
            told = json.loads(line)
            answer = self._waiting.pop(told["number"], None)
            if answer is not None and not answer.done():
                answer.set_result(told["error"])


def application(blobs: Blobs, key: bytes, control_plane: ControlPlane) -> Starlette:
    def allowed(request: Request) -> Ticket:
        query = request.query_params
        until = query.get("until", "")
        if not until.isdecimal() or len(until) > 12:
            raise BadInput(f"until: {until[:40]!r} is no time; use the URL that the service gave.")
        method = "GET" if request.method == "HEAD" else request.method
        ticket = Ticket(method, request.path_params["artifact_id"], query.get("owner", ""), int(until))
        ticket.check(key, query.get("mac", ""), time.time())
        return ticket

    async def put(request: Request) -> Response:
        ticket = allowed(request)
        size = await receive(blobs, ticket.artifact_id, request)
        await control_plane.received(ticket.artifact_id, ticket.owner, size)
        return Response(wire.to_json(wire.ArtifactView(id=ticket.artifact_id, size=size)), 201, media_type="application/json")

    async def get(request: Request) -> Response:
        ticket = allowed(request)
        path = blobs.find(ticket.artifact_id)
        kept = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        name = ticket.artifact_id
        return FileResponse(path, 200, kept, "application/octet-stream", filename=name, content_disposition_type="attachment")

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, TuttiError)
        return response_of(error)

    async def left(_request: Request, _error: Exception) -> Response:
        return response_of(BadInput("The body ended before it was whole; send it again."))

    routes = [Route(PATH, put, methods=["PUT"]), Route(PATH, get, methods=["GET"])]
    return Starlette(routes=routes, exception_handlers={TuttiError: refused, ClientDisconnect: left})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C is for the control plane; this process ends with it."""
        yield


async def serve(listening: socket.socket) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    settings: dict[str, Any] = json.loads(await reader.readline())
    control_plane = ControlPlane(reader)
    blobs = Blobs(Path(settings["folder"]), settings["limit"])
    app = application(blobs, bytes.fromhex(settings["key"]), control_plane)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", proxy_headers=False, server_header=False)
    serving = asyncio.create_task(_Server(config).serve(sockets=[listening]))
    await control_plane.listen()
    # What was under way has nobody to be acknowledged by.
    serving.cancel()


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    asyncio.run(serve(listening))
    # Threads may still write a file that nobody will name.
    os._exit(0)


if __name__ == "__main__":
    main()
