"""How long others wait while big artifacts are sent: `python -m tests.benchmarks.artifacts`."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.synchronize import Event as EventHere

import httpx

from tests.benchmarks.figures import Figure
from tests.benchmarks.planes import control_plane
from tuttilab.scheduler.client import AsyncClient, Client
from tuttilab.scheduler.runtime import discovery

SENDERS = 3
BYTES = 192 * 2**20
PAUSE_S = 0.01

Send = Callable[[AsyncClient, httpx.AsyncClient, bytes, str], Awaitable[object]]


async def beside(client: AsyncClient, _http: httpx.AsyncClient, content: bytes, _id: str) -> None:
    await client.put_artifact(content)


async def through(_client: AsyncClient, http: httpx.AsyncClient, content: bytes, id: str) -> None:
    (await http.put(f"/api/v1/artifacts/{id}", content=content)).raise_for_status()


def contents(seed: int) -> list[tuple[bytes, str]]:
    """Made before anything is timed."""
    made = [seed.to_bytes(4) + number.to_bytes(4) + os.urandom(2**20) * (BYTES // 2**20) for number in range(SENDERS)]
    return [(content, hashlib.sha256(content).hexdigest()) for content in made]


def _send_all(url: str, token: str, send: Send, seed: int, is_ready: EventHere, may_begin: EventHere) -> None:
    """In a process of its own, as senders are: it must not keep the one who measures from measuring."""
    given = contents(seed)
    is_ready.set()
    may_begin.wait()

    async def go() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        async with AsyncClient(url, token) as client, httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            await asyncio.gather(*(send(client, http, *one) for one in given))

    asyncio.run(go())


def _measure(client: Client, token: str, send: Send, seed: int) -> tuple[list[float], float]:
    """Seconds of each answer meanwhile, and seconds of the whole."""
    context = multiprocessing.get_context("spawn")
    is_ready, may_begin = context.Event(), context.Event()
    sender = context.Process(target=_send_all, args=(client.url, token, send, seed, is_ready, may_begin))
    sender.start()
    is_ready.wait()
    client.quota()
    waits: list[float] = []
    began = time.perf_counter()
    may_begin.set()
    while sender.is_alive():
        asked = time.perf_counter()
        client.quota()
        waits.append(time.perf_counter() - asked)
        time.sleep(PAUSE_S)
    took = time.perf_counter() - began
    if sender.exitcode != 0:
        raise RuntimeError("the artifacts could not be sent; see above.")
    return waits, took


def answers_while_artifacts_are_sent() -> Figure:
    """The 99th percentile of a small request's answer beside the uploads, against the same with the bytes through its process."""
    with control_plane() as (client, environ):
        token = discovery.ensure_started(environ).token
        apart, apart_s = _measure(client, token, beside, 1)
        same, same_s = _measure(client, token, through, 2)
    note = (
        f"peer: through the control plane itself; {SENDERS} uploads of {BYTES // 2**20} MiB took {apart_s:.1f} s, "
        f"there {same_s:.1f} s; medians {statistics.median(apart) * 1000:.1f} and {statistics.median(same) * 1000:.1f} ms"
    )
    return Figure("answer beside uploads, p99", _p99(apart), _p99(same), note)


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


if __name__ == "__main__":
    sys.stdout.write(answers_while_artifacts_are_sent().line() + "\n")
