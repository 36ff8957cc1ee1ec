"""Long bodies: of one caller a few at a time, with a rest after each; another caller's are not kept waiting."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from tuttilab.scheduler.api import bodies
from tuttilab.scheduler.api.bodies import BODIES_AT_ONCE, LONG_BYTES, BodyTurns, parse_body
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import JobRequest, Who

CHUNK = 16 * 1024


class Sender:
    """A request whose body comes in chunks; ``sent`` counts those that were taken."""

    def __init__(self, turns: BodyTurns, who: str, body: bytes) -> None:
        self._chunks = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]
        self._count = len(self._chunks)
        # Any: the scope of ASGI.
        scope: dict[str, Any] = {
            "type": "http",
            "headers": [],
            "app": SimpleNamespace(state=SimpleNamespace(body_turns=turns)),
            "state": {"who": Who(who)},
        }
        self.request = cast(Request, Request(scope, self._receive))

    @property
    def sent(self) -> int:
        return self._count - len(self._chunks)

    async def _receive(self) -> dict[str, Any]:
        body = self._chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self._chunks)}


LONG = b'{"name": "x", "command": ["true"], "env": {"A": "' + b"x" * LONG_BYTES * 2 + b'"}}'
WIDE = b'{"pods": [' + b"{}," * LONG_BYTES + b"{}]}"


async def test_long_bodies_of_one_caller_rest_and_those_of_another_do_not_wait_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "REST_S", 1.0)
    turns, began = BodyTurns(), time.monotonic()

    async def took(who: str) -> float:
        assert (await parse_body(Sender(turns, who, LONG).request, JobRequest, "job")).name == "x"
        return time.monotonic() - began

    of_ann = [asyncio.ensure_future(took("ann")) for _ in range(BODIES_AT_ONCE + 1)]
    await asyncio.gather(*of_ann[:-1])
    of_eve = await took("eve")

    assert not of_ann[-1].done()
    assert await of_ann[-1] >= 1.0
    assert of_eve < await of_ann[-1]


async def test_a_long_body_whose_beginning_is_wrong_is_not_read_to_its_end() -> None:
    sender = Sender(BodyTurns(), "ann", WIDE)

    with pytest.raises(BadInput, match="job: pods: more than 256 are given"):
        await parse_body(sender.request, JobRequest, "job")

    assert sender.sent == LONG_BYTES // CHUNK + 1


async def test_a_rest_grows_with_the_work() -> None:
    assert bodies.Turn().rest_s < bodies.Turn(bytes=2**25, work_s=0.5).rest_s
    assert bodies.Turn(work_s=1.0).rest_s > BODIES_AT_ONCE
