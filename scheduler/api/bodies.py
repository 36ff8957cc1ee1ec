"""Bodies of requests: read within limits of bytes and time, and parsed strictly, so that others are answered meanwhile.

A caller's long bodies are taken one after the other, each followed by a rest that grows with the work it made: whoever sends them
without end gets a part of the event loop and of the interpreter, and the rest stays for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, cast
from weakref import WeakValueDictionary

from fastapi import Request

from tuttilab.scheduler.domain import shape, wire
from tuttilab.scheduler.domain.errors import BadInput, TooLarge
from tuttilab.scheduler.domain.requests import Who

T = TypeVar("T")

JSON_LIMIT: Final = 2**20
"""Bytes of a JSON body."""
DAG_LIMIT: Final = 8 * 2**20
BATCH_LIMIT: Final = 32 * 2**20
"""Enough for ten thousand jobs."""
SHORT_BYTES: Final = 8 * 1024
"""A longer body is parsed beside the event loop."""
LONG_BYTES: Final = 64 * 1024
"""A longer body waits for its caller's turn, and what has come of it is checked before more is read."""
BODY_S: Final = 60.0
"""Until a body has to be whole, its wait for a turn included."""
BODIES_AT_ONCE: Final = 4
"""Long bodies of one caller that are read at the same time; memory would be full of more."""
REST_S: Final = 0.2
"""After a long body, until another one of its caller takes its place."""
REST_PER_WORK: Final = 12.0
REST_PER_BYTE_S: Final = 4e-8
_PARSER: Final = ThreadPoolExecutor(1, thread_name_prefix="parser")


async def parse_body(request: Request, cls: type[T], what: str, limit: int = JSON_LIMIT) -> T:
    """The body as ``cls``. Raises BadInput with the path of the first error, TooLarge before more than ``limit`` is read."""
    async with contextlib.AsyncExitStack() as room:
        reading = _Reading(request, what, limit, room)
        body = await reading.whole(partial(shape.check_beginning, cls, what=what))
        parse = partial(wire.parse_json, cls, body, what)
        return parse() if len(body) <= SHORT_BYTES else await reading.beside(parse)


async def read_body(request: Request, what: str, limit: int) -> bytes:
    """The body as it is. Raises BadInput, TooLarge before more than ``limit`` is read."""
    async with contextlib.AsyncExitStack() as room:
        return await _Reading(request, what, limit, room).whole()


class BodyTurns:
    """Each caller's places for long bodies; those of a pod are its own."""

    def __init__(self) -> None:
        self._of_caller: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[Turn]:
        """Waits for a place. It is given back some time after the end."""
        places = self._of_caller.get(caller)
        if places is None:
            places = self._of_caller[caller] = asyncio.Semaphore(BODIES_AT_ONCE)
        await places.acquire()
        turn = Turn()
        try:
            yield turn
        finally:
            asyncio.get_running_loop().call_later(turn.rest_s, places.release)


@dataclass(slots=True)
class Turn:
    bytes: int = 0
    work_s: float = 0.0
    """Of the thread that checks and parses."""

    @property
    def rest_s(self) -> float:
        return REST_S + REST_PER_WORK * self.work_s + REST_PER_BYTE_S * self.bytes


class _Reading:
    """The body of one request. ``room`` gives back the turn that a long one takes."""

    def __init__(self, request: Request, what: str, limit: int, room: contextlib.AsyncExitStack) -> None:
        self._request = request
        self._what = what
        self._limit = limit
        self._room = room
        self._turn = Turn()

    async def whole(self, check: Callable[[bytes], object] | None = None) -> bytes:
        """``check`` raises BadInput where the beginning of a long body shows already that it is wrong."""
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > self._limit):
            raise _too_large(self._what, declared, self._limit)
        try:
            async with asyncio.timeout(BODY_S):
                return await self._received(check)
        except TimeoutError:
            raise BadInput(f"{self._what}: the body was not whole after {BODY_S:g} s; send it again.") from None

    async def _received(self, check: Callable[[bytes], object] | None) -> bytes:
        body = bytearray()
        is_long = False
        async for chunk in self._request.stream():
            body += chunk
            if len(body) > self._limit:
                raise _too_large(self._what, f"more than {self._limit}", self._limit)
            if len(body) > LONG_BYTES and not is_long:
                is_long = True
                turns = cast(BodyTurns, self._request.app.state.body_turns)
                self._turn = await self._room.enter_async_context(turns.turn(_caller(self._request)))
                if check is not None:
                    await self.beside(partial(check, bytes(body)))
            self._turn.bytes = len(body)
        return bytes(body)

    async def beside(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, done in the thread of the parser."""
        return await asyncio.get_running_loop().run_in_executor(_PARSER, self._counted, work)

    def _counted(self, work: Callable[[], T]) -> T:
        began = time.thread_time()
        try:
            return work()
        finally:
            self._turn.work_s += time.thread_time() - began


def _caller(request: Request) -> str:
    who: Who | None = getattr(request.state, "who", None)
    return f"user {who.name}" if who is not None else f"pod {getattr(request.state, 'attempt_token', '')}"


def _too_large(what: str, size: str, limit: int) -> TooLarge:
    return TooLarge(
        f"{what}: {size[:20]} bytes were sent; expected at most {limit}. Send data as an artifact, or many jobs in parts."
    )
