"""HTTP to one API server: the official client's configuration, TLS and connections, with JSON as it is.

Typed models of the client cost about a millisecond an object, so bodies and answers are plain JSON. Connections are kept alive and
shared; all calls belong to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config
from kubernetes.aio.client import rest
from pydantic import TypeAdapter

from tuttilab.scheduler.clusters.kubernetes.errors import from_body
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.errors import ClusterUnreachable

# Any: the package says that it has types, and these functions have none.
kubernetes_config: Any = config
# The library that the client stands on: its version is the client's business, and so is that it is installed.
aiohttp: Any = rest.aiohttp  # type: ignore[attr-defined]  # it is imported there

CALL_S: Final = 15.0
"""Of one call; the API server gives up on its own after 60."""
LONGEST_S: Final = 24 * 3600
CONNECTIONS: Final = 100
REFRESH_S: Final = 60.0
"""Between two runs of a kubeconfig's program for credentials."""
CLOCK_S: Final = 2.0
"""A clock that is off by less is right."""
LINE_BYTES: Final = 2**22

WHOLE: Final = "application/json, */*"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
MERGE: Final = "application/merge-patch+json"


_JSON: Final = TypeAdapter(dict[str, Any])


def parsed(text: bytes) -> dict[str, Any]:
    """JSON, with equal texts kept once: the objects of a cluster are much alike."""
    return _JSON.validate_json(text)


class Api:
    """``cluster``: for messages."""

    def __init__(self, cluster: str, settings: KubernetesSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._client: Any = None
        self._streams: Any = None
        """For answers that go on: however many there are, no call waits for their connections."""
        self._connecting = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._ahead_s = 0.0
        """Of our clock, the API server's."""

    def failing_s(self) -> float:
        """For how long no call had an answer; 0 since the last that had one."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def now(self) -> float:
        """Unix time by the API server's clock, which writes when an object was made or deleted: ours may be another."""
        return time.time() + self._ahead_s

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        content_type: str = "application/json",
        accept: str = WHOLE,
    ) -> dict[str, Any]:
        """The answer's JSON. Raises ApiError for a refusal, ClusterUnreachable without an answer."""
        async with self._open(method, path, body, query, content_type, CALL_S, accept) as response:
            try:
                text = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(error) from error
            return parsed(text)

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST of an object; it as it was made, of which the API server tells the metadata alone: the rest is what was sent.

        Raises as `call`.
        """
        made = await self.call("POST", path, body, accept=METADATA)
        return {**body, "metadata": made["metadata"]} if made.get("kind") == "PartialObjectMetadata" else made

    async def batches(
        self, path: str, query: Mapping[str, object], idle_s: float, unfinished: list[bytes] | None = None
    ) -> AsyncGenerator[list[bytes]]:
        """The lines, without line feeds, of an answer that goes on: a watch, or a log that is followed.

        As many at a time as have come. Ends with the answer, or after ``idle_s`` without a byte. What the answer has after its last
        line feed is a line too, unless ``unfinished`` is given to take it. Raises as `call`.
        """
        async with self._open("GET", path, None, query, "application/json", LONGEST_S) as response:
            rest = b""
            while True:
                try:
                    async with asyncio.timeout(idle_s):
                        block = await response.content.readany()
                except TimeoutError:
                    return
                except (aiohttp.ClientError, OSError) as error:
                    raise self._unreachable(error) from error
                if not block:
                    break
                *whole, rest = (rest + block).split(b"\n")
                rest = rest[:LINE_BYTES]
                if whole:
                    yield whole
            if rest and unfinished is not None:
                unfinished.append(rest)
            elif rest:
                yield [rest]

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, object] | None,
        content_type: str,
        limit_s: float,
        accept: str = WHOLE,
    ) -> AsyncGenerator[Any]:
        await self._connected()
        client = self._streams if limit_s == LONGEST_S else self._client
        url = f"{client.configuration.host}{path}{'?' + urlencode(query) if query else ''}"
        # A list of thousands of pods would be compressed otherwise, which costs both sides more than its way does.
        headers = {"Content-Type": content_type, "Accept": accept, "Accept-Encoding": "identity"}
        try:
            auth = await client.configuration.auth_settings()
            if "BearerToken" in auth:
                headers["Authorization"] = auth["BearerToken"]["value"]
            timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=CALL_S)
            answer = await client.call_api(method, url, headers, body, _request_timeout=timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        response = answer.response
        self._failing_since = None
        self._note_time(response.headers.get("Date", ""))
        try:
            if response.status >= 400:
                try:
                    text = await response.text()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    raise self._unreachable(error) from error
                raise from_body(response.status, text)
            yield response
        finally:
            response.release() if response.content.at_eof() else response.close()

    def _note_time(self, date: str) -> None:
        try:
            ahead_s = parsedate_to_datetime(date).timestamp() - time.time()
        except ValueError:
            return  # a proxy before it took the header away
        # It names whole seconds, and is a moment old.
        self._ahead_s = ahead_s if abs(ahead_s) > CLOCK_S else 0.0

    async def _connected(self) -> None:
        if self._client is not None:
            return
        async with self._connecting:
            if self._client is None:
                self._streams, self._client = await self._connect()

    async def _connect(self) -> tuple[Any, Any]:
        settings, configuration = self._settings, kubernetes_client.Configuration()
        where = settings.kubeconfig or "the service account of this pod"
        try:
            if settings.kubeconfig is None:
                kubernetes_config.load_incluster_config(configuration)
            else:
                loader = await kubernetes_config.load_kube_config(
                    settings.kubeconfig, settings.context, configuration, persist_config=False
                )
                refreshing = kubernetes_config.kube_config.refresh_token(loader, configuration, REFRESH_S)
                self._refreshing = asyncio.create_task(refreshing, name=f"credentials of {self._cluster}")
        except (
            kubernetes_config.ConfigException,
            yaml.YAMLError,
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
        ) as error:
            raise ClusterUnreachable(
                f"cluster {self._cluster}: {where} cannot be used ({_one_line(error)}); mend clusters[].kubeconfig or context."
            ) from error
        # What the environment says of proxies is read once: the client would read it, and the user's .netrc, for each call.
        configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.connection_pool_maxsize = 0  # any number
        streams = kubernetes_client.ApiClient(configuration)
        configuration.connection_pool_maxsize = CONNECTIONS
        return streams, kubernetes_client.ApiClient(configuration)

    def _unreachable(self, error: BaseException) -> ClusterUnreachable:
        self._failing_since = self._failing_since or time.monotonic()
        what = str(error) or type(error).__name__
        return ClusterUnreachable(f"cluster {self._cluster}: its API server does not answer ({what[:300]}).")

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for client in (self._streams, self._client):
            if client is not None:
                await client.close()
        self._streams = self._client = None


def _proxy_for(url: str) -> str | None:
    """As HTTPS_PROXY, NO_PROXY and so on have it."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
