"""Forwards requests of a follower to the leader, and streams the leader's responses back, both unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tuttilab.scheduler.api.middleware import OPEN_PATHS
from tuttilab.scheduler.api.problems import response_of
from tuttilab.scheduler.domain.errors import Unavailable
from tuttilab.scheduler.runtime.http_library import httpx

FORWARDED_HEADER: Final = b"x-tuttilab-forwarded"
"""Marks a request that a follower has forwarded: it is not forwarded again, so that two followers cannot form a loop."""

HOP_BY_HOP_HEADERS: Final = frozenset(
    [
        b"connection",
        b"date",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
)
NO_LEADER: Final = "No replica of the control plane leads at the moment; one takes over within seconds, try again."


class NoLeader:
    """Answers 503 while no replica leads. The answer reveals nothing, so no token is checked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        is_alive = path in OPEN_PATHS and path.endswith("/healthz")
        response = PlainTextResponse("ok\n") if is_alive else response_of(Unavailable(NO_LEADER))
        await response(scope, receive, send)


class LeaderProxy:
    """Forwards to the leader at ``url``. The caller was authenticated before; the leader authenticates it again."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            # A long poll or a stream may be silent for long; that the leader has failed shows in its lease.
            timeout=httpx.Timeout(5.0, read=None, write=None),
            limits=httpx.Limits(max_connections=1000, max_keepalive_connections=50),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._response(scope, receive))(scope, receive, send)

    async def _response(self, scope: Scope, receive: Receive) -> Response:
        if scope["path"] in OPEN_PATHS:
            return PlainTextResponse("ok\n" if scope["path"].endswith("/healthz") else "ready\n")
        headers = Headers(scope=scope)
        if FORWARDED_HEADER.decode() in headers:
            return response_of(Unavailable(NO_LEADER))
        has_body = "content-length" in headers or "transfer-encoding" in headers
        raw_path = scope.get("raw_path") or scope["path"].encode()
        query = scope.get("query_string", b"")
        request = self._http.build_request(
            scope["method"],
            httpx.URL(self._http.base_url, raw_path=raw_path + (b"?" + query if query else b"")),
            headers=[*_end_to_end(scope["headers"]), (FORWARDED_HEADER, b"1")],
            content=_body(receive) if has_body else None,
        )
        try:
            answer = await self._http.send(request, stream=True)
        except httpx.TransportError as error:
            return response_of(Unavailable(f"The leader did not answer ({type(error).__name__}); try again in a moment."))
        response = StreamingResponse(_chunks(answer), answer.status_code)
        response.raw_headers = list(_end_to_end(answer.headers.raw))
        return response


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in headers if name.lower() not in HOP_BY_HOP_HEADERS]


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise httpx.WriteError("the caller went away")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()
