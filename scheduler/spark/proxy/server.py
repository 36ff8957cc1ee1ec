"""The process of the Spark proxy: `tuttilab spark-proxy`. Runs until SIGTERM, or until the control plane that started it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from tuttilab.scheduler.domain.errors import BadInput, EnvironmentProblem
from tuttilab.scheduler.runtime.addresses import address_of, is_loopback
from tuttilab.scheduler.spark.proxy.limits import Calls, Limits
from tuttilab.scheduler.spark.proxy.relay import Relay
from tuttilab.scheduler.spark.proxy.routes import Routes

DRAIN_S: Final = 2.0
"""How long calls may go on when the process ends. Longer ones are taken up again by their clients."""
ROOM_FOR_OWNER: Final = 1024
"""Bytes by which a message grows on its way."""
COUNTS_EVERY_S: Final = 2.0
LONGEST_HEAD: Final = 8192
HEAD_S: Final = 10.0

log = logging.getLogger("tuttilab.scheduler.spark.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`listen` and `metrics` are HOST:PORT; port 0 takes any that is free. `with_parent`: end when standard input ends, and
    tell the port and the counters on standard output, in lines of JSON."""

    url: str
    token_file: Path
    listen: str = "127.0.0.1:0"
    certificate: Path | None = None
    key: Path | None = None
    metrics: str = ""
    with_parent: bool = False


def run(settings: Settings, limits: Limits | None = None) -> int:
    """Raises BadInput and EnvironmentProblem for settings with which it cannot start."""
    asyncio.run(_run(settings, Calls(limits or Limits())))
    return 0


async def _run(settings: Settings, calls: Calls) -> None:
    host, port = address_of(settings.listen, "--listen")
    credentials = _credentials(settings, host)
    routes = Routes(settings.url, settings.token_file)
    relay = Relay(routes, calls)
    server = grpc.aio.server(handlers=(relay,), options=_options(calls.limits))
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(name, credentials) if credentials else server.add_insecure_port(name)
    except RuntimeError as error:
        raise EnvironmentProblem(
            f"--listen: {settings.listen} cannot be used; end what listens there, or choose another port (0: any that is free)."
        ) from error
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    await server.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(routes.close)
        stack.push_async_callback(relay.close)
        stack.push_async_callback(server.stop, DRAIN_S)
        if settings.metrics:
            await stack.enter_async_context(_serving_metrics(settings.metrics, calls))
        if settings.with_parent:
            telling = asyncio.create_task(_tell(bound, calls))
            stack.callback(telling.cancel)
            await _watch_input(end)
        else:
            log.info("ready: %s at port %d of %s", "grpcs" if credentials else "grpc", bound, host)
        await end.wait()


def _options(limits: Limits) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", limits.message_bytes - ROOM_FOR_OWNER),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.max_concurrent_streams", limits.user_calls * 2),
        ("grpc.so_reuseport", 1),
        # A caller that vanished without a word is noticed, and its calls end.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )


def _credentials(settings: Settings, host: str) -> grpc.ServerCredentials | None:
    """None on loopback without a certificate. Raises BadInput where tokens would go over a network in clear text."""
    if settings.certificate is None and settings.key is None:
        if not is_loopback(host):
            raise BadInput(
                f"--listen: {host} is not of this machine alone, and tokens would go to it in clear text; "
                "give --certificate and --key, or listen at 127.0.0.1."
            )
        return None
    if settings.certificate is None or settings.key is None:
        raise BadInput("--certificate and --key go together; give both.")
    try:
        return grpc.ssl_server_credentials([(settings.key.read_bytes(), settings.certificate.read_bytes())])
    except OSError as error:
        raise EnvironmentProblem(f"{error.filename} cannot be read ({error.strerror}); give a file in PEM form.") from error


async def _watch_input(end: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    class Input(asyncio.Protocol):
        def connection_lost(self, _error: Exception | None) -> None:
            end.set()

    await loop.connect_read_pipe(Input, sys.stdin)


async def _tell(port: int, calls: Calls) -> None:
    last = ""
    while True:
        text = "".join(line + "\n" for line in calls.text())
        if text != last:
            last = text
            os.write(sys.stdout.fileno(), json.dumps({"port": port, "metrics": text}).encode() + b"\n")
        await asyncio.sleep(COUNTS_EVERY_S)


@contextlib.asynccontextmanager
async def _serving_metrics(address: str, calls: Calls) -> AsyncIterator[None]:
    """`GET /metrics` for Prometheus, which needs no token: there are only numbers, and no user's name."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                is_ours = head.startswith(b"GET /metrics ")
                body = "".join(line + "\n" for line in calls.text()).encode() if is_ours else b"not found\n"
                status = b"200 OK" if is_ours else b"404 Not Found"
                kind = b"text/plain; version=0.0.4; charset=utf-8"
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                    % (status, kind, len(body), body)
                )
                await writer.drain()
        writer.close()

    host, port = address_of(address, "--metrics")
    try:
        server = await asyncio.start_server(answer, host, port, limit=LONGEST_HEAD)
    except OSError as error:
        raise EnvironmentProblem(f"--metrics: {address} cannot be used ({error.strerror}); choose another port.") from error
    log.info("metrics at http://%s:%d/metrics", host, server.sockets[0].getsockname()[1])
    try:
        yield
    finally:
        server.close()
