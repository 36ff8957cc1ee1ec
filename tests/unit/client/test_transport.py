"""How the client connects, and how long it waits for an answer."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator

import pytest

from tuttilab.scheduler.client import transport
from tuttilab.scheduler.client.transport import Transport
from tuttilab.scheduler.domain.errors import Unavailable


@pytest.mark.parametrize(
    ("url", "verified"), [("https://tutti.example", ssl.CERT_REQUIRED), ("http://127.0.0.1:8080", ssl.CERT_NONE)]
)
def test_certificates_are_verified_wherever_there_is_tls(url: str, verified: ssl.VerifyMode) -> None:
    http = Transport(url, "token", timeout_s=1.0)._client()

    context = http._transport._pool._ssl_context  # type: ignore[attr-defined]  # httpx has no public way to it
    assert context.verify_mode == verified


LIMIT_S = 1.0


class Halted:
    """A service that takes requests and, until it is told to, answers none."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.goes_on = asyncio.Event()
        self.first = b""
        """What it answers before it halts."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.first:
            writer.write(self.first)
            self.first = b""
            writer.close()
            return
        await self.goes_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()


@pytest.fixture
async def halted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Halted, Transport, list[str]]]:
    """It, who asks it, and what the user is told."""
    monkeypatch.setattr(transport, "SILENCE_S", 0.2)
    monkeypatch.setattr(transport, "LEAST_S", 0.1)
    monkeypatch.delenv("TUTTILAB_URL", raising=False)
    service, told = Halted(), list[str]()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sender = Transport(url, "token", timeout_s=LIMIT_S, say=told.append)
    yield service, sender, told
    service.goes_on.set()
    await sender.close()
    server.close()


async def test_a_halted_service_is_told_of_at_once_and_waited_for_no_longer_than_one_answer(
    halted: tuple[Halted, Transport, list[str]],
) -> None:
    service, sender, told = halted
    began = time.monotonic()

    with pytest.raises(Unavailable, match=f"did not answer within {LIMIT_S:g} s.*may still be done, so look first"):
        await sender.send("POST", "/jobs", headers={"Idempotency-Key": "one"}, may_repeat=True)

    assert LIMIT_S <= time.monotonic() - began < 5 * LIMIT_S
    assert told == [
        f"The control plane at {sender.url} has not answered for 0.2 s: it may be overloaded or halted. "
        "It is waited for 1 s more at most; Ctrl-C ends the wait."
    ]
    # Not asked again: when it goes on it finds the one request.
    assert len(service.heads) == 1


async def test_a_service_that_goes_on_in_time_is_told_of_once_and_answers(halted: tuple[Halted, Transport, list[str]]) -> None:
    service, sender, told = halted
    sender._timeout_s = 30.0

    def tell(sentence: str) -> None:
        told.append(sentence)
        service.goes_on.set()

    sender._say = tell

    assert await sender.send("GET", "/jobs", may_repeat=True) == b"{}"
    assert (len(told), len(service.heads)) == (1, 1)


async def test_a_long_poll_is_no_silence(halted: tuple[Halted, Transport, list[str]]) -> None:
    service, sender, told = halted
    sender._timeout_s = 30.0
    asked = asyncio.ensure_future(sender.send("GET", "/changes", wait_s=30))
    await asyncio.sleep(0.3)
    service.goes_on.set()

    assert (await asked, told) == (b"{}", [])


async def test_what_the_service_said_is_told_rather_than_that_the_last_try_had_no_time(
    halted: tuple[Halted, Transport, list[str]],
) -> None:
    service, sender, _ = halted
    problem = b'{"type": "unavailable", "title": "Unavailable", "status": 503, "detail": "The disk is full; make room."}'
    head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {len(problem)}\r\n\r\n"
    service.first = head.encode() + problem

    with pytest.raises(Unavailable, match="The disk is full; make room"):
        await sender.send("GET", "/jobs", may_repeat=True)

    assert len(service.heads) == 2
