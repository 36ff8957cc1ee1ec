"""What all routes share: the service and the caller as dependencies, known queries, JSON responses. Bodies of requests."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypeVar, cast
from weakref import WeakValueDictionary

from fastapi import Depends, Header, Query, Request, Response
from fastapi.routing import APIRoute

from tuttilab.scheduler.domain import shape, wire
from tuttilab.scheduler.domain.errors import BadInput, Forbidden, TooLarge
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.domain.shape import LARGEST_NUMBER
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.queries import QueryStore


# Coroutines, although some await nothing: FastAPI runs plain functions in a thread, which costs more than they do.
async def _service(request: Request) -> Service:
    service = cast(Service, request.app.state.service)
    if request.method == "GET":
        await service.wait_until_committed()
    return service


async def _caller(request: Request) -> Who:
    return cast(Who, request.state.who)


async def _token_of_attempt(request: Request) -> str:
    return cast(str, request.state.attempt_token)


ServiceDep = Annotated[Service, Depends(_service)]
Caller = Annotated[Who, Depends(_caller)]
AttemptToken = Annotated[str, Depends(_token_of_attempt)]

Whole = Annotated[int, Query(ge=0, le=LARGEST_NUMBER)]
"""A number of a query that is counted from 0."""
Counted = Annotated[int, Query(ge=1, le=LARGEST_NUMBER)]
Rank = Annotated[int, Query(ge=-1, le=LARGEST_NUMBER)]
"""A rank of a gang; -1 is its master."""

LONGEST_KEY: Final = 200
IdempotencyKey = Annotated[str | None, Header(max_length=LONGEST_KEY, min_length=1)]
"""A request repeated under the same key has its effect once; another request under that key is 409."""


async def known_query_only(request: Request) -> None:
    """Refuse query keys that the route does not declare: a misspelt filter must not list everything."""
    route = request.scope["route"]
    if not isinstance(route, APIRoute):
        return
    known = {field.alias for field in route.dependant.query_params}
    for key in request.query_params:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known)) or 'none'}."
            raise BadInput(f"query: unknown key {key[:80]}; {hint}")


class DirectRoute(APIRoute):
    """A route for hundreds of requests a second: bypasses FastAPI's dependency resolution, which costs as much as all the rest.

    Its dependencies may take the request only, and its headers and query are strings without validation.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = cast(Callable[..., Coroutine[Any, Any, Response]], self.dependant.call)
        dependencies = [
            (each.name, cast(Callable[[Request], Awaitable[object]], each.call)) for each in self.dependant.dependencies
        ]
        headers = [(field.name, field.alias) for field in self.dependant.header_params]
        queries = [(field.name, field.alias) for field in self.dependant.query_params]

        async def handle(request: Request) -> Response:
            arguments: dict[str, object] = {name: request.headers.get(alias) for name, alias in headers}
            if queries:
                arguments |= {name: request.query_params.get(alias, "") for name, alias in queries}
            for name, call in dependencies:
                value = await call(request)
                if name is not None:
                    arguments[name] = value
            return await endpoint(request=request, **arguments)

        return handle


def query_store(service: Service) -> QueryStore:
    """The service's store with the queries of the API, which the type of `Service` does not promise."""
    return cast(QueryStore, service.store)


def json_response(view: object, cls: Any = None, status: int = 200) -> Response:
    """``cls`` (any type expression) is needed where the value alone does not show its type, as for lists."""
    return Response(wire.to_json(view, cls), status, media_type="application/json")


def owner_filter(owner: str | None, who: Who) -> str | None:
    """The owner to filter a list by; None lists everybody's. An admin may name any user, or ``*``. Raises Forbidden for others."""
    if owner in (None, who.name):
        return who.name
    if not who.is_admin:
        raise Forbidden(f"owner: {owner!r} is not you ({who.name}), and only an admin lists what is others'.")
    return None if owner == "*" else owner


# --- bodies: read within limits of bytes and time, and parsed strictly, so that others are answered meanwhile ---
#
# A caller's long bodies are taken a few at a time, each followed by a rest that grows with the work it made: whoever sends them
# without end gets a part of the event loop and of the interpreter, and the rest stays for others.

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
                self._turn = await self._room.enter_async_context(turns.turn(_whose_turn(self._request)))
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


def _whose_turn(request: Request) -> str:
    who: Who | None = getattr(request.state, "who", None)
    return f"user {who.name}" if who is not None else f"pod {getattr(request.state, 'attempt_token', '')}"


def _too_large(what: str, size: str, limit: int) -> TooLarge:
    return TooLarge(
        f"{what}: {size[:20]} bytes were sent; expected at most {limit}. Send data as an artifact, or many jobs in parts."
    )
