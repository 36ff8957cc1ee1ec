"""Spark's own pages of a session, in a tab beside Lab, through the user's own Jupyter server.

The address comes from the session as the control plane knows it, asked with the user's token, and never from the request. Only GET
is passed on; cookies and tokens in neither direction, redirects are not followed. The pages show text of jobs and run scripts, so
they are sandboxed: of no origin, they can neither read Lab nor act in it. A page of no origin sends no cookies, so its scripts
and its data are served to whoever knows the 128 random bits of the path; pages also need the sign-in.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from jupyter_server.auth.decorator import allow_unauthenticated, authorized
from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from tuttilab.jupyter_ext.embedded import ControlPlane
from tuttilab.jupyter_ext.events import ChangeFeed
from tuttilab.jupyter_ext.handlers import PREFIX, RESOURCE, TuttiHandler
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import Conflict, NotFound, Refused, TuttiError
from tuttilab.scheduler.domain.wire import SparkEndpointView

PAGES: Final = f"{PREFIX}/spark-ui"
NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
MOST_OPEN: Final = 64
ASK_AGAIN_S: Final = 10.0
"""How long a session that has ended may still be asked for its pages."""
LARGEST_ANSWER: Final = 64 * 2**20
REQUEST_HEADERS: Final = ("accept", "accept-encoding", "accept-language")
RESPONSE_HEADERS: Final = ("content-type", "content-encoding")
WITHOUT_SIGN_IN: Final = ("static/", "api/v1/")
"""What pages load by themselves."""
POLICY: Final = (
    "sandbox allow-scripts allow-popups allow-forms; default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'"
)

HEAD: Final = b"<head>"
MEMORY: Final = b"""<script>
try { window.localStorage } catch {
  const kept = new Map();
  const storage = {
    getItem: name => kept.has(String(name)) ? kept.get(String(name)) : null,
    setItem: (name, value) => { kept.set(String(name), String(value)) },
    removeItem: name => { kept.delete(String(name)) },
    clear: () => kept.clear()
  };
  Object.defineProperty(window, 'localStorage', { value: storage });
}
</script>"""
"""Pages of no origin have no storage, and Spark's scripts end where they look into it: they get one that ends with the page."""


@dataclass(slots=True)
class Shown:
    """The pages of one session that somebody has opened."""

    name: str
    job_id: str
    address: str
    token: str = field(repr=False)
    """Empty where the pages ask for none."""
    asked_at: float = field(default_factory=time.monotonic)


class SparkPages:
    """Of this server's user; `plane` speaks with the user's token."""

    def __init__(self, plane: ControlPlane, base_url: str) -> None:
        self._plane = plane
        self._root = base_url.rstrip("/") + PAGES
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._http: httpx.AsyncClient | None = None

    def path(self, key: str) -> str:
        return f"{self._root}/{key}"

    async def open(self, name: str) -> str:
        """The key of the session's pages. Raises TuttiError: not there, not the user's, without pages."""
        job_id, address, token = await self._ask(name)
        for key, shown in self._shown.items():
            if (shown.name, shown.job_id, shown.address, shown.token) == (name, job_id, address, token):
                return key
        key = secrets.token_urlsafe(16)
        self._shown[key] = Shown(name, job_id, address, token)
        while len(self._shown) > MOST_OPEN:
            self._shown.popitem(last=False)
        return key

    async def find(self, key: str) -> Shown:
        """The pages with this key. Raises NotFound when the session has ended."""
        shown = self._shown.get(key)
        if shown is None:
            raise NotFound("These pages are not open; open them from the notebook's session (`%spark ui`).")
        if time.monotonic() - shown.asked_at > ASK_AGAIN_S:
            try:
                now = await self._ask(shown.name)
            except (NotFound, Conflict, Refused):
                now = ("", "", "")
            if now != (shown.job_id, shown.address, shown.token):
                self._shown.pop(key, None)
                raise NotFound(f"The Spark session {shown.name} has ended, and its pages with it.")
            shown.asked_at = time.monotonic()
        self._shown.move_to_end(key)
        return shown

    async def _ask(self, name: str) -> tuple[str, str, str]:
        """Its job, and address and token of its pages."""
        found = await self._plane.send("GET", f"/spark/sessions/{name}/endpoint", {}, may_repeat=True)
        view = wire.from_json(SparkEndpointView, found)
        if view.ui is None:
            raise Refused(f"The Spark session {name} serves no pages; `%spark start {name} --ui --restart` turns them on.")
        return view.job_id, checked(view.ui), view.ui_token

    def http(self) -> httpx.AsyncClient:
        if self._http is None:
            # Ignores proxies of the environment, and follows no redirect.
            self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=60.0)
        return self._http

    async def stop(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None


def checked(address: str) -> str:
    """The registered address. Raises Refused where no session of ours listens: names, and addresses of machines' own services."""
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
        is_odd = ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved
    except ValueError:
        is_odd = True
    if is_odd or not port.isascii() or not port.isdecimal() or not 1024 <= int(port) <= 65535:
        raise Refused(
            f"The session gave {address[:80]!r} as the address of its pages, which is none; look at its log (`%spark logs`)."
        )
    return f"{host}:{port}"


class OpenPagesHandler(TuttiHandler):
    """`GET /tuttilab/spark/NAME/ui`: to the pages of the user's session of that name."""

    def initialize(self, plane: ControlPlane, feed: ChangeFeed, pages: SparkPages | None = None) -> None:
        super().initialize(plane, feed)
        assert pages is not None
        self.pages = pages

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        try:
            key = await self.pages.open(name)
        except TuttiError as error:
            self.refuse(error)
            return
        self.redirect(f"{self.pages.path(key)}/jobs/", status=303)


class PageHandler(JupyterHandler):
    """Passes on the pages of one session, for those who know their path."""

    auth_resource = RESOURCE

    def initialize(self, pages: SparkPages) -> None:
        self.pages = pages

    def write_error(self, status_code: int, **given: Any) -> None:
        """The sentence, as text: Jupyter's own page of what is not there has none."""
        error = given.get("exc_info", (None, None))[1]
        sentence = error.log_message if isinstance(error, web.HTTPError) and error.log_message else self._reason
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{sentence}\n")

    @allow_unauthenticated
    async def get(self, key: str, rest: str) -> None:
        if rest.startswith(WITHOUT_SIGN_IN):
            await self._pass_on(key, rest)
        elif (waiting := self._page(key, rest)) is not None:
            await waiting

    @allow_unauthenticated
    async def options(self, key: str, rest: str) -> None:
        """A page of no origin asks before it fetches data with a header of its script library."""
        try:
            await self.pages.find(key)
        except TuttiError as error:
            raise web.HTTPError(404, str(error)) from error
        if not rest.startswith(WITHOUT_SIGN_IN):
            raise web.HTTPError(404)
        self.set_header("Access-Control-Allow-Origin", "null")
        self.set_header("Access-Control-Allow-Methods", "GET")
        self.set_header("Access-Control-Allow-Headers", "X-Requested-With")
        self.set_status(204)
        self.finish()

    @web.authenticated
    @authorized
    async def _page(self, key: str, rest: str) -> None:
        await self._pass_on(key, rest)

    async def _pass_on(self, key: str, rest: str) -> None:
        try:
            shown = await self.pages.find(key)
        except TuttiError as error:
            raise web.HTTPError(404 if isinstance(error, NotFound) else 502, str(error)) from error
        own = self.pages.path(key)
        # Host and port come from our own table, never from the request.
        path = str(self.request.uri)[len(own) :]
        if not str(self.request.uri).startswith(f"{own}/"):
            raise web.HTTPError(404)
        url = httpx.URL(f"http://{shown.address}").copy_with(raw_path=path.encode())
        headers = {name: self.request.headers[name] for name in REQUEST_HEADERS if name in self.request.headers}
        if not rest.startswith(WITHOUT_SIGN_IN):
            headers["Accept-Encoding"] = "identity"  # a script is put into pages
        if shown.token:
            headers["Authorization"] = f"Bearer {shown.token}"
        # Spark begins its links with this.
        headers["X-Forwarded-Context"] = own
        try:
            async with self.pages.http().stream("GET", url, headers=headers) as answer:
                await self._send_back(answer, own)
        except httpx.HTTPError as error:
            raise web.HTTPError(502, "Spark's pages did not answer; the session may be ending.") from error

    async def _send_back(self, answer: httpx.Response, own: str) -> None:
        left = LARGEST_ANSWER
        length = answer.headers.get("content-length", "")
        if length.isdecimal() and int(length) > left:
            raise web.HTTPError(502, f"This has {int(length) >> 20} MiB; at most {left >> 20} MiB of Spark's pages are shown.")
        self.set_status(answer.status_code)
        self.clear_header("Content-Type")
        for name in RESPONSE_HEADERS:
            if name in answer.headers:
                self.set_header(name, answer.headers[name])
        if "location" in answer.headers:
            # Within the session's own pages, whatever host it names.
            to = urlsplit(answer.headers["location"])
            path = to.path.removeprefix(own)
            self.set_header("Location", f"{own}/{path.lstrip('/')}" + (f"?{to.query}" if to.query else ""))
        # Both policies apply: this one, and Jupyter's on framing.
        self.add_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        # Pages of no origin read their own data.
        self.set_header("Access-Control-Allow-Origin", "null")
        self.clear_header("Set-Cookie")
        is_page = answer.headers.get("content-type", "").startswith("text/html") and "content-encoding" not in answer.headers
        async for chunk in answer.aiter_raw():
            left -= len(chunk)
            if is_page and HEAD in chunk:
                chunk, is_page = chunk.replace(HEAD, HEAD + MEMORY, 1), False
            if left < 0:
                raise web.HTTPError(502, f"More than {LARGEST_ANSWER >> 20} MiB of Spark's pages.")
            self.write(chunk)
            await self.flush()
        self.finish()


def spark_handlers(plane: ControlPlane, feed: ChangeFeed, pages: SparkPages) -> list[tuple[Any, ...]]:
    """The handlers for tornado. ``Any``: its own type is as wide."""
    return [
        (rf"{PREFIX}/spark/({NAME})/ui", OpenPagesHandler, {"plane": plane, "feed": feed, "pages": pages}),
        (rf"{PAGES}/([A-Za-z0-9_-]{{22}})/(.*)", PageHandler, {"pages": pages}),
    ]
