"""Relays the calls of Spark Connect, each to its caller's own session.

Requests are read only when it is known whose they are. Of the caller's metadata nothing goes on, of the session's only the details
of an error come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio

from tuttilab.scheduler.domain.errors import (
    BadInput,
    Conflict,
    Forbidden,
    NotFound,
    TooMany,
    TuttiError,
    Unauthenticated,
    Unavailable,
)
from tuttilab.scheduler.spark.proxy.channels import Channels
from tuttilab.scheduler.spark.proxy.envelope import (
    METHODS,
    SERVICE,
    STREAMED_ANSWERS,
    STREAMED_REQUESTS,
    checked,
    owner_field,
    status_details,
)
from tuttilab.scheduler.spark.proxy.limits import NO_TOKEN, Calls
from tuttilab.scheduler.spark.proxy.routes import LONGEST_NAME, LONGEST_TOKEN, Question, Route, Routes

SESSION_KEY: Final = "tuttilab-session"
JOB_KEY: Final = "tuttilab-job"
DEFAULT_SESSION: Final = "default"
DETAILS_KEY: Final = "grpc-status-details-bin"
LARGEST_DETAILS: Final = 64 * 1024

_STATUS: Final[tuple[tuple[type[TuttiError], grpc.StatusCode], ...]] = (
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Conflict, grpc.StatusCode.UNAVAILABLE),
    (TooMany, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (BadInput, grpc.StatusCode.INVALID_ARGUMENT),
)

log = logging.getLogger(__name__)


class Relay(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """All methods take a stream of requests, which is the same on the wire, so that none is read before its caller is known."""

    def __init__(self, routes: Routes, calls: Calls) -> None:
        self._routes = routes
        self._calls = calls
        self._channels = Channels(calls.limits)

    def service(self, details: Any) -> Any:  # Any: grpc has no types
        name = str(details.method).removeprefix(SERVICE)
        if name not in METHODS or not str(details.method).startswith(SERVICE):
            return None
        if name in STREAMED_ANSWERS:
            return grpc.stream_stream_rpc_method_handler(partial(self._many, name))
        return grpc.stream_unary_rpc_method_handler(partial(self._one, name))

    async def close(self) -> None:
        await self._channels.close()

    async def _many(self, name: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """A call with many answers. Any: grpc has no types."""
        async with _Outcome(self, name, context) as outcome:
            question = _question(context)
            route = await self._routes.find(question)
            outcome.asked = question
            async with self._calls.one_of(route.owner) as reader:
                async with reader:
                    request = await self._read(requests, route)
                    channel = await self._channels.ready(route)
                    call = channel.unary_stream(SERVICE + name)(
                        request, metadata=_upstream(route), timeout=_seconds(context, self._calls.limits.stream_s)
                    )
                    del request
                try:
                    async for message in call:
                        self._calls.bytes_out += len(message)
                        yield message
                finally:
                    call.cancel()

    async def _one(self, name: str, requests: AsyncIterator[bytes], context: Any) -> bytes:  # Any: grpc has no types
        answer: bytes = b""
        async with _Outcome(self, name, context) as outcome:
            question = _question(context)
            route = await self._routes.find(question)
            outcome.asked = question
            async with self._calls.one_of(route.owner) as reader:
                channel = await self._channels.ready(route)
                limit_s = _seconds(context, self._calls.limits.call_s)
                if name in STREAMED_REQUESTS:
                    upload = _Upload(self._read, requests, route, reader)
                    call = channel.stream_unary(SERVICE + name)(upload.parts(), metadata=_upstream(route), timeout=limit_s)
                else:
                    upload = None
                    async with reader:
                        request = await self._read(requests, route)
                    call = channel.unary_unary(SERVICE + name)(request, metadata=_upstream(route), timeout=limit_s)
                    del request
                try:
                    answer = bytes(await call)
                except asyncio.CancelledError:
                    if upload is not None and upload.error is not None:  # gRPC cancels a call whose requests end in an error
                        raise upload.error from None
                    raise
                finally:
                    call.cancel()
                self._calls.bytes_out += len(answer)
        return answer

    async def _read(self, requests: AsyncIterator[bytes], route: Route) -> bytes:
        try:
            async with asyncio.timeout(self._calls.limits.request_s):
                request = await anext(requests)
        except StopAsyncIteration as error:
            raise _NoRequest("The call has no request.") from error
        except TimeoutError as error:
            raise BadInput(f"The request was not whole after {self._calls.limits.request_s:g} s.") from error
        self._calls.bytes_in += len(request)
        return checked(request) + owner_field(route.owner)

    async def refuse(self, name: str, context: Any, error: Exception, asked: Question | None) -> None:  # Any: grpc has no types
        """End the call with the error's status. What a session's server said passes on as it is."""
        if isinstance(error, grpc.aio.AioRpcError):
            code, sentence, details = error.code(), error.details() or "", _details_of(error)
            if code is grpc.StatusCode.UNAVAILABLE and asked is not None:
                await self._lost(name, context, asked)
        elif isinstance(error, TuttiError):
            code = next((status for kind, status in _STATUS if isinstance(error, kind)), grpc.StatusCode.UNAVAILABLE)
            sentence, details = str(error), None
            if isinstance(error, Unavailable) and asked is not None and not isinstance(error, TooMany):
                await self._lost(name, context, asked)
        else:
            log.error("%s failed", name, exc_info=error)
            code, sentence, details = grpc.StatusCode.INTERNAL, "The Spark proxy failed; its log says more.", None
        await self._end(name, context, code, sentence, details)

    async def _lost(self, name: str, context: Any, asked: Question) -> None:
        """The session's server does not answer: when it has ended the caller is told so, else to try again. Any: as above."""
        self._routes.forget(asked)
        try:
            await self._routes.find(asked)
        except (NotFound, Unauthenticated, Forbidden) as error:
            code = next(status for kind, status in _STATUS if isinstance(error, kind))
            await self._end(name, context, code, str(error), None)
        except TuttiError:
            return

    async def _end(self, name: str, context: Any, code: grpc.StatusCode, sentence: str, details: bytes | None) -> None:
        self._calls.ended[name, code.name] += 1
        if details is None:
            details = status_details(code.value[0], sentence)
        context.set_trailing_metadata(((DETAILS_KEY, details),))
        await context.abort(code, sentence)

    def count(self, name: str, status: str) -> None:
        self._calls.ended[name, status] += 1


class _NoRequest(BadInput):
    """The caller sends no more."""


class _Upload:
    """The requests of a call that has many, and the error that ended them."""

    def __init__(
        self,
        read: Callable[[AsyncIterator[bytes], Route], Awaitable[bytes]],
        requests: AsyncIterator[bytes],
        route: Route,
        reader: asyncio.Semaphore,
    ) -> None:
        self._read = read
        self._requests = requests
        self._route = route
        self._reader = reader
        self.error: Exception | None = None

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            while True:
                async with self._reader:
                    part = await self._read(self._requests, self._route)
                yield part
        except _NoRequest:
            return
        except Exception as error:
            self.error = error
            raise


class _Outcome:
    """`async with`: a call inside is counted, and ends with the status of what was raised."""

    def __init__(self, relay: Relay, name: str, context: Any) -> None:  # Any: grpc has no types
        self._relay = relay
        self._name = name
        self._context = context
        self.asked: Question | None = None

    async def __aenter__(self) -> _Outcome:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._relay.count(self._name, "OK")
        elif isinstance(error, Exception):
            await self._relay.refuse(self._name, self._context, error, self.asked)
        else:  # the caller has gone
            self._relay.count(self._name, "CANCELLED")


def _question(context: Any) -> Question:
    """From the caller's metadata. Raises Unauthenticated, BadInput. Any: grpc has no types."""
    given: Mapping[str, object] = dict(context.invocation_metadata() or ())
    scheme, _, token = str(given.get("authorization", "")).partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(NO_TOKEN)
    if len(token) > LONGEST_TOKEN:
        raise Unauthenticated(f"The token is longer than {LONGEST_TOKEN} characters, which none is.")
    session, job_id = str(given.get(SESSION_KEY, DEFAULT_SESSION)), str(given.get(JOB_KEY, ""))
    for key, value in ((SESSION_KEY, session), (JOB_KEY, job_id)):
        if len(value) > LONGEST_NAME:
            raise BadInput(
                f"{key}: it is longer than {LONGEST_NAME} characters; expected the name of a Spark session or its job's id."
            )
    return Question(token, session, job_id)


def _upstream(route: Route) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {route.secret}"),)


def _seconds(context: Any, most: float) -> float:  # Any: grpc has no types
    left = context.time_remaining()
    return most if left is None else min(most, max(0.0, float(left)))


def _details_of(error: grpc.aio.AioRpcError) -> bytes | None:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and len(value) <= LARGEST_DETAILS:
            return bytes(value)
    return None
