"""Clusters to ask the same questions of, plans to launch on them, and somebody who watches what they show."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan, LogChunk, Observation, PodPlan, PodState
from tuttilab.scheduler.clusters.fake import STEPS, FakeCluster
from tuttilab.scheduler.clusters.kubernetes.cluster import KubernetesCluster
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.clusters.local.cluster import LocalCluster
from tuttilab.scheduler.clusters.local.owners import Owners, OwnersSettings
from tuttilab.scheduler.domain.model import MASTER, Node, Work
from tuttilab.scheduler.domain.resources import NOTHING, Resources
from tuttilab.sidecar.protocol import pod_token

DEADLINE_S = 120.0
GANG_KEY = "secret-key"
LAST_EPOCH = 2**40
NODES = (
    Node("a", "here", Resources.parse({"cpu": 8, "memory": "16Gi", "nvidia.com/gpu": 4})),
    Node("b", "here", Resources.parse({"cpu": 8, "memory": "16Gi"})),
)


def plan(
    job: str,
    *command: str,
    members: int = 1,
    attempt: int = 1,
    resources: Resources | None = None,
    work: dict[str, Any] | None = None,
    node: str = "a",
    **given: Any,
) -> LaunchPlan:
    """One attempt on one node: a single pod, or a master and its members."""
    asked = resources or Resources.parse({"cpu": "0.1"})
    pods = [PodPlan(f"{job}-{attempt}-{rank}", "worker", rank, node, asked) for rank in range(members)]
    if members > 1:
        pods.insert(0, PodPlan(f"{job}-{attempt}-master", MASTER, -1, node, NOTHING))
    return LaunchPlan(
        job_id=job,
        attempt=attempt,
        owner="ann",
        kind="batch",
        epoch=1,
        work=Work(command, **(work or {})),
        pods=tuple(replace(pod, token=pod_token(GANG_KEY, pod.rank, pod.name)) for pod in pods),
        gang_key=GANG_KEY,
        # Nobody listens at the discard port: pods live without a control plane.
        **{"report_url": "http://127.0.0.1:9", **given},
    )


def growth(of: LaunchPlan, *ranks: int, times: int = 1, **given: Any) -> LaunchPlan:
    """The plan of the same attempt, which runs, after it was given members of these ranks."""
    made = tuple(replace(pod, was_made=True) for pod in of.pods)
    first = of.pods[-1]
    names = {rank: f"{of.job_id}-{of.attempt}-{rank}-g{times}" for rank in ranks}
    more = [
        replace(first, name=name, rank=rank, joins=True, token=pod_token(of.gang_key, rank, name), **given)
        for rank, name in names.items()
    ]
    return replace(of, pods=(*made, *more))


class Place:
    """Where pods run; `open` comes back to it as a control plane does after a restart."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        nodes: Mapping[str, str] | None = None,
        kubernetes: Any = None,
        owners: OwnersSettings | None = None,
        **settings: Any,
    ) -> None:
        """``nodes``: the names by which the place has the nodes a and b. ``kubernetes``: its `KubernetesSettings`.

        ``owners``: pods of a local cluster run as the users who own their jobs.
        """
        self.kind = kind
        self.folder = folder if owners is None else owners.folder / "here"
        self._nodes = nodes or {}
        self._kubernetes: KubernetesSettings | None = kubernetes
        self._owners = owners
        self._settings = settings
        self._fake: FakeCluster | None = None
        self._opened: list[LocalCluster | KubernetesCluster] = []

    @property
    def has_owners(self) -> bool:
        """Whether pods run as the users who own their jobs."""
        return self._owners is not None

    def node(self, name: str) -> str:
        return self._nodes.get(name, name)

    @property
    def while_others_start(self) -> str:
        """Seconds that are enough for more pods to start."""
        return "25" if self.kind == "kubernetes" else "4"

    def shows_its_nodes(self, shown: Sequence[Node] | None) -> bool:
        if self.kind == "kubernetes":
            return {node.name for node in shown or ()} == set(self._nodes.values())
        return shown == NODES

    def plan(self, job: str, *command: str, **given: Any) -> LaunchPlan:
        """`plan` on node a of this place."""
        return plan(job, *command, node=self.node("a"), **given)

    def open(self) -> Cluster:
        if self.kind == "fake":
            self._fake = FakeCluster("here", NODES) if self._fake is None else self._fake.another_client()
            return self._fake
        if self._kubernetes is not None:
            # Of the folder, as that of a control plane is of its key.
            installation = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
            self._opened.append(KubernetesCluster("here", self._kubernetes, self.folder, installation, **self._settings))
            return self._opened[-1]
        owners = None if self._owners is None else Owners(self._owners, "here", self._owners.folder / "state")
        cluster = LocalCluster("here", NODES, self.folder, os.environ, sys.executable, owners=owners, **self._settings)
        self._opened.append(cluster)
        return cluster

    def command(self, *steps: str) -> tuple[str, ...]:
        """Of steps as `FakeCluster` has them."""
        if self.kind == "fake":
            return steps
        shell = {"print": "echo", "sleep": "sleep", "exit": "exit"}
        words, lines = list(steps), []
        if self.kind == "kubernetes":
            # The command is the first process of its container, for which the kernel has no default end at a signal.
            lines.append("trap 'exit 143' TERM")
            shell["sleep"] = "sleep_for"
            lines.append('sleep_for() { sleep "$1" & wait $!; }')
        while words:
            match words.pop(0):
                case "stubborn":
                    # A shell that ignores the signal passes that on to what it starts.
                    lines.append("trap '' TERM")
                case word:
                    lines.append(f"{shell[word]} {shlex.quote(words.pop(0))}")
        return ("sh", "-c", "\n".join(lines))

    def failing(self, of: LaunchPlan, rank: int, exit_code: int) -> LaunchPlan:
        """The same plan, but the member of that rank fails at once."""
        if self.kind == "fake":
            own = {STEPS: f"exit {exit_code}"}
            return replace(of, pods=tuple(replace(pod, env=own) if pod.rank == rank else pod for pod in of.pods))
        script = f'[ "$TUTTILAB_RANK" = {rank} ] && exit {exit_code}; exec {shlex.join(of.work.command)}'
        return with_command(of, "sh", "-c", script)

    async def close(self) -> None:
        """Ends what still runs."""
        if self.kind != "fake":
            cluster = self.open()
            await cluster.lead(LAST_EPOCH)
            async with watching(cluster) as seen:
                attempts = {(pod.job_id, pod.attempt) for pod in seen.pods.values()}
            for job, attempt in attempts:
                await cluster.forget(job, attempt)
        for each in self._opened:
            await each.close()


class Seen:
    """What a cluster has shown so far: the newest state of each pod, and all of them in order."""

    def __init__(self) -> None:
        self.pods: dict[str, PodState] = {}
        self.history: list[PodState] = []
        self.first: Observation | None = None
        self._news = asyncio.Condition()

    async def take(self, observation: Observation) -> None:
        async with self._news:
            self.first = self.first or observation
            self.history.extend(observation.pods)
            self.pods.update({pod.name: pod for pod in observation.pods})
            self._news.notify_all()

    async def until(self, is_there: Callable[[dict[str, PodState]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._news:
            await self._news.wait_for(lambda: is_there(self.pods))

    async def phase(self, phase: str, *pods: str) -> list[PodState]:
        """Their states, once all of them are in ``phase``."""
        await self.until(lambda seen: all(name in seen and seen[name].phase == phase for name in pods))
        return [self.pods[name] for name in pods]

    async def ended(self, *pods: str) -> list[PodState]:
        return await self.phase("Ended", *pods)

    def phases(self, pod: str) -> list[str]:
        return [str(state.phase) for state in self.history if state.name == pod]


@contextlib.asynccontextmanager
async def watching(cluster: Cluster) -> Any:  # Any: AsyncIterator[Seen], which the decorator turns around
    seen = Seen()

    async def watch() -> None:
        async with contextlib.aclosing(cluster.observe()) as stream:
            async for observation in stream:
                await seen.take(observation)

    task = asyncio.create_task(watch())
    try:
        await seen.until(lambda _: seen.first is not None or task.done())
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def first_lines(cluster: Cluster, of: LaunchPlan, count: int = 1, rank: int = 0) -> LogChunk:
    """Once there are at least ``count``."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            chunk = await lines_from(cluster, of, 0, 1000, rank)
            if len(chunk.lines) >= count:
                return chunk
            await asyncio.sleep(0.01)


async def all_lines(cluster: Cluster, of: LaunchPlan, rank: int = 0, step: int = 1000) -> list[str]:
    """From the first line on, until the end is shown."""
    lines: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        while True:
            chunk = await lines_from(cluster, of, len(lines), step, rank)
            lines.extend(chunk.lines)
            if chunk.is_end:
                return lines
            await asyncio.sleep(0.01)


async def lines_from(cluster: Cluster, of: LaunchPlan, start: int, limit: int, rank: int = 0) -> LogChunk:
    pod = next(pod.name for pod in of.pods if pod.rank == rank)
    return await cluster.logs(of.job_id, of.attempt, pod, start, limit)


def with_command(of: LaunchPlan, *command: str) -> LaunchPlan:
    return replace(of, work=replace(of.work, command=command))
