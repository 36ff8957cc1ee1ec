"""Serves the bytes of big artifacts: `python -m tuttilab.scheduler.api.artifacts.server`, a child of the control plane.

It has no database and authenticates no users: a ticket states what its bearer may do. It reads its settings, a line of JSON, from
standard input. For each upload it writes a notice to standard output, and acknowledges the upload when the reply on standard input
says that the control plane has committed the artifact's row. It ends with the control plane, when its input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tuttilab.scheduler.api.artifacts.tickets import Ticket
from tuttilab.scheduler.api.artifacts.uploads import receive
from tuttilab.scheduler.api.connections import GuardedServer
from tuttilab.scheduler.api.problems import response_of
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput, StoreError, TuttiError
from tuttilab.scheduler.store.blobs import Blobs

PATH: Final = "/artifacts/{artifact_id}"


class ControlPlane:
    """The control plane at the other end of the pipes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[str | None]] = {}

    async def commit_artifact(self, artifact_id: str, owner: str, size: int) -> None:
        """Return after the artifact's row is committed. Raises StoreError when it was not."""
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        notice = {"number": number, "artifact": artifact_id, "owner": owner, "size": size}
        # A line is shorter than PIPE_BUF, so the write is atomic.
        os.write(sys.stdout.fileno(), json.dumps(notice).encode() + b"\n")
        error = await reply
        if error is not None:
            raise StoreError(error)

    async def read_replies(self) -> None:
        """Until the control plane has ended."""
        while line := await self._reader.readline():
            message = json.loads(line)
            reply = self._replies.pop(message["number"], None)
            if reply is not None and not reply.done():
                reply.set_result(message["error"])


def application(blobs: Blobs, key: bytes, control_plane: ControlPlane) -> Starlette:
    def checked_ticket(request: Request) -> Ticket:
        query = request.query_params
        until = query.get("until", "")
        if not until.isdecimal() or len(until) > 12:
            raise BadInput(f"until: {until[:40]!r} is no time; use the URL that the service gave.")
        method = "GET" if request.method == "HEAD" else request.method
        ticket = Ticket(method, request.path_params["artifact_id"], query.get("owner", ""), int(until))
        ticket.check(key, query.get("mac", ""), time.time())
        return ticket

    async def put(request: Request) -> Response:
        ticket = checked_ticket(request)
        size = await receive(blobs, ticket.artifact_id, request)
        await control_plane.commit_artifact(ticket.artifact_id, ticket.owner, size)
        return Response(wire.to_json(wire.ArtifactView(id=ticket.artifact_id, size=size)), 201, media_type="application/json")

    async def get(request: Request) -> Response:
        ticket = checked_ticket(request)
        path = blobs.find(ticket.artifact_id)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        name = ticket.artifact_id
        return FileResponse(path, 200, headers, "application/octet-stream", filename=name, content_disposition_type="attachment")

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, TuttiError)
        return response_of(error)

    async def disconnected(_request: Request, _error: Exception) -> Response:
        return response_of(BadInput("The body ended before it was whole; send it again."))

    routes = [Route(PATH, put, methods=["PUT"]), Route(PATH, get, methods=["GET"])]
    return Starlette(routes=routes, exception_handlers={TuttiError: refused, ClientDisconnect: disconnected})


async def serve(bound: socket.socket) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    settings: dict[str, Any] = json.loads(await reader.readline())
    control_plane = ControlPlane(reader)
    blobs = Blobs(Path(settings["folder"]), settings["limit"])
    app = application(blobs, bytes.fromhex(settings["key"]), control_plane)
    serving = asyncio.create_task(GuardedServer(app).serve(sockets=[bound]))
    await control_plane.read_replies()
    # Uploads in flight cannot be acknowledged any more.
    serving.cancel()


def main() -> None:
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))
    # Does not wait for threads that still write the file of an unfinished upload.
    os._exit(0)


if __name__ == "__main__":
    main()
