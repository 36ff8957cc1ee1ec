"""What stands before every route: the host name is ours, and the caller is known. Whatever is not named here needs a token.

It is a layer around the application and not a dependency of routes, so that a route without a rule is closed, not open.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuttilab.scheduler.api.problems import response_of
from tuttilab.scheduler.auth import Authenticator, bearer
from tuttilab.scheduler.errors import Forbidden, TuttiError, Unavailable

PREFIX: Final = "/api/v1"
OPEN: Final = frozenset({"/healthz", "/readyz", f"{PREFIX}/healthz", f"{PREFIX}/readyz"})
"""Paths that anybody may ask: they answer with a word."""
ATTEMPT: Final = frozenset({f"{PREFIX}/pods/report"})
"""Paths that take the token of one attempt and no user's: the service compares it, because it is derived from the body."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/@\s]+))(?::\d{1,5})?")


class Guard:
    def __init__(self, app: ASGIApp, authenticator: Authenticator, hosts: Iterable[str]) -> None:
        self._app = app
        self._authenticator = authenticator
        self._hosts = {host.strip("[]").lower() for host in (*LOOPBACK, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        has_started = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._admit(scope)
        except TuttiError as refusal:
            await response_of(refusal)(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, receive, send_guarded)
        except asyncio.CancelledError:
            # Only the server cancels: it is ending, and a long poll or a stream still waits.
            if not has_started:
                await response_of(Unavailable("The control plane is ending; try again in a moment."))(scope, receive, send_guarded)

    async def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers.getlist("host"))
        if scope["path"] in OPEN:
            return
        token = bearer(headers.get("authorization"))
        state = scope.setdefault("state", {})
        if scope["path"] in ATTEMPT:
            state["attempt_token"] = token
        else:
            state["who"] = await self._authenticator.who(token)

    def _check_host(self, given: list[str]) -> None:
        """A page of another site may get a browser to ask us under its own name (DNS rebinding); such a name is not ours."""
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        host = (match[1] or match[2]).lower() if match else ""
        if host not in self._hosts:
            shown = ", ".join(given)[:100]
            raise Forbidden(f"host: {shown!r} is not a name of this service; expected {', '.join(sorted(self._hosts))}.")
