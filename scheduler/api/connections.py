"""Connections of a listening process: how many there may be, and how long one may take without a request.

Whoever reaches the port can open connections, also without a token. When there are as many as fit, the one that has been without a
request for longest makes room, so that whoever asks for something is heard. Uvicorn's own limits count requests, not connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tuttilab.scheduler.runtime.file_limit import MOST_FILES
from tuttilab.scheduler.runtime.seldom import SeldomLog

HEAD_S: Final = 10.0
"""From the connection, or the first byte of a further request, until the request's head is whole; and from an answer until the rest
of a body that nobody read has come."""
HEAD_BYTES: Final = 64 * 1024
OWN_FILES: Final = 512
"""Files that are kept free of connections: the database, files of pods, artifacts, connections to others."""

ACCEPTED_AT_ONCE: Final = 4
"""Connections that one turn of the event loop accepts; they are counted only in a later one, so more would take the last files."""
BACKLOG: Final = 2048

log = logging.getLogger(__name__)


def most_connections(file_limit: int) -> int:
    """Of a process that may open so many files: half of few, all but `OWN_FILES` of many."""
    return max(file_limit // 2, file_limit - OWN_FILES)


class Connections:
    """The open connections of this process, and those of them that have no request in progress, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._idle: dict[GuardedProtocol, None] = {}
        self._full = SeldomLog(log)

    def opened(self, connection: GuardedProtocol) -> None:
        self._count += 1
        self._idle[connection] = None
        if self._count <= self._most:
            return
        self._full.warning(
            f"{self._most} connections are open, as many as the limit of open files leaves room for (ulimit -n); "
            "those without a request are closed"
        )
        # The new one itself when all others are at work.
        oldest = next(iter(self._idle))
        del self._idle[oldest]
        oldest.give_way()

    def closed(self, connection: GuardedProtocol) -> None:
        self._count -= 1
        self._idle.pop(connection, None)

    def begins_request(self, connection: GuardedProtocol) -> None:
        self._idle.pop(connection, None)

    def has_answered(self, connection: GuardedProtocol) -> None:
        self._idle[connection] = None


@lru_cache(maxsize=1)
def of_this_process() -> Connections:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Connections(most_connections(MOST_FILES if soft == resource.RLIM_INFINITY else soft))


class GuardedServer(uvicorn.Server):
    """Uvicorn's server with our limits, quiet and without handlers of signals; they belong to whoever started it.

    With `ACCEPTED_AT_ONCE` as its ``backlog``, of which asyncio makes the length of the socket's queue too.
    """

    def __init__(self, app: ASGIApp, *, drain_s: int | None = None) -> None:
        """``drain_s``: how long open requests are waited for at the end; None for as long as they take."""
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            backlog=ACCEPTED_AT_ONCE,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=drain_s,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn would raise a signal again at its end, and the exit code would say "killed"."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(BACKLOG)


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with a deadline for a head, and for what is left of a body once its request is answered."""

    # Any: uvicorn's own arguments.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known = of_this_process()
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._start_deadline()
        self._known.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        self._known.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._start_deadline()
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse("431 Request Header Fields Too Large", f"The head of a request has at most {HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._end_deadline()
        self._known.begins_request(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0
        self._end_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        self._known.has_answered(self)
        if not self._is_in_head:
            self._start_deadline()

    def give_way(self) -> None:
        """Close, because there are too many connections and this one has no request."""
        self._refuse("503 Service Unavailable", "There are too many connections; try again in a moment.")

    def _refuse(self, status: str, sentence: str) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(sentence)}\r\n"
        self.transport.write(f"{head}retry-after: 1\r\nconnection: close\r\n\r\n{sentence}".encode())
        self.transport.close()

    def _start_deadline(self) -> None:
        self._end_deadline()
        self._deadline = self.loop.call_later(HEAD_S, self._close_late)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
