"""What every route needs: the service and the caller, the body parsed strictly, the answer written."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Final, TypeVar, cast

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute

from tuttilab.scheduler import wire
from tuttilab.scheduler.errors import BadInput, Forbidden
from tuttilab.scheduler.requests import Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.store.blobs import too_large
from tuttilab.scheduler.store.reading import ReadingStore

T = TypeVar("T")

JSON_LIMIT: Final = 32 * 2**20
"""Bytes of a body in JSON: ten thousand jobs in a batch, and some."""


# Coroutines, although they await nothing: FastAPI runs plain functions in a thread, which costs more than they do.
async def _service(request: Request) -> Service:
    service = cast(Service, request.app.state.service)
    if request.method == "GET":
        await service.settled()
    return service


async def _caller(request: Request) -> Who:
    return cast(Who, request.state.who)


async def _token_of_attempt(request: Request) -> str:
    return cast(str, request.state.attempt_token)


ServiceHere = Annotated[Service, Depends(_service)]
Caller = Annotated[Who, Depends(_caller)]
AttemptToken = Annotated[str, Depends(_token_of_attempt)]

LONGEST_KEY: Final = 200
IdempotencyKey = Annotated[str | None, Header(max_length=LONGEST_KEY, min_length=1)]
"""Under the same one a request has its effect once, however often it comes; another request under it is 409."""


async def known_query_only(request: Request) -> None:
    """Refuse query keys that the route does not have, as bodies refuse theirs: a misspelt filter must not show everything."""
    route = request.scope["route"]
    if not isinstance(route, APIRoute):
        return
    known = {field.alias for field in route.dependant.query_params}
    for key in request.query_params:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known)) or 'none'}."
            raise BadInput(f"query: unknown key {key[:80]}; {hint}")


class Direct(APIRoute):
    """For the routes that are asked hundreds of times a second: what they need is taken from the request without FastAPI's
    machinery, which costs as much as all the rest. Their dependencies take the request and nothing else, headers are plain text.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = cast(Callable[..., Coroutine[Any, Any, Response]], self.dependant.call)
        needs = [(each.name, cast(Callable[[Request], Awaitable[object]], each.call)) for each in self.dependant.dependencies]
        headers = [(field.name, field.alias) for field in self.dependant.header_params]

        async def handle(request: Request) -> Response:
            given: dict[str, object] = {name: request.headers.get(alias) for name, alias in headers}
            for name, call in needs:
                found = await call(request)
                if name is not None:
                    given[name] = found
            return await endpoint(request=request, **given)

        return handle


def reading(service: Service) -> ReadingStore:
    """The service's store, which here always answers more than the loop needs of it."""
    return cast(ReadingStore, service.store)


async def body_of(request: Request, cls: type[T], what: str) -> T:
    """The body as ``cls``. Raises BadInput with the path of what is wrong, TooLarge before reading it all."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > JSON_LIMIT:
        raise too_large(int(declared), JSON_LIMIT)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > JSON_LIMIT:
            raise too_large(len(body), JSON_LIMIT)
    return wire.parse_json(cls, bytes(body), what)


def answer(view: object, cls: Any = None, status: int = 200) -> Response:
    """``cls`` (any type expression) where the value alone does not tell, as for lists."""
    return Response(wire.to_json(view, cls), status, media_type="application/json")


def check_owner(owner: str | None, who: Who) -> str | None:
    """Whose things to list: the caller's own, or for an admin anybody's and, as None, everybody's (``*``)."""
    if owner in (None, who.name):
        return who.name
    if not who.is_admin:
        raise Forbidden(f"owner: {owner!r} is not you ({who.name}), and only an admin lists what is others'.")
    return None if owner == "*" else owner
