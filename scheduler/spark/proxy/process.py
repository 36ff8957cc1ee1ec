"""The control plane's side of `server`: starts the proxy with the first session, starts it again when it dies, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from tuttilab.scheduler.domain.errors import Unavailable
from tuttilab.scheduler.domain.wire import SparkEndpointView
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.runtime.addresses import is_loopback, proxy_address
from tuttilab.scheduler.runtime.children import end_child

TOKEN_FILE: Final = "spark-proxy-token"  # noqa: S105  the file's name
START_S: Final = 30.0
STOP_S: Final = 5.0
PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Before it is started again: the longer the more often it died soon after a start."""
LIVED_S: Final = 30.0
LONGEST_LINE: Final = 256 * 1024

log = logging.getLogger(__name__)


class SparkProxy(Protocol):
    async def before(self, view: SparkEndpointView) -> SparkEndpointView:
        """What the owner is told of the session: where the proxy is, in place of the session's own address and token."""
        ...

    def start_soon(self) -> None:
        """A session is coming up, so the proxy will be needed."""
        ...

    def metrics(self) -> str:
        """Its counters in the text format of Prometheus; empty when it serves them itself."""
        ...

    async def close(self) -> None: ...


class SiteProxy:
    """A proxy that the site runs, at ``grpc://HOST:PORT`` or, with TLS, ``grpcs://HOST:PORT``."""

    def __init__(self, address: str) -> None:
        """Raises BadInput for an address of another form."""
        self._host, self._port, self._has_tls = proxy_address(address)

    async def before(self, view: SparkEndpointView) -> SparkEndpointView:
        return _behind(view, self._host, self._port, self._has_tls)

    def start_soon(self) -> None:
        return None

    def metrics(self) -> str:
        return ""

    async def close(self) -> None:
        return None


class OwnProxy:
    """The proxy on loopback that this control plane runs. Its port stays the same over restarts of either, where it is free."""

    def __init__(self, state: Path, url: str, token: str) -> None:
        """``token``: with it the proxy asks the control plane at ``url``; it is written to a file of the state folder."""
        self._state = state
        self._url = url
        self._token = token
        self._reserved: socket.socket | None = None
        self._metrics = ""
        self._is_up = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @staticmethod
    def is_possible() -> bool:
        """Whether gRPC is installed beside the control plane; it comes with the extra ``spark``."""
        return importlib.util.find_spec("grpc") is not None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def port(self) -> int:
        if self._reserved is None:
            self._reserved = self._reserve()
        return int(self._reserved.getsockname()[1])

    async def before(self, view: SparkEndpointView) -> SparkEndpointView:
        """See SiteProxy. Waits until the proxy is up; raises Unavailable when it does not come up."""
        self.start_soon()
        try:
            async with asyncio.timeout(START_S):
                await self._is_up.wait()
        except TimeoutError as error:
            raise Unavailable("The Spark proxy does not come up; `tuttilab doctor` names the log of the control plane.") from error
        return _behind(view, "127.0.0.1", self.port, False)

    def start_soon(self) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="spark proxy")

    def metrics(self) -> str:
        return self._metrics

    async def close(self) -> None:
        """End the process; calls that are under way have two seconds."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._reserved is not None:
            self._reserved.close()

    def _reserve(self) -> socket.socket:
        """A socket that holds the port while no proxy listens there, as one that does not listen itself."""
        remembered = self._state / "spark-proxy.json"
        last = 0
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            last = int(json.loads(remembered.read_text()[:LONGEST_LINE])["port"])
        for port in (last, 0) if 0 < last < 65536 else (0,):
            held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                held.close()
                continue
            discovery.write_private(remembered, json.dumps({"port": held.getsockname()[1]}))
            return held
        raise Unavailable("There is no free port on 127.0.0.1 for the Spark proxy.")

    async def _watch(self) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            try:
                await self._run_once()
            except (OSError, ValueError, KeyError, Unavailable) as error:
                log.error("the Spark proxy does not start: %s", error)
            self._is_up.clear()
            deaths = 1 if time.monotonic() - began > LIVED_S else deaths + 1
            await asyncio.sleep(PAUSES_S[min(deaths, len(PAUSES_S)) - 1])

    async def _run_once(self) -> None:
        """Until the process has ended."""
        token_file = self._state / TOKEN_FILE
        discovery.write_private(token_file, self._token)
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tuttilab.scheduler.cli", "spark-proxy", "--with-parent",
            "--url", self._url, "--token-file", str(token_file), "--listen", f"127.0.0.1:{self.port}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True, limit=LONGEST_LINE,
            env={name: value for name, value in os.environ.items() if not name.endswith("_TOKEN")},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._metrics = str(json.loads(line)["metrics"])
                if not self._is_up.is_set():
                    log.info("Spark sessions are reached through pid %d at port %d", process.pid, self.port)
                    self._is_up.set()
            log.warning("the Spark proxy ended with %s; it is started again", await process.wait())
        finally:
            await end_child(process, STOP_S)


def proxy_of(setting: str, state: Path, url: str, token: str) -> SparkProxy | None:
    """The proxy that `spark.proxy` of the configuration asks for; None where kernels connect to sessions themselves."""
    if setting == "direct":
        return None
    if setting != "own":
        discovery.write_private(state / TOKEN_FILE, token)
        return SiteProxy(setting)
    if not is_loopback(urlsplit(url).hostname or ""):
        log.warning("kernels connect to Spark sessions directly: spark.proxy names no proxy that other machines reach")
        return None
    if not OwnProxy.is_possible():
        log.warning(
            "gRPC is not installed beside the control plane, so kernels connect to Spark sessions directly; install tuttilab[spark]"
        )
        return None
    return OwnProxy(state, url, token)


def _behind(view: SparkEndpointView, host: str, port: int, has_tls: bool) -> SparkEndpointView:
    return replace(view, host=host, port=port, token="", tls=has_tls, here=view.here and is_loopback(host))
