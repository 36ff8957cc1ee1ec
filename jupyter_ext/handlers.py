"""REST of the server extension, `/tuttilab/…`: the panel's way to the control plane, as the user whose server this is.

An allowlist: a path, its query keys and its method are named in ROUTES or are refused. The control plane's token stays in the
server, and nothing that a page sends becomes a job: no route takes a body. Signing in, cross-site and origin checks are Jupyter's;
writing asks for a JSON content type besides, which no form of a foreign page can send.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from tuttilab.jupyter_ext.embedded import ControlPlane
from tuttilab.jupyter_ext.events import ChangeFeed
from tuttilab.scheduler.client import new_key
from tuttilab.scheduler.errors import BadInput, TuttiError, Unauthenticated, UserError

RESOURCE: Final = "tuttilab"
"""What an authorizer of Jupyter is asked about."""
PREFIX: Final = "/tuttilab"
ID: Final = r"[A-Za-z0-9-]{4,64}"
"""Of a job or a run: no dot, no slash, no percent sign."""
LONGEST_VALUE: Final = 200

JOB_FILTERS: Final = ("all", "state", "group", "owner", "queue", "kind", "text", "limit", "cursor")


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` is a pattern with at most one group, the id; the control plane's path is the same with the id in it."""

    method: str
    path: str
    query: tuple[str, ...] = ()

    def key(self) -> str | None:
        """An idempotency key for one request that writes: what it starts is started once, however often it has to be sent."""
        return new_key() if self.method == "POST" else None


ROUTES: Final = (
    Route("GET", "/jobs", JOB_FILTERS),
    Route("GET", f"/jobs/({ID})"),
    Route("GET", f"/jobs/({ID})/logs", ("rank", "start", "limit", "attempt")),
    Route("GET", f"/jobs/({ID})/explain"),
    Route("GET", f"/jobs/({ID})/events"),
    Route("GET", "/quota"),
    Route("GET", "/queues"),
    Route("GET", "/clusters"),
    Route("GET", "/nodes"),
    Route("GET", "/me"),
    Route("GET", "/dags"),
    Route("GET", "/runs", ("limit", "owner")),
    Route("GET", f"/runs/({ID})"),
    Route("POST", f"/jobs/({ID})/cancel"),
    Route("POST", f"/jobs/({ID})/retry"),
    Route("POST", f"/runs/({ID})/cancel"),
    Route("POST", f"/runs/({ID})/retry"),
)


class TuttiHandler(APIHandler):
    """What all handlers here share: the answers' form, and errors as problem documents that Lab can show."""

    auth_resource = RESOURCE

    def initialize(self, plane: ControlPlane, feed: ChangeFeed) -> None:
        self.plane = plane
        self.feed = feed

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    async def answer(self, work: Callable[[], Awaitable[bytes]]) -> None:
        try:
            body = await work()
        except TuttiError as error:
            self.refuse(error)
            return
        self.set_header("Content-Type", "application/json")
        self.finish(body)

    def refuse(self, error: TuttiError) -> None:
        """``message`` is where Lab looks for the sentence."""
        # 401 from here would tell the page that its user is not signed in, and they are: it is the server's token that is wrong.
        status = 502 if isinstance(error, Unauthenticated) else error.status
        if not isinstance(error, UserError):
            # A service that comes and goes must not fill the server's log: the panel says it.
            self.log.debug("%s %s: %s", self.request.method, self.request.path, error)
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"type": error.type, "status": status, "message": str(error)}))

    def check_write(self) -> None:
        """Raises HTTPError unless this is our page's own kind of request: JSON, and nothing in it."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise web.HTTPError(415, "Send it as application/json.")
        if self.request.body.strip() not in (b"", b"{}"):
            raise web.HTTPError(400, "This path takes no body: a job is submitted by code, not by the panel.")

    def known_query(self, known: tuple[str, ...]) -> dict[str, str]:
        """Raises BadInput for a key that is not allowed, is given twice, or has a value too long to be meant."""
        found: dict[str, str] = {}
        for key, values in self.request.query_arguments.items():
            if key not in known or len(values) != 1 or len(values[0]) > LONGEST_VALUE:
                raise BadInput(f"query: {key[:40]!r}: expected each of {', '.join(known) or 'nothing'} at most once.")
            found[key] = values[0].decode("utf-8", "replace")
        return found


class ProxyHandler(TuttiHandler):
    """One path of the control plane, with its methods."""

    def initialize(self, plane: ControlPlane, feed: ChangeFeed, routes: dict[str, Route] | None = None) -> None:
        super().initialize(plane, feed)
        self.routes = routes or {}

    @web.authenticated
    @authorized
    async def get(self, id: str = "") -> None:
        await self._forward(id)

    @web.authenticated
    @authorized
    async def post(self, id: str = "") -> None:
        self.check_write()
        await self._forward(id)

    async def _forward(self, id: str) -> None:
        route = self.routes.get(str(self.request.method))
        if route is None:
            raise web.HTTPError(405)

        async def work() -> bytes:
            path = route.path.replace(f"({ID})", id)
            query = self.known_query(route.query)
            body = await self.plane.send(route.method, path, query, may_repeat=True, key=route.key())
            if self.feed.state.status == "down":
                self.feed.try_now()
            return body

        await self.answer(work)


class StatusHandler(TuttiHandler):
    """Whether the control plane answers. Asking is what makes the feed run: the first question comes from a page that opens."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.feed.ensure_running()
        self.finish(self.feed.state.data() | {"seq": self.feed.seq})


class StartHandler(TuttiHandler):
    """Starts the local control plane after it was stopped."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        self.check_write()

        async def work() -> bytes:
            await self.plane.start()
            self.feed.ensure_running()
            self.feed.try_now()
            return b"{}"

        await self.answer(work)


def handlers_for(plane: ControlPlane, feed: ChangeFeed) -> list[tuple[Any, ...]]:
    """Handler lines for tornado. ``Any``: its own type for them is as wide."""
    parts = {"plane": plane, "feed": feed}
    by_path: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    return [
        (f"{PREFIX}/status", StatusHandler, parts),
        (f"{PREFIX}/start", StartHandler, parts),
        *((PREFIX + path, ProxyHandler, {**parts, "routes": routes}) for path, routes in by_path.items()),
    ]
