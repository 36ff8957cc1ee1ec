"""A TLS proxy before an API server, in a thread of its own, which asks its user what to do with each request and each watch event.

`tests/kube/faults.py` makes faults of it. HTTP/1.1 by h11; a connection of its own to the server for each request.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import h11

from tests.kube.control_plane import ControlPlane
from tests.ports import free_port

T = TypeVar("T")
CERTIFICATE = "proxy-server"
LIMIT_S = 120.0
CHUNK = 65_536
WATCH = re.compile(r"[?&]watch=(1|true)\b", re.IGNORECASE)
OF_ONE_CONNECTION = {b"connection", b"keep-alive", b"host", b"upgrade"}
OURS = {b"content-length", b"transfer-encoding", b"accept-encoding"}
"""Of a request: its body goes on in one piece, and answers come uncompressed, so that lines can be seen."""
Broken = (OSError, h11.ProtocolError, asyncio.IncompleteReadError)


class Watch:
    """One that goes through. ``held``: lines that were kept back from it."""

    def __init__(self, writer: asyncio.StreamWriter, http: h11.Connection) -> None:
        self._writer, self._http = writer, http
        self.held: list[bytes] = []

    def send(self, line: bytes) -> None:
        self._write(h11.Data(data=line))

    def release(self) -> None:
        held, self.held = self.held, []
        for line in held:
            self.send(line)

    def end(self) -> None:
        """As the server ends one."""
        self._write(h11.EndOfMessage())
        self._writer.close()

    def abort(self) -> None:
        """As a network does."""
        self._writer.transport.abort()

    def _write(self, event: h11.Data | h11.EndOfMessage) -> None:
        if not self._writer.is_closing():
            self._writer.write(self._http.send(event) or b"")


class Exchange:
    """One request of a client, and the ways to treat it."""

    def __init__(
        self,
        proxy: Proxy,
        request: h11.Request,
        body: bytes,
        http: h11.Connection,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.method, self.target = request.method.decode(), request.target.decode()
        self._proxy, self._request, self._body, self._http = proxy, request, body, http
        self._reader, self._writer = streams

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Without asking the server."""
        described = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers.items()]
        for event in (h11.Response(status_code=status, headers=described), h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()

    async def ask(self) -> None:
        """The server does it; its answer is thrown away."""
        async with asyncio.timeout(LIMIT_S):
            upstream = await self._proxy.open_upstream()
            try:
                await upstream.request(self._request, self._body)
                while not isinstance(await upstream.next_event(), h11.EndOfMessage):
                    pass
            finally:
                upstream.close()

    async def pass_on(self) -> int:
        """The status; a watch's events go through the proxy's user."""
        upstream = await self._proxy.open_upstream()
        watch: Watch | None = None
        try:
            await upstream.request(self._request, self._body)
            response = await upstream.next_event()
            assert isinstance(response, h11.Response)
            headers = [(name, value) for name, value in response.headers if name not in OF_ONE_CONNECTION]
            self._writer.write(self._http.send(h11.Response(status_code=response.status_code, headers=headers)) or b"")
            if response.status_code == 200 and self.method == "GET" and WATCH.search(self.target):
                watch = Watch(self._writer, self._http)
                self._proxy.watches.add(watch)
                await self._lines(upstream, watch)
            else:
                while isinstance(event := await upstream.next_event(), h11.Data):
                    self._writer.write(self._http.send(h11.Data(data=bytes(event.data))) or b"")
                    await self._writer.drain()
                self._writer.write(self._http.send(h11.EndOfMessage()) or b"")
                await self._writer.drain()
            return response.status_code
        finally:
            if watch is not None:
                self._proxy.watches.discard(watch)
            upstream.close()

    async def client_is_gone(self) -> None:
        async with asyncio.timeout(10 * LIMIT_S):
            while await self._reader.read(CHUNK):
                pass

    def abort(self) -> None:
        self._writer.transport.abort()

    async def _lines(self, upstream: Upstream, watch: Watch) -> None:
        begun = b""
        gone = asyncio.ensure_future(self._reader.read(1))
        try:
            while not self._writer.is_closing():
                coming = asyncio.ensure_future(upstream.next_event())
                await asyncio.wait({coming, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    return
                event = coming.result()
                if not isinstance(event, h11.Data):
                    watch.release()
                    watch.end()
                    return
                *lines, begun = (begun + bytes(event.data)).split(b"\n")
                for line in lines:
                    self._proxy.on_event(watch, line + b"\n")
        finally:
            gone.cancel()


class Upstream:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host
        self._http = h11.Connection(h11.CLIENT)

    async def request(self, request: h11.Request, body: bytes) -> None:
        kept = [(name, value) for name, value in request.headers if name not in OF_ONE_CONNECTION | OURS]
        headers = [*kept, (b"host", self._host.encode()), (b"connection", b"close"), (b"content-length", str(len(body)).encode())]
        events = (
            h11.Request(method=request.method, target=request.target, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()

    async def next_event(self) -> object:
        return await _next_event(self._http, self._reader)

    def close(self) -> None:
        self._writer.transport.abort()


class Proxy:
    """``on_exchange`` treats each request, ``on_event`` each line of a watch; both run in the proxy's own thread."""

    def __init__(
        self,
        control_plane: ControlPlane,
        on_exchange: Callable[[Exchange], Awaitable[None]],
        on_event: Callable[[Watch, bytes], None],
    ) -> None:
        self._address, self._upstream_port = control_plane.address, control_plane.port
        self._on_exchange, self.on_event = on_exchange, on_event
        self.watches: set[Watch] = set()
        pki = control_plane.authority.folder
        control_plane.authority.issue(CERTIFICATE, CERTIFICATE, hosts=[self._address])
        self._as_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._as_server.load_cert_chain(pki / f"{CERTIFICATE}.crt", pki / f"{CERTIFICATE}.key")
        self._as_client = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        port = free_port(self._address)
        self.url = f"https://{self._address}:{port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-proxy", daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._serve, self._address, port, ssl=self._as_server)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(LIMIT_S)

    def do(self, act: Callable[[], T]) -> T:
        """Run it in the proxy's thread, between two events."""

        async def run() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(LIMIT_S)

    async def open_upstream(self) -> Upstream:
        streams = await asyncio.open_connection(self._address, self._upstream_port, ssl=self._as_client)
        return Upstream(*streams, f"{self._address}:{self._upstream_port}")

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(LIMIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        try:
            while True:
                request = await _next_event(http, reader)
                if not isinstance(request, h11.Request):
                    return
                body = b""
                while isinstance(event := await _next_event(http, reader), h11.Data):
                    body += bytes(event.data)
                await self._on_exchange(Exchange(self, request, body, http, (reader, writer)))
                if http.our_state is not h11.DONE or writer.is_closing():
                    return
                http.start_next_cycle()
        except (*Broken, asyncio.CancelledError):
            return  # the end of the connection, or of the proxy
        finally:
            writer.transport.abort() if http.our_state is h11.SEND_BODY else writer.close()


async def _next_event(http: h11.Connection, reader: asyncio.StreamReader) -> object:
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK))
        else:
            return event
