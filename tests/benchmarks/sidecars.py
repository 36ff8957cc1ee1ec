"""A control plane full of running jobs, and their side-cars: for figures of heartbeats and of recovery.

The jobs are written as the service would have written them, by its own state in its own turns, on a cluster that it is not
connected to; their side-cars then report over HTTP as `sidecar.heartbeat` does, each time on a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.contract.building import a_job
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import MASTER, Attempt, Cluster, Gang, Job, Node, PodSet, Queue
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.scheduler.service.launch_plans import Secrets
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.sidecar.protocol import pod_token

ELSEWHERE = "elsewhere"
QUEUES = (Queue("root"), Queue("default", parent="root"))
"""Those of a configuration that names none."""
EACH = Resources.of({"cpu": 1000, "memory": 2**28})


@dataclass(frozen=True)
class Reporter:
    """One that reports, a master or the side-car of a job of one pod: the request that it sends, but for its ``seq``."""

    head: bytes
    body: str

    def request(self, seq: int) -> bytes:
        body = self.body.replace('"SEQ"', str(seq)).encode()
        return self.head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def fill(url: str, jobs: int, pods_each: int) -> list[Attempt]:
    """Running jobs in a new database; answers their attempts."""
    store = SqlStore(url)
    state = State(epoch=await store.open())
    nodes = tuple(Node(f"n{number}", ELSEWHERE, Resources.of({"cpu": 10**9, "memory": 2**50})) for number in range(100))
    turn = Turn(state, time.time())
    turn.apply(ev.QueuesConfigured(QUEUES), "queues")
    turn.apply(ev.ClusterObserved(Cluster(ELSEWHERE, "fake", nodes)), ELSEWHERE)
    await store.commit(turn.batch())
    made: list[Attempt] = []
    for order in range(1, jobs + 1):
        job = a_job(
            order,
            id=f"{order:026d}",
            queue=QUEUES[-1].name,
            gang=Gang((PodSet("worker", pods_each, EACH),)),
            submitted_at=turn.now,
        )
        _start(turn, job, nodes)
        made.append(state.attempts[job.id, 1])
        if order % 500 == 0 or order == jobs:
            await store.commit(turn.batch())
            turn = Turn(state, time.time())
    # So that nobody waits for the end of a lease.
    await store.release(state.epoch)
    await store.close()
    return made


def _start(turn: Turn, job: Job, nodes: Sequence[Node]) -> None:
    turn.apply(ev.JobSubmitted(job), job.id)
    size = job.gang.size
    places = [ev.Placement("worker", rank, nodes[(job.order + rank) % len(nodes)].name) for rank in range(size)]
    if size > 1:
        places.insert(0, ev.Placement(MASTER, -1, nodes[0].name))
    turn.apply(ev.GangAdmitted(job.id, 1, ELSEWHERE, tuple(places), turn.state.epoch), job.id)
    attempt = turn.state.live_attempt(job.id)
    assert attempt is not None, "the queue and the nodes have room for all of them"
    for pod in attempt.pods:
        turn.apply(ev.PodSeen(job.id, 1, pod.name, f"uid-{pod.name}"), job.id)
        turn.apply(ev.PodReady(job.id, 1, pod.name), job.id)
        turn.apply(ev.PodStarted(job.id, 1, pod.name), job.id)


def reporters(attempts: Sequence[Attempt], url: str, key: Path) -> list[Reporter]:
    secrets = Secrets.of(str(key), key.parent)
    host = urlsplit(url).netloc
    made = []
    for attempt in attempts:
        members: list[dict[str, object]] = [
            {"pod": pod.name, "rank": pod.rank, "phase": "Running", "uid": pod.uid, "exit_code": None, "reason": "",
             "endpoints": {}, "outputs": {}}
            for pod in attempt.members
        ]  # fmt: skip
        body = {"job_id": attempt.job_id, "attempt": 1, "epoch": attempt.epoch, "seq": "SEQ", "members": members}
        sender = attempt.pods[0]
        token = pod_token(secrets.attempt_key(attempt.job_id, 1, attempt.epoch), sender.rank, sender.name)
        head = (
            f"POST /api/v1/pods/report?job_id={attempt.job_id}&attempt=1&epoch={attempt.epoch} HTTP/1.1\r\n"
            f"Host: {host}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
        )
        made.append(Reporter(head.encode(), json.dumps(body)))
    return made


async def asked_period(sender: Reporter, url: str) -> float:
    """Seconds after which the control plane wants the next report, as it says in answer to a first one."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname or "", parts.port or 0)
    writer.write(sender.request(1))
    answer = await reader.read()
    writer.close()
    return float(json.loads(answer.partition(b"\r\n\r\n")[2])["next_s"])


async def beat(senders: Sequence[Reporter], url: str, period_s: float, for_s: float) -> tuple[int, list[float]]:
    """Every one reports once a period, spread evenly; answers how many were refused, and how long each answer took."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    refused = 0
    times: list[float] = []

    async def send(reporter: Reporter, seq: int) -> None:
        nonlocal refused
        sent = time.perf_counter()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(reporter.request(seq))
        answer = await reader.read()
        writer.close()
        refused += not answer.startswith(b"HTTP/1.1 200")
        times.append(time.perf_counter() - sent)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(for_s / period_s * len(senders))):
            pause = began + number * period_s / len(senders) - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            group.create_task(send(senders[number % len(senders)], number // len(senders) + 2))
    return refused, times
