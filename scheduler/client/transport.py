"""The client's HTTP transport: connections, safe retries, finding the service again, errors as the classes of `errors`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from tuttilab.scheduler.client.silence import Content, Say, Silence
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput, TooFast, TuttiError, Unauthenticated, Unavailable
from tuttilab.scheduler.runtime.http_library import httpx

PREFIX: Final = "/api/v1"
RETRIES_S: Final = (0.1, 0.4, 1.0)
"""Pauses before the retries of idempotent requests: reads, and requests with an idempotency key."""
SILENCE_S: Final = 4.0
"""After so long without an answer the user is told that one is waited for, and how long at most."""
LONGEST_SLOWING_S: Final = 30.0
"""How long all pauses of one request together may be that the service asks of a caller that writes too fast."""
LEAST_S: Final = 1.0
"""Time that each try of a request has."""
CONNECT_S: Final = 2.0
"""Time limit to connect to another port of a host that has just answered."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

HUBS_OWN: Final = "The control plane of this hub"

Rediscover = Callable[[], "tuple[str, str] | None"]
"""Returns the service's current URL and token, None when they are not known. May block; called in a thread."""

Param = str | int | float | bool | list[str] | None
Params = Mapping[str, Param]


class MakeTransport(Protocol):
    """What makes the connections of a client in place of httpx's own."""

    def __call__(self, *, trust_env: bool, verify: bool) -> httpx.AsyncBaseTransport: ...


def is_user_of_hub(environ: Mapping[str, str]) -> bool:
    """Whether this process is in a server of a hub that names its control plane: only the hub's admin can start that."""
    return bool(environ.get("TUTTILAB_URL") and environ.get("JUPYTERHUB_API_TOKEN") and not environ.get("TUTTILAB_TOKEN"))


def _error_classes() -> dict[str, type[TuttiError]]:
    found: dict[str, type[TuttiError]] = {}
    queue: list[type[TuttiError]] = [TuttiError]
    for cls in queue:
        # A subclass with its parent's type is raised as the parent.
        found.setdefault(cls.type, cls)
        queue.extend(cls.__subclasses__())
    return found


def error_of(response: httpx.Response) -> TuttiError:
    """The error of a response whose body has been read."""
    try:
        problem = wire.from_json(wire.Problem, response.content)
    except ValueError:
        shown = response.text[:200].strip()
        if response.is_server_error:
            return Unavailable(f"{response.url.host} answers {response.status_code} in the service's place; try again in a moment.")
        return TuttiError(f"{response.url} answered {response.status_code}, which is no answer of the service: {shown!r}.")
    error = _error_classes().get(problem.type, TuttiError)(problem.detail)
    pause = response.headers.get("retry-after", "")
    if isinstance(error, TooFast) and pause.isdecimal():
        error.retry_after_s = int(pause[:9])
    return error


class Transport:
    """HTTP/1.1 connections to one service. Make and use it in one event loop."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float,
        rediscover: Rediscover | None = None,
        say: Say | None = None,
        connections: MakeTransport | None = None,
    ) -> None:
        """``timeout_s``: how long an answer is waited for, all tries of a request together. ``say`` is told when one takes long."""
        self._connections = connections
        self._timeout_s = timeout_s
        self._rediscover = rediscover
        self._say = say
        self._http: httpx.AsyncClient | None = None
        self._uses_one_port = False
        """Another port of the service's host could not be reached, as through a tunnel: everything goes to its one URL."""
        self._set_address(url, token)

    @property
    def url(self) -> str:
        return self._url

    @property
    def token(self) -> str:
        return self._token

    def _set_address(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"the service's URL is {url!r}; expected one such as http://127.0.0.1:8080.")
        if not token or not token.isascii() or not token.isprintable():
            raise BadInput(f"the token for {parts.netloc} is empty or has characters that no token has; set TUTTILAB_TOKEN.")
        self._url = url.rstrip("/").removesuffix(PREFIX)
        self._token = token

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            parts = urlsplit(self._url)
            # Requests to this machine must not go through a proxy of the environment.
            trust_env = parts.hostname not in LOOPBACK
            # Without TLS there is nothing to verify, and reading the machine's certificates takes 30 ms.
            verify = parts.scheme == "https"
            self._http = httpx.AsyncClient(
                timeout=self._timeout_s,
                trust_env=trust_env,
                limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
                verify=verify,
                transport=None if self._connections is None else self._connections(trust_env=trust_env, verify=verify),
            )
        return self._http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def find_again(self) -> None:
        """Find the service's current address, which differs after a restart at another port."""
        found = await asyncio.to_thread(self._rediscover) if self._rediscover is not None else None
        if found is not None and found != (self._url, self._token):
            await self.close()
            self._set_address(*found)

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        may_repeat: bool = False,
        wait_s: float = 0.0,
    ) -> bytes:
        """The body of the response. Raises the error that the service returned, or Unavailable when there is no response.

        A write that came too fast is sent again when the service says so, for `LONGEST_SLOWING_S` altogether.

        ``may_repeat``: the request is idempotent, so it is retried when no response came, while the time of one request lasts.
        ``wait_s``: how much longer than usual the response may take, as for a long poll.
        """
        pauses = iter(RETRIES_S if may_repeat else ())
        slowing_left_s = LONGEST_SLOWING_S
        until = time.monotonic() + self._timeout_s
        answered: Unavailable | None = None
        while True:
            left_s = until - time.monotonic()
            try:
                async with self.stream(
                    method, path, params=params, content=body, headers=headers, wait_s=wait_s, limit_s=left_s
                ) as response:
                    return await response.aread()
            except TooFast as refusal:
                slowing_left_s -= refusal.retry_after_s
                if slowing_left_s < 0:
                    raise
                await asyncio.sleep(refusal.retry_after_s)
                until = time.monotonic() + self._timeout_s
            except Unavailable as refusal:
                if isinstance(refusal.__cause__, httpx.TimeoutException) and answered is not None:
                    # Its reason tells more than that there was no time left for the last try.
                    raise answered from refusal
                if not isinstance(refusal.__cause__, httpx.TransportError):
                    answered = refusal
                pause = next(pauses, None)
                if pause is None or time.monotonic() + pause >= until:
                    raise
                await asyncio.sleep(pause)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        limit_s: float | None = None,
        at: str | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """A successful response whose body is still to be read. Pass ``content`` as a function if each try needs a new iterator.

        ``limit_s``: how long it may take, if less than usual is left.

        ``at`` is a signed URL of another process of the service, with the same effect as ``path``; the location of a 307 is such a
        URL too. No token is sent to these URLs, and when the other process cannot be reached, ``path`` is used instead.
        """
        response = await self._open_at(method, at, content, headers) if at is not None else None
        if response is None:
            response = await self._open(method, path, params, content, headers, wait_s, limit_s)
        if response.status_code == HTTPStatus.TEMPORARY_REDIRECT:
            await response.aread()
            there = await self._open_at(method, response.headers.get("location", ""), content, headers)
            here = {key: value for key, value in (params or {}).items() if key != "redirect"}
            response = there or await self._open(method, path, here, content, headers, wait_s, limit_s)
        try:
            if not response.is_success:
                await response.aread()
                raise error_of(response)
            yield response
        except httpx.TransportError as error:
            raise self._unavailable(error, method) from error
        finally:
            await response.aclose()

    async def _open_at(self, method: str, url: str, content: Content, headers: Mapping[str, str] | None) -> httpx.Response | None:
        """None when the URL cannot be reached, or when it would be unencrypted although the service's own URL is not."""
        if self._uses_one_port or (self._url.startswith("https:") and not url.startswith("https:")):
            return None
        client, timeout = self._client(), httpx.Timeout(self._timeout_s, connect=CONNECT_S)
        try:
            with self._listening(0.0) as silence:
                body = silence.watched(content)
                request = client.build_request(method, url, content=body, headers=headers, timeout=timeout)
                return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL):
            self._uses_one_port = True
            return None
        except httpx.TransportError as error:
            raise self._unavailable(error, method) from error

    async def _open(
        self,
        method: str,
        path: str,
        params: Params | None,
        content: Content,
        headers: Mapping[str, str] | None,
        wait_s: float,
        limit_s: float | None,
    ) -> httpx.Response:
        """Send the request, and once more to the service's new address when the old one refuses the connection or the token.

        That is safe for every request, because the first try had no effect.
        """
        most_s = self._timeout_s if limit_s is None else max(limit_s, LEAST_S)
        for is_last in (self._rediscover is None, True):
            client, before = self._client(), (self._url, self._token)
            try:
                with self._listening(wait_s, most_s) as silence:
                    request = client.build_request(
                        method,
                        f"{self._url}{PREFIX}{path}",
                        params=[
                            (key, _text(one))
                            for key, value in (params or {}).items()
                            for one in (value if isinstance(value, list) else [value])
                            if one is not None
                        ],
                        content=silence.watched(content),
                        headers={"Authorization": f"Bearer {self._token}", **(headers or {})},
                        timeout=httpx.Timeout(most_s, read=most_s + wait_s),
                    )
                    response = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                await self.find_again()
                if is_last or before == (self._url, self._token):
                    raise self._unavailable(error, method) from error
                continue
            except httpx.TransportError as error:
                raise self._unavailable(error, method) from error
            if response.status_code == Unauthenticated.status and not is_last:
                await self.find_again()
                if before != (self._url, self._token):
                    await response.aclose()
                    continue
            return response
        raise AssertionError("the second try returns or raises")

    def _listening(self, wait_s: float, most_s: float | None = None) -> Silence:
        """While it is entered, the user is told when nothing comes: where there is time to tell it and to wait on."""
        most_s = self._timeout_s if most_s is None else most_s
        who = HUBS_OWN if is_user_of_hub(os.environ) else f"The control plane at {self._url}"
        sentence = (
            f"{who} has not answered for {SILENCE_S + wait_s:g} s: it may be overloaded or halted. "
            f"It is waited for {most_s - SILENCE_S:.0f} s more at most; Ctrl-C ends the wait."
        )
        return Silence(self._say if most_s > SILENCE_S + LEAST_S else None, sentence, SILENCE_S + wait_s)

    def _unavailable(self, error: httpx.TransportError, method: str) -> Unavailable:
        is_on_hub = is_user_of_hub(os.environ)
        who = HUBS_OWN if is_on_hub else self._url
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            late = "" if method == "GET" else "; what was asked for may still be done, so look first"
            return Unavailable(
                f"{who} did not answer within {self._timeout_s:g} s: it may be overloaded or halted, try again{late}."
            )
        if not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return Unavailable(f"The connection to {who} broke ({type(error).__name__}); it may be restarting, try again.")
        if is_on_hub:
            return Unavailable(f"{who} does not answer; what runs goes on. Try again soon, and tell the hub's admin if it lasts.")
        if self._rediscover is None:
            return Unavailable(f"Nobody answers at {who}; try again in a minute, or tell whoever runs the control plane there.")
        return Unavailable(f"Nobody answers at {who}; `tuttilab status` shows what runs, `tuttilab up` starts it.")


def _text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if problem := wire.check_text(text):
        raise BadInput(problem)
    return text
