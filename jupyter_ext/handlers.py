"""REST of the server extension, `/tuttilab/…`: a proxy from the panel to the control plane, with the rights of the server's user.

ROUTES is an allowlist of paths, query keys and methods. The control plane's token stays in the server, and no route takes a body,
so a page cannot submit jobs. Jupyter checks sign-in, cross-site token and origin; writing also requires a JSON content type, which
a form of a foreign page cannot send.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from tuttilab.jupyter_ext.embedded import ControlPlane
from tuttilab.jupyter_ext.events import ChangeFeed
from tuttilab.scheduler.client import new_key
from tuttilab.scheduler.domain.errors import BadInput, TuttiError, Unauthenticated, UserError

RESOURCE: Final = "tuttilab"
"""The resource name for Jupyter's authorizer."""
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
        """A new idempotency key for a request that writes, so that retries have no second effect."""
        return new_key() if self.method == "POST" else None


ROUTES: Final = (
    Route("GET", "/jobs", JOB_FILTERS),
    Route("GET", f"/jobs/({ID})"),
    Route("GET", f"/jobs/({ID})/logs", ("rank", "start", "limit", "attempt")),
    Route("GET", f"/jobs/({ID})/explain"),
    Route("GET", f"/jobs/({ID})/events"),
    Route("GET", f"/jobs/({ID})/details"),
    Route("GET", f"/jobs/({ID})/shown", ("rank", "known")),
    Route("GET", f"/jobs/({ID})/usage", ("attempt", "first", "limit")),
    Route("GET", "/quota"),
    Route("GET", "/queues"),
    Route("GET", "/clusters"),
    Route("GET", "/nodes"),
    Route("GET", "/me"),
    Route("GET", "/dags"),
    Route("GET", "/runs", ("limit", "owner")),
    Route("GET", f"/runs/({ID})"),
    Route("DELETE", f"/jobs/({ID})"),
    Route("POST", f"/jobs/({ID})/cancel"),
    Route("POST", f"/jobs/({ID})/retry"),
    Route("POST", f"/runs/({ID})/cancel"),
    Route("POST", f"/runs/({ID})/retry"),
)


class TuttiHandler(APIHandler):
    """The base of all handlers: headers, answers, and errors as problem documents that Lab can show."""

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
        """Answers with a problem document; Lab shows its ``message``."""
        # A 401 would tell the page that its user is not signed in; but the user is, only the server's token is invalid.
        status = 502 if isinstance(error, Unauthenticated) else error.status
        if not isinstance(error, UserError):
            # Only at debug level: the panel shows it, and an unstable service must not fill the server's log.
            self.log.debug("%s %s: %s", self.request.method, self.request.path, error)
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"type": error.type, "status": status, "message": str(error)}))

    def check_write(self) -> None:
        """Raises HTTPError unless the request has a JSON content type and an empty body."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise web.HTTPError(415, "Send it as application/json.")
        if self.request.body.strip() not in (b"", b"{}"):
            raise web.HTTPError(400, "This path takes no body: a job is submitted by code, not by the panel.")

    def known_query(self, known: tuple[str, ...]) -> dict[str, str]:
        """The query. Raises BadInput for a key that is not allowed or given twice, or for a value that is too long."""
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
        await self._forward(id)

    @web.authenticated
    @authorized
    async def delete(self, id: str = "") -> None:
        await self._forward(id)

    async def _forward(self, id: str) -> None:
        route = self.routes.get(str(self.request.method))
        if route is None:
            raise web.HTTPError(405)
        if self.request.method != "GET":
            self.check_write()

        async def work() -> bytes:
            path = route.path.replace(f"({ID})", id)
            query = self.known_query(route.query)
            # A deletion that is repeated after its answer was lost would be told that there is no such job.
            may_repeat = route.method != "DELETE"
            body = await self.plane.send(route.method, path, query, may_repeat=may_repeat, key=route.key())
            if self.feed.state.status == "down":
                self.feed.retry_now()
            return body or b"{}"

        await self.answer(work)


class StatusHandler(TuttiHandler):
    """Whether the control plane answers. The first request, from the first page that opens, starts the feed."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        self.feed.ensure_running()
        # The control plane of a hub or a site is not its users' to start.
        can_start = not os.environ.get("TUTTILAB_URL")
        self.finish(self.feed.state.data() | {"seq": self.feed.seq, "can_start": can_start})


class StartHandler(TuttiHandler):
    """Starts the local control plane after it was stopped."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        self.check_write()

        async def work() -> bytes:
            await self.plane.start()
            self.feed.ensure_running()
            self.feed.retry_now()
            return b"{}"

        await self.answer(work)


def handlers_for(plane: ControlPlane, feed: ChangeFeed) -> list[tuple[Any, ...]]:
    """The handlers for tornado. ``Any``: its own type is as wide."""
    arguments = {"plane": plane, "feed": feed}
    by_path: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    return [
        (f"{PREFIX}/status", StatusHandler, arguments),
        (f"{PREFIX}/start", StartHandler, arguments),
        *((PREFIX + path, ProxyHandler, {**arguments, "routes": routes}) for path, routes in by_path.items()),
    ]
