"""What all routes share: the service and the caller as dependencies, known queries, JSON responses. Bodies are read in `bodies`."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Final, cast

from fastapi import Depends, Header, Query, Request, Response
from fastapi.routing import APIRoute

from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput, Forbidden
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
