"""The hub's connections to the control plane behave as httpx's own: the same answers, the same errors in the same cases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.ports import free_port
from tuttilab.scheduler.client.transport import MakeTransport, Transport
from tuttilab.scheduler.domain.errors import NotFound, Unavailable
from tuttilab.spawner.http import HubTransport

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
CONNECTIONS = pytest.mark.parametrize("connections", [None, HubTransport], ids=["httpx", "aiohttp"])


class Served:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.heads: list[bytes] = []
        self.connections = 0


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[Served]:
    """One that reads requests and lets ``answer`` write what it likes."""
    found = Served(0)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
                body = await reader.readexactly(length[0] if length else 0)
                found.heads.append(head)
                await answer(body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


@asynccontextmanager
async def client(url: str, connections: MakeTransport | None, timeout_s: float = 20.0) -> AsyncIterator[Transport]:
    made = Transport(url, "a-token", timeout_s=timeout_s, connections=connections)
    try:
        yield made
    finally:
        await made.close()


def response(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@CONNECTIONS
async def test_what_is_sent_and_answered(connections: MakeTransport | None) -> None:
    async def echo(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(body * 2))

    async with served(echo) as site, client(site.url, connections) as transport:
        for number in range(3):
            got = await transport.send("POST", "/a b", params={"wait": 1.5}, body=b"{%d}" % number, headers={"X-One": "1"})
            assert got == b"{%d}{%d}" % (number, number)

    assert site.connections == 1, "one connection for all"
    first = site.heads[0].decode().lower()
    assert first.startswith("post /api/v1/a%20b?wait=1.5 http/1.1\r\n")
    for header in ("authorization: bearer a-token", "x-one: 1", "content-length: 3"):
        assert f"\r\n{header}\r\n" in first
    assert first.count("\r\nuser-agent:") == first.count("\r\naccept:") == 1


@CONNECTIONS
async def test_a_large_answer_is_whole(connections: MakeTransport | None) -> None:
    async def large(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"x" * 3_000_000))
        await writer.drain()

    async with served(large) as site, client(site.url, connections) as transport:
        assert len(await transport.send("GET", "/jobs")) == 3_000_000


@CONNECTIONS
async def test_a_refusal_is_its_class(connections: MakeTransport | None) -> None:
    async def refuse(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b'{"type": "not-found", "title": "t", "status": 404, "detail": "no such server"}', "404 Not Found"))

    async with served(refuse) as site, client(site.url, connections) as transport:
        with pytest.raises(NotFound, match="no such server"):
            await transport.send("GET", "/notebooks/1")


@CONNECTIONS
async def test_nobody_listens(connections: MakeTransport | None) -> None:
    async with client(f"http://127.0.0.1:{free_port()}", connections) as transport:
        with pytest.raises(Unavailable, match="Nobody answers at"):
            await transport.send("POST", "/notebooks", body=b"{}")


@CONNECTIONS
async def test_one_that_closes_without_an_answer_may_have_done_it(connections: MakeTransport | None) -> None:
    async def close(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with served(close) as site, client(site.url, connections) as transport:
        with pytest.raises(Unavailable, match=r"The connection to .* broke"):
            await transport.send("POST", "/notebooks", body=b"{}")

    assert len(site.heads) == 1, "not sent twice by itself"


@CONNECTIONS
async def test_one_that_breaks_off_in_the_midst_of_its_answer(connections: MakeTransport | None) -> None:
    async def half(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"x" * 100)[:-50])
        await writer.drain()
        writer.close()

    async with served(half) as site, client(site.url, connections) as transport:
        with pytest.raises(Unavailable, match=r"The connection to .* broke"):
            await transport.send("POST", "/notebooks", body=b"{}")


@CONNECTIONS
async def test_one_that_never_answers(connections: MakeTransport | None) -> None:
    async def wait(_: bytes, writer: asyncio.StreamWriter) -> None:
        del writer

    async with served(wait) as site, client(site.url, connections, timeout_s=1.0) as transport:
        with pytest.raises(Unavailable, match="did not answer within 1 s"):
            await transport.send("POST", "/notebooks", body=b"{}")


@CONNECTIONS
async def test_one_that_closed_an_unused_connection_is_asked_by_another(connections: MakeTransport | None) -> None:
    async def once(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"{}"))
        await writer.drain()
        writer.close()

    async with served(once) as site, client(site.url, connections) as transport:
        for _ in range(3):
            assert await transport.send("POST", "/notebooks", body=b"{}") == b"{}"
            await asyncio.sleep(0.2)  # the end of the connection has come

    assert site.connections == 3


async def test_a_cancelled_request_leaves_its_connection_to_nobody() -> None:
    """What it waits for would be the answer to another's request."""
    asked = asyncio.Event()

    async def slow(body: bytes, writer: asyncio.StreamWriter) -> None:
        if body == b"slow":
            asked.set()
            await asyncio.sleep(0.3)
        writer.write(response(body))

    async with served(slow) as site, client(site.url, HubTransport) as transport:
        task = asyncio.create_task(transport.send("POST", "/a", body=b"slow"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await transport.send("POST", "/a", body=b"next") == b"next"


async def test_the_environments_proxy_is_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")

    async def ok(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"{}"))

    async with served(ok) as site, client(site.url, HubTransport) as transport:
        assert await transport.send("GET", "/jobs") == b"{}"
