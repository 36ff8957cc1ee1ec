"""Turns every error into a problem document (RFC 9457) whose ``type`` is a stable word of `errors`."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput, Bug, NotFound, TooFast, TuttiError, Unauthenticated, Unavailable, UserError
from tuttilab.scheduler.domain.shape import show_path
from tuttilab.scheduler.identity.rate import RefusalRate
from tuttilab.scheduler.runtime.seldom import SeldomLog

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger(__name__)
disconnects: Final = SeldomLog(log)


class Gone(NotFound):
    """Changes older than the journal kept: the type of NotFound, with the status that means "fetch everything anew"."""

    status = 410


class NotAllowed(UserError):
    type = "method-not-allowed"
    status = 405


def response_of(error: TuttiError) -> Response:
    phrase = HTTPStatus(error.status).phrase
    problem = wire.Problem(type=error.type, title=phrase, status=error.status, detail=str(error))
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_s if isinstance(error, TooFast) else 1)
    return Response(wire.to_json(problem), error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    app.add_exception_handler(TuttiError, _tutti_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(HTTPException, _router_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected_error)


async def _tutti_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TuttiError)
    if not isinstance(error, UserError):
        log.warning("%s %s: %s", request.method, request.url.path, error)
    if isinstance(error, Unauthenticated):
        # The token of an attempt is checked by its route.
        await cast(RefusalRate, request.state.refusals).wait()
    return response_of(error)


async def _disconnected(request: Request, _error: Exception) -> Response:
    disconnects.warning(f"{request.method} {request.url.path[:200]}: the caller went away before its body was whole")
    return response_of(BadInput("The body ended before it was whole; send it again."))


async def _router_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return response_of(NotAllowed(f"{request.method} {path}: the path has no such method; see /api/v1/openapi.json."))
    return response_of(NotFound(f"{request.method} {path}: there is no such path; see /api/v1/openapi.json."))


async def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place, *path = first["loc"]
    given = f" (given: {str(first['input'])[:80]!r})" if first.get("input") is not None else ""
    return response_of(BadInput(f"{place}: {show_path(path)}: {str(first['msg']).lower()}{given}."))


async def _unexpected_error(request: Request, error: Exception) -> Response:
    log.error("%s %s broke", request.method, request.url.path, exc_info=error)
    return response_of(Bug("The control plane made a mistake; its log (control.log) has the details: please report it."))
