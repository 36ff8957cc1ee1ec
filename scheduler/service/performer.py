"""Performs committed instructions on the clusters: those of one job in order, those of different jobs concurrently.

Each instruction is retried until the cluster has answered; after a restart `reconcile` finds those that were committed and not
performed. An instruction reads the state in a turn of the loop, so that it never acts on uncommitted state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol, TypeVar

from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan, Observation, PodState
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import Bug, ClusterUnreachable, LaunchRefused, StaleEpoch, StoreError, Unavailable, UserError
from tuttilab.scheduler.domain.instructions import DropJob, DropOrphans, ForgetPods, Instruction, LaunchGang, StopGang, StopPods
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase
from tuttilab.scheduler.domain.titles import title_of
from tuttilab.scheduler.domain.words import GIVEN_BACK, OVER, STOPPED_BECAUSE
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.scheduler.service import reconcile
from tuttilab.scheduler.service.turn import Turn

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
LAUNCH_TIMEOUT_S: Final = 20.0
LEASE_PAUSE_S: Final = 0.1


class Loop(Protocol):
    """What the performer needs of the service."""

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        """``run`` in the next turn; returns after the commit of what it applied."""
        ...

    def plan(self, turn: Turn, job_id: str, attempt: int, /) -> tuple[str, LaunchPlan] | None:
        """Cluster and plan of a launch; None when the attempt must not be launched any more."""
        ...

    def check_launch(self, plan: LaunchPlan, /) -> None:
        """Raises LaunchRefused for what the site does not allow any more."""
        ...

    async def mark_cleaned_up(self, job_id: str, /) -> None:
        """Record that no cluster has pods or files of that deleted job."""
        ...

    def apply_pod_states(self, turn: Turn, pods: Collection[PodState], /) -> None:
        """Apply the changes of these pods."""
        ...

    def step_down(self, stale: StaleEpoch, /) -> None:
        """Stop deciding and committing: another process leads."""
        ...


class Performer:
    def __init__(self, loop: Loop, clusters: Mapping[str, Cluster], may_act: Callable[[], bool] = lambda: True) -> None:
        """``may_act``: whether the clusters may be changed now, for a leader whose lease can expire."""
        self._loop = loop
        self._clusters = clusters
        self._may_act = may_act
        self._queues: dict[str, deque[Instruction]] = {}
        """By job; the first instruction is in flight."""
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._launching: dict[str, asyncio.Event] = {}
        self._deferred_ends: dict[str, dict[str, PodState]] = {}
        self._pausing: dict[asyncio.Event, None] = {}
        """One for each instruction that waits for its next try. In order, so that a simulation repeats itself."""

    def perform(self, instruction: Instruction) -> None:
        queue = self._queues.get(instruction.job_id)
        if queue is None:
            self._queues[instruction.job_id] = deque([instruction])
            task = asyncio.create_task(self._work(instruction.job_id), name=f"perform {instruction.job_id}")
            self._workers[instruction.job_id] = task
        elif instruction not in list(queue)[1:]:
            queue.append(instruction)

    def retry_now(self) -> None:
        """A cluster answers again: what waits for its next try is tried at once."""
        for wake in self._pausing:
            wake.set()

    async def stop(self) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def wait_for_launch(self, job_id: str) -> None:
        """Wait until no launch of the job is in flight. If the job was cancelled before, no pod of it is created after that.

        Raises Unavailable when that takes too long.
        """
        launched = self._launching.get(job_id)
        if launched is None:
            return
        try:
            async with asyncio.timeout(LAUNCH_TIMEOUT_S):
                await launched.wait()
        except TimeoutError:
            raise Unavailable(
                f"Job {title_of(job_id)} will be stopped, but its cluster has not answered its launch for {LAUNCH_TIMEOUT_S:g} s "
                "and may still make pods of it; ask again to hear that none is made any more."
            ) from None

    def defer_end(self, ended: PodState) -> bool:
        """Keep the end of a pod until the launch of its job that is in flight has returned; False without such a launch.

        That launch was planned before the end was known. If the pod vanished from the cluster now, the launch would create it
        again, for an attempt that may have ended by then.
        """
        if ended.job_id not in self._launching:
            return False
        self._deferred_ends.setdefault(ended.job_id, {})[ended.name] = ended
        return True

    async def _work(self, job_id: str) -> None:
        queue = self._queues[job_id]
        try:
            while queue:
                await self._execute_with_retries(queue[0])
                queue.popleft()
        finally:
            del self._queues[job_id], self._workers[job_id]

    async def _execute_with_retries(self, instruction: Instruction) -> None:
        pause = FIRST_PAUSE_S
        while True:
            if not self._may_act():
                await asyncio.sleep(LEASE_PAUSE_S)
                continue
            try:
                point("perform.before")
                await self._execute(instruction)
                point("perform.after")
                return
            except StaleEpoch as stale:
                self._loop.step_down(stale)
                return
            except (ClusterUnreachable, StoreError, Unavailable) as error:
                log.warning("%s: %s; trying again in %.1f s", instruction, error, pause)
            except Exception:
                log.exception("%s broke; trying again in %.1f s", instruction, pause)
            pause = FIRST_PAUSE_S if await self._pause(pause) else min(pause * 2, LONGEST_PAUSE_S)

    async def _pause(self, seconds: float) -> bool:
        """Whether it was cut short."""
        wake = asyncio.Event()
        self._pausing[wake] = None
        try:
            async with asyncio.timeout(seconds):
                return await wake.wait()
        except TimeoutError:
            return False
        finally:
            del self._pausing[wake]

    async def _execute(self, instruction: Instruction) -> None:
        match instruction:
            case LaunchGang(job_id, number):
                await self._launch(job_id, number)
                await self._apply_deferred_ends(job_id)
            case StopGang(job_id, number, grace_s, reason):
                attempt = await self._attempt(job_id, number)
                for cluster in self._clusters_of(attempt):
                    point("stop.before")
                    await cluster.stop(job_id, number, grace_s, why=STOPPED_BECAUSE[reason])
                if attempt is not None and attempt.phase.is_live:
                    await self._end_missing(job_id, number, self._clusters[attempt.cluster])
            case StopPods(job_id, number, pods, grace_s):
                attempt = await self._attempt(job_id, number)
                # If the whole gang is stopping by now, `StopGang` stops these pods too.
                if attempt is not None and attempt.phase is AttemptPhase.RUNNING:
                    cluster = self._clusters[attempt.cluster]
                    point("perform.shrink")
                    await cluster.stop(job_id, number, grace_s, pods, why=GIVEN_BACK)
                    await self._end_missing(job_id, number, cluster, pods)
            case ForgetPods(job_id, number):
                for cluster in self._clusters_of(await self._attempt(job_id, number)):
                    point("forget.before")
                    await cluster.forget(job_id, number)
            case DropOrphans(job_id, number, name, grace_s):
                attempt = await self._attempt(job_id, number)
                # An attempt that got this number meanwhile waits in line behind us: its launch ends what is there.
                if attempt is None or not attempt.phase.is_live or attempt.cluster != name:
                    await self._clusters[name].stop(job_id, number, grace_s, why=OVER)
                    point("forget.before")
                    await self._clusters[name].forget(job_id, number)
            case DropJob(job_id, attempts):
                for cluster in self._clusters.values():
                    for number in range(1, attempts + 1):
                        point("drop.before")
                        await cluster.forget(job_id, number, erase=True)
                await self._loop.mark_cleaned_up(job_id)

    async def _attempt(self, job_id: str, number: int) -> Attempt | None:
        attempt = await self._loop.ask(lambda turn: turn.state.attempts.get((job_id, number)))
        self._check_lease()
        return attempt

    def _check_lease(self) -> None:
        """Check the lease again after a turn, which may have taken longer than the lease."""
        if not self._may_act():
            raise Unavailable("The lease of this leader is not renewed; nothing is done on the clusters meanwhile.")

    def _clusters_of(self, attempt: Attempt | None) -> list[Cluster]:
        return [self._clusters[attempt.cluster]] if attempt is not None else list(self._clusters.values())

    async def _launch(self, job_id: str, number: int) -> None:
        launched = self._launching[job_id] = asyncio.Event()
        planned: tuple[str, LaunchPlan] | None = None
        try:
            planned = await self._loop.ask(lambda turn: self._loop.plan(turn, job_id, number))
            self._check_lease()
            if planned is not None:
                self._loop.check_launch(planned[1])
                if planned[1].is_growth:
                    point("perform.grow")
                point("launch.before")
                await self._clusters[planned[0]].launch(planned[1])
        except (LaunchRefused, UserError, Bug) as refusal:
            is_final = not isinstance(refusal, LaunchRefused) or refusal.permanent
            node = refusal.node if isinstance(refusal, LaunchRefused) else None
            if isinstance(refusal, Bug):
                log.error("job %s attempt %s: %s", job_id, number, refusal)
            failed: ev.LaunchFailed | ev.GrowthFailed = ev.LaunchFailed(job_id, number, str(refusal), is_final, node)
            if planned is not None and planned[1].is_growth:
                joining = tuple(pod.name for pod in planned[1].pods if pod.joins and not pod.was_made)
                failed = ev.GrowthFailed(job_id, number, joining, str(refusal), node)
            await self._loop.ask(lambda turn: turn.apply(failed, job_id))
        finally:
            del self._launching[job_id]
            launched.set()

    async def _apply_deferred_ends(self, job_id: str) -> None:
        held = self._deferred_ends.get(job_id)
        if held:
            await self._loop.ask(lambda turn: self._loop.apply_pod_states(turn, held.values()))
        self._deferred_ends.pop(job_id, None)

    async def _end_missing(self, job_id: str, number: int, cluster: Cluster, stopped: Collection[str] | None = None) -> None:
        """After a stop: end the pods that the cluster does not show. No launch of the job is in flight, so they cannot appear.

        ``stopped``: the pods that were stopped; None means all of the attempt.
        """
        seen = await observe_once(cluster)
        of_it = [pod for pod in seen.pods if (pod.job_id, pod.attempt) == (job_id, number)]

        def run(turn: Turn) -> None:
            shown = {pod.name: pod.uid for pod in of_it if not reconcile.is_of_other_epoch(turn.state, pod)}
            for event in list(reconcile.ends_of_missing_pods(turn.state, job_id, number, shown, stopped)):
                turn.apply(event, job_id)

        await self._loop.ask(run)


async def observe_once(cluster: Cluster) -> Observation:
    """One complete observation of the cluster."""
    async with contextlib.aclosing(cluster.observe()) as stream:
        return await anext(stream)
