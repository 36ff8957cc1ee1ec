"""What the clusters show, taken in as events: as it changes, and by a look at all of it now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol, TypeVar

from tuttilab.scheduler import events as ev
from tuttilab.scheduler import reconcile
from tuttilab.scheduler.clusters.base import Cluster, Observation, PodState
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.errors import ClusterError, StaleEpoch, StoreError, Unavailable
from tuttilab.scheduler.heartbeats import Heartbeats
from tuttilab.scheduler.instructions import Instruction
from tuttilab.scheduler.performing import Performer, look
from tuttilab.scheduler.turn import Turn

T = TypeVar("T")
log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 30.0


class Loop(Protocol):
    """What watching needs of the service."""

    state: State
    heartbeats: Heartbeats

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        """``run`` in the next turn; its answer after the commit of what it applied."""
        ...

    def take_in_pods(self, turn: Turn, pods: Collection[PodState], /) -> None:
        """Apply what is news about these pods."""
        ...

    def step_down(self, stale: StaleEpoch, /) -> None:
        """Another process leads, as a cluster knows."""
        ...


class Watcher:
    def __init__(self, loop: Loop, performer: Performer, kinds: Mapping[str, str]) -> None:
        """``performer`` does again what a look finds undone; ``kinds``: of each cluster."""
        self._loop = loop
        self._performer = performer
        self._kinds = kinds

    async def watch(self, name: str, cluster: Cluster, looked: asyncio.Event) -> None:
        """Turn what the cluster shows into events, for as long as the service lives."""
        pause = 0.2
        while True:
            try:
                known = reconcile.seen_pods(self._loop.state)
                async for observation in cluster.observe():
                    await self._take_in(name, observation, known)
                    looked.set()
                    pause = 0.2
            except StaleEpoch as stale:
                self._loop.step_down(stale)
                return
            except ClusterError as error:
                log.warning("cluster %s does not answer: %s", name, error)
                looked.set()
                with contextlib.suppress(StoreError, Unavailable):
                    await self._loop.ask(lambda turn: self._lose(turn, name))
            except (StoreError, Unavailable) as error:
                log.warning("what cluster %s shows could not be committed, it is looked at again: %s", name, error)
            except Exception:
                log.exception("watching cluster %s broke, it is looked at again", name)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)

    async def look_again(self, name: str, cluster: Cluster) -> None:
        """A stream of changes does not tell what is not there: pods that are gone, and what was not carried out."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                known = reconcile.seen_pods(self._loop.state)
                await self._take_in(name, await look(cluster), known)
            except (ClusterError, StoreError, Unavailable) as error:
                log.warning("cluster %s could not be looked at again: %s", name, error)

    @staticmethod
    def _lose(turn: Turn, name: str) -> None:
        known = turn.state.clusters.get(name)
        if known is not None and known.unreachable_since is None:
            turn.apply(ev.ClusterLost(name), name)

    async def _take_in(self, name: str, seen: Observation, known: frozenset[str]) -> None:
        """``known``: the pods that were seen before this look began. One that was made since is not gone."""
        again: list[Instruction] = []

        def run(turn: Turn) -> None:
            row = turn.state.clusters.get(name)
            if row is not None and row.unreachable_since is not None:
                turn.apply(ev.ClusterBack(name), name)
            nodes = reconcile.cluster_event(turn.state, name, self._kinds.get(name, "fake"), seen)
            if nodes is not None:
                turn.apply(nodes, name)
            again.extend(reconcile.orphans(turn.state, name, seen.pods))
            pods = [pod for pod in seen.pods if not reconcile.is_of_another_life(turn.state, pod)]
            self._loop.take_in_pods(turn, pods)
            if seen.is_complete:
                gone = reconcile.gone_pods(turn.state, name, pods, known)
                self._loop.heartbeats.looked(turn.state, gone, [pod.name for pod in pods], turn.now)
                again.extend(reconcile.to_do_again(turn.state, name, pods))

        await self._loop.ask(run)
        for instruction in again:
            self._performer.perform(instruction)
