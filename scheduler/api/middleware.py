"""Access control before every route: the Host header, the caller's token, what the role may do, and how fast.

Paths not listed here need a token. It is middleware and not a dependency of routes, so that a route without a rule is closed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuttilab.scheduler.api.problems import response_of
from tuttilab.scheduler.domain.errors import Forbidden, NotFound, TuttiError, Unauthenticated, Unavailable
from tuttilab.scheduler.identity.auth import Authenticator, bearer
from tuttilab.scheduler.identity.rate import RefusalRate, WriteRate
from tuttilab.scheduler.identity.roles import check_role

PREFIX: Final = "/api/v1"
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", f"{PREFIX}/healthz", f"{PREFIX}/readyz"})
"""Paths that need no token: their response is one word."""
ATTEMPT_TOKEN_PATHS: Final = re.compile(rf"{PREFIX}/pods/(?:report|displays|artifacts/[^/]+)")
"""Paths that take the token of an attempt instead of a user's. The route checks it, because the token depends on what it claims."""
SPARK_ROUTES: Final = f"{PREFIX}/spark/routes"
"""Takes the token of the Spark proxy, which the route checks; the body has a user's."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/@\s]+))(?::\d{1,5})?")


class AccessMiddleware:
    def __init__(self, app: ASGIApp, authenticator: Authenticator, hosts: Iterable[str], rate: WriteRate | None = None) -> None:
        """``rate``: absent in a follower, whose leader counts."""
        self._app = app
        self._refusals = RefusalRate()
        self._authenticator = authenticator
        self._rate = rate
        self._hosts = {host.strip("[]").lower() for host in (*LOOPBACK, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._authenticate(scope)
        except TuttiError as refusal:
            if isinstance(refusal, Unauthenticated):
                await self._refusals.wait()
            await response_of(refusal)(scope, receive, send_with_headers)
            return
        scope["state"]["refusals"] = self._refusals
        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # Only the server cancels: it is ending while a long poll or a stream still waits.
            if not has_started:
                ending = Unavailable("The control plane is ending; try again in a moment.")
                await response_of(ending)(scope, receive, send_with_headers)

    async def _authenticate(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers.getlist("host"))
        state = scope.setdefault("state", {})
        if scope["path"] in OPEN_PATHS:
            return
        token = bearer(headers.get("authorization"))
        if ATTEMPT_TOKEN_PATHS.fullmatch(scope["path"]):
            state["attempt_token"] = token
        elif scope["path"] == SPARK_ROUTES:
            state["proxy_token"] = token
        else:
            state["who"] = await self._authenticator.who(token)
            check_role(state["who"], scope["method"], scope["path"])
            if self._rate is not None:
                self._rate.take(state["who"], scope["method"])

    def _check_host(self, given: list[str]) -> None:
        """Refuse foreign host names: the page of another site may send a browser here under its own name (DNS rebinding)."""
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        host = (match[1] or match[2]).lower() if match else ""
        if host not in self._hosts:
            shown = ", ".join(given)[:100]
            raise Forbidden(f"host: {shown!r} is not a name of this service; expected one of listen.host and listen.names.")


class PodsOnly:
    """The application as pods reach it at `listen.pods`: only the paths that take a pod's token; all else is not there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not ATTEMPT_TOKEN_PATHS.fullmatch(scope["path"]):
            await response_of(NotFound("Only pods are served at this address; users are at listen.host."))(scope, receive, send)
            return
        await self._app(scope, receive, send)
