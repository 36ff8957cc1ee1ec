"""Requests of the hub to the control plane over aiohttp, on which kubespawner's client stands too.

A hub spawns dozens of servers at once, in one thread. httpx's own connections cost that thread several milliseconds a request then,
because each request looks at all of them; aiohttp's cost a fifth of one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp

from tuttilab.scheduler.runtime.http_library import httpx

CONNECTIONS: Final = 200
"""A spawn that waits for room keeps one."""
KEEP_S: Final = 3.0
"""For how long an unused connection is kept: shorter than the control plane keeps it."""
_SENT_BY_HTTPX: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """aiohttp's errors as those that the client of the control plane knows."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except TimeoutError as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except aiohttp.InvalidURL as error:
        raise httpx.UnsupportedProtocol(str(error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        # It was connected: what was asked for may have been done.
        raise httpx.RemoteProtocolError(str(error), request=request) from error


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for block in self._response.content.iter_any():
                yield block

    async def aclose(self) -> None:
        # A body that was read whole leaves its connection for others.
        self._response.release() if self._response.content.at_eof() else self._response.close()


class HubTransport(httpx.AsyncBaseTransport):
    """For `scheduler.client.AsyncClient`. Make and use it in one event loop."""

    def __init__(self, *, trust_env: bool, verify: bool) -> None:
        """``trust_env``: whether proxies of the environment are used. ``verify``: whether TLS is used at all."""
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS, keepalive_timeout=KEEP_S, ssl=httpx.create_ssl_context() if verify else False
        )
        self._session = aiohttp.ClientSession(connector=connector, trust_env=trust_env, auto_decompress=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.get("connect"), sock_read=limits.get("read"))
        body = await request.aread()
        with _as_httpx(request):
            answer = await self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=body or None,
                allow_redirects=False,
                timeout=timeout,
                skip_auto_headers=_SENT_BY_HTTPX,
            )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer, request))

    async def aclose(self) -> None:
        await self._session.close()
