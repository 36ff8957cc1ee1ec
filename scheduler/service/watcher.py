"""Turns observations of clusters into events: changes as they come, and complete observations periodically."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, Protocol, TypeVar

from tuttilab.scheduler.clusters.base import Cluster, Observation, PodState
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import ClusterError, StaleEpoch, StoreError, Unavailable
from tuttilab.scheduler.domain.instructions import Instruction
from tuttilab.scheduler.domain.model import Cluster as ClusterRow
from tuttilab.scheduler.service import reconcile
from tuttilab.scheduler.service.heartbeats import Heartbeats
from tuttilab.scheduler.service.performer import Performer, observe_once
from tuttilab.scheduler.service.turn import Turn

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
"""Between two looks at a cluster that does not answer: jobs wait for the one that is answered."""
LONGEST_WHY: Final = 400
"""Characters of why a cluster does not answer."""


class Loop(Protocol):
    """What the watcher needs of the service."""

    state: State
    heartbeats: Heartbeats

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        """``run`` in the next turn; returns after the commit of what it applied."""
        ...

    def apply_pod_states(self, turn: Turn, pods: Collection[PodState], /) -> None:
        """Apply the changes of these pods."""
        ...

    def step_down(self, stale: StaleEpoch, /) -> None:
        """Stop deciding and committing: another process leads."""
        ...


class Watcher:
    def __init__(self, loop: Loop, performer: Performer, kinds: Mapping[str, str], observe_every_s: float) -> None:
        """``performer`` does to_repeat what a observe_once finds undone; ``kinds``: of each cluster."""
        self._loop = loop
        self._performer = performer
        self._kinds = kinds
        self._observe_every_s = observe_every_s
        self._told: set[tuple[str, int]] = set()
        """Attempts of which it was told that pods outlived them."""

    async def watch(self, name: str, cluster: Cluster, observed: asyncio.Event) -> None:
        """Turn observations into events for as long as the service runs. Sets ``observed`` after the first one."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                known = reconcile.seen_pods(self._loop.state)
                async for observation in cluster.observe():
                    await self._apply_observation(name, observation, known)
                    observed.set()
                    pause = FIRST_PAUSE_S
            except StaleEpoch as stale:
                self._loop.step_down(stale)
                return
            except ClusterError as error:
                log.warning("cluster %s does not answer: %s", name, error)
                observed.set()
                with contextlib.suppress(StoreError, Unavailable):
                    await self._loop.ask(partial(self._lose, name, str(error)))
            except (StoreError, Unavailable) as error:
                log.warning("what cluster %s shows could not be committed, it is observed at again: %s", name, error)
            except Exception:
                log.exception("watching cluster %s broke, it is observed at again", name)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def observe_periodically(self, name: str, cluster: Cluster) -> None:
        """Observe the cluster completely: a stream of changes shows neither missing pods nor instructions without effect."""
        while True:
            await asyncio.sleep(self._observe_every_s)
            try:
                known = reconcile.seen_pods(self._loop.state)
                await self._apply_observation(name, await observe_once(cluster), known)
            except (ClusterError, StoreError, Unavailable) as error:
                log.warning("cluster %s could not be observed: %s", name, error)

    def _lose(self, name: str, why: str, turn: Turn) -> None:
        """Also one that was never seen: it is there, and jobs for it wait."""
        known = turn.state.clusters.get(name)
        if known is None:
            turn.apply(ev.ClusterObserved(ClusterRow(name, self._kinds.get(name, "fake"))), name)
        if known is None or known.unreachable_since is None:
            turn.apply(ev.ClusterLost(name, why[:LONGEST_WHY]), name)

    async def _apply_observation(self, name: str, seen: Observation, known: frozenset[str]) -> None:
        """``known``: pods seen before the observation began. A pod created since is not missing."""
        to_repeat: list[Instruction] = []
        is_back = False

        def run(turn: Turn) -> None:
            nonlocal is_back
            row = turn.state.clusters.get(name)
            is_back = row is not None and row.unreachable_since is not None
            if is_back:
                turn.apply(ev.ClusterBack(name), name)
            nodes = reconcile.cluster_event(turn.state, name, self._kinds.get(name, "fake"), seen)
            if nodes is not None:
                turn.apply(nodes, name)
            to_repeat.extend(reconcile.orphan_cleanups(turn.state, name, seen.pods))
            self._tell_outlived(turn, seen)
            pods = [pod for pod in seen.pods if not reconcile.is_of_other_epoch(turn.state, pod)]
            self._loop.apply_pod_states(turn, pods)
            if seen.is_complete:
                missing = reconcile.missing_pods(turn.state, name, pods, known)
                self._loop.heartbeats.record_observation(turn.state, missing, [pod.name for pod in pods], turn.now)
                to_repeat.extend(reconcile.instructions_to_repeat(turn.state, name, pods))

        await self._loop.ask(run)
        if is_back:
            self._performer.retry_now()
        for instruction in to_repeat:
            self._performer.perform(instruction)

    def _tell_outlived(self, turn: Turn, seen: Observation) -> None:
        """Once for each attempt, although its pods are seen until they have ended."""
        for event in reconcile.outlived(turn.state, seen.pods, turn.now):
            if (event.job_id, event.attempt) not in self._told:
                self._told.add((event.job_id, event.attempt))
                turn.apply(event, event.job_id)
