"""The loop: requests and events -> `State.handle` -> commit -> perform. The only place that commits.

A caller gets its result after the commit, never before. When a commit fails, its callers get the error and the state is loaded
again from the rows, so that memory is never ahead of the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar, cast

from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan, PodState
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.config.proxy_users import can_run_as
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.rows import lifecycle
from tuttilab.scheduler.core.rows.tuning import configured_queues
from tuttilab.scheduler.core.rules import SERVICE_RULES
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.core.storages import refusal_now
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import (
    ClusterUnreachable,
    CommitUnknown,
    LaunchRefused,
    StaleEpoch,
    StoreError,
    Unavailable,
    UserError,
)
from tuttilab.scheduler.domain.instructions import DropJob
from tuttilab.scheduler.domain.model import Cluster as ClusterRow
from tuttilab.scheduler.domain.model import JobKind
from tuttilab.scheduler.domain.wire import event_kind
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.scheduler.runtime.seldom import SeldomLog
from tuttilab.scheduler.service import reconcile
from tuttilab.scheduler.service.clock import Clock, World
from tuttilab.scheduler.service.cycles import Cycles
from tuttilab.scheduler.service.heartbeats import Heartbeats
from tuttilab.scheduler.service.launch_plans import Addresses, Secrets, plan_of
from tuttilab.scheduler.service.notebook_leases import NotebookLeases
from tuttilab.scheduler.service.performer import Performer
from tuttilab.scheduler.service.reload import loosened_limits
from tuttilab.scheduler.service.retention import Retention
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.service.watcher import Watcher
from tuttilab.scheduler.store.base import Batch, IdempotencyKey, Store

T = TypeVar("T")
log = logging.getLogger(__name__)

RECENT_KEYS: Final = 10_000
RECENT_DELETIONS: Final = 100_000
"""Many more than are deleted between a read of the database and the turn after it."""
MOST_FITTING: Final = 10_000
"""Checked request shapes that are cached before the cache is cleared."""
LONGEST_PAUSE_S: Final = 5.0
COMMIT_TIMEOUT_S: Final = 10.0
"""How long a reader waits for a commit in flight."""
LONGEST_DOUBT_S: Final = 5.0
"""How long callers wait to learn whether a commit happened, before they get CommitUnknown."""
TIMERS_EVERY_S: Final = 1.0
"""Longest time between two checks of all timers, so a new timer is noticed at most this late."""
RETRY_S: Final = 1.0
"""Before the next turn when a turn could not be committed."""


@dataclass(slots=True)
class _Ask(Generic[T]):
    """A request that waits for the next turn: ``run`` applies events; its result is delivered after the commit."""

    run: Callable[[Turn], T]
    answer: asyncio.Future[T]


def _refuse(asks: Sequence[_Ask[object]], error: Exception) -> None:
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_exception(error)


class Service:
    """The state, the loop around it, and the tasks beside it. All requests (`usecases`) enter by `ask`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        clusters: Mapping[str, Cluster],
        *,
        state_dir: Path,
        world: World | None = None,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        """``may_act``: whether this process may change the clusters now, for a leader whose lease can expire."""
        self.config = config
        self.store = store
        self.state = State()
        self.last_seq = 0
        self.addresses = Addresses("", str(state_dir / "control.json"), config.artifacts.url)
        self._world = world or World()
        self.clusters = dict(clusters)
        self.folders = (
            state_dir,
            *([] if config.store_dir is None or config.store_dir == state_dir else [config.store_dir]),
            state_dir / "clusters",
            *(state_dir / "clusters" / name for name in clusters),
            config.artifacts_dir,
        )
        """Where something is written for a job."""
        self.secrets = Secrets.of(config.auth.key_file, state_dir)
        self._clock = Clock(self._world)
        self.heartbeats = Heartbeats(self._clock.now())
        self.performer = Performer(self, self.clusters, may_act)
        kinds = {cluster.name: cluster.kind for cluster in config.clusters}
        self._watcher = Watcher(self, self.performer, kinds, config.limits.observe_every_s)
        self.last_order = 0
        """Order of the newest job. A turn that submits jobs increases it."""
        self._timers_at = 0.0
        self._site: Site | None = None
        self._recently_deleted: dict[str, None] = {}
        """Jobs deleted recently: a request that read one from the database before must not put it back into the state."""
        self._inbox: list[_Ask[object]] = []
        self._wake = asyncio.Event()
        self._committed = asyncio.Event()
        """Set while the state holds committed changes only."""
        self._committed.set()
        self._cycles = Cycles(self, self._world)
        self.recent_keys: dict[tuple[str, str], IdempotencyKey] = {}
        """Keys of the newest committed requests, so that a repeated one is found without the store."""
        self._change_waiters: dict[asyncio.Future[int], None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self.notebook_leases = NotebookLeases()
        self._pending_cleanups: Sequence[DropJob] = ()
        """Cleanups of deleted jobs that were pending when the rows were loaded."""
        self._turn_lock = asyncio.Lock()
        self._doubts = SeldomLog(log)
        self._doubt = ""
        """Why nobody can say at the moment whether the last commit happened."""
        self.retention = Retention(self, self._turn_lock)
        self._stopping = False
        self.deposed = asyncio.Event()
        """Set when another process leads: nothing is committed any more, and this service has to be stopped."""

    # --- start and stop ------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock.now()

    async def start(self, epoch: int | None = None) -> None:
        """Take over: open the store, load the rows, apply the configured queues, and watch the clusters.

        ``epoch``: of a store that is already open, as for a replica that took over. Returns once every reachable cluster was
        observed completely, so that adopted pods are known.
        """
        point("start.open")
        if epoch is None:
            epoch = await self.store.open()
        point("start.opened")
        await self._load(epoch)
        self.heartbeats = Heartbeats(self.now())
        point("start.loaded")
        self._spawn(self._loop, "loop")
        wanted = configured_queues(self.config.queues, self.state.queues.values(), self.now())
        for sentence in loosened_limits(self.state.queues, {queue.name: queue for queue in wanted}):
            log.warning("the configuration of this start loosens a limit: %s", sentence)
        if tuple(self.state.queues.values()) != wanted:
            await self.ask(lambda turn: turn.apply(ev.QueuesConfigured(wanted), "queues"))
        for name, cluster in self.clusters.items():
            try:
                await cluster.lead(epoch)
            except ClusterUnreachable as error:
                log.warning("cluster %s does not answer: %s", name, error)
        first_observations = [asyncio.Event() for _ in self.clusters]
        for (name, cluster), observed in zip(self.clusters.items(), first_observations, strict=True):
            self._spawn(partial(self._watcher.watch, name, cluster, observed), f"watch {name}")
            self._spawn(partial(self._watcher.observe_periodically, name, cluster), f"observe {name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                for observed in first_observations:
                    await observed.wait()
        point("start.looked")
        for cleanup in self._pending_cleanups:
            self.performer.perform(cleanup)
        # Only now, so that the first decision knows what runs on the clusters.
        self._spawn(self._cycles.run, "cycle")
        self._spawn(self.retention.purge_periodically, "retention")

    async def stop(self) -> None:
        """End the loop after the current turn; pods keep running."""
        self._stopping = True
        await self.performer.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _refuse(self._inbox, Unavailable("The control plane is ending; try again in a moment."))
        for cluster in self.clusters.values():
            close = getattr(cluster, "close", None)
            if close is not None:
                await close()
        await self.store.close()

    async def _load(self, epoch: int) -> None:
        loaded = await self.store.load()
        self._clock.advance_to(loaded.last_at)
        self.state = State.load(
            loaded.jobs,
            loaded.attempts,
            loaded.queues,
            epoch,
            runs=loaded.runs,
            dags=loaded.dags,
            profiles=loaded.profiles,
            accounts=loaded.accounts,
            history=loaded.history,
            at=self.now(),
        )
        self.state.rules = replace(SERVICE_RULES, back_off_s=self.config.limits.back_off_s)
        self.last_seq = loaded.last_seq
        self.last_order = loaded.last_order
        self.notebook_leases.reset(self.state, self.now())
        self._timers_at = 0.0
        self._pending_cleanups = loaded.pending_cleanups

    def _spawn(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        async def run() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s ended unexpectedly", name)

        task = asyncio.create_task(run(), name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    # --- the loop ------------------------------------------------------------------------------------------------------

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        """``run`` in the next turn; returns after the commit of what it applied."""
        if self._stopping:
            raise Unavailable("The control plane is ending; try again in a moment.")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._inbox.append(cast("_Ask[object]", _Ask(run, answer)))
        self._wake.set()
        return await answer

    async def _loop(self) -> None:
        next_at: float | None = None
        while not self.deposed.is_set():
            pause = LONGEST_PAUSE_S if next_at is None else min(max(next_at - self.now(), 0.0), LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            try:
                async with self._turn_lock:
                    next_at = await self._turn()
            finally:
                self._committed.set()
            # Readers that waited for the commit run before the next turn begins.
            await asyncio.sleep(0)

    async def wait_until_committed(self) -> None:
        """Wait until the state holds committed changes only, so that what is shown is never taken back.

        Raises Unavailable when the store takes too long.
        """
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await self._committed.wait()
        except TimeoutError:
            why = f" ({self._doubt.rstrip('.')})" if self._doubt else ""
            raise Unavailable(
                f"The database does not answer{why}; what is shown would not be certain. Try again in a moment."
            ) from None

    async def _turn(self) -> float | None:
        """One transaction of all waiting requests and expired timers. Returns when the next timer expires."""
        self._committed.clear()
        asks, self._inbox = self._inbox, []
        clusters = dict(self.state.clusters)
        turn = Turn(self.state, self.now(), recently_deleted=self._recently_deleted)
        answers: list[tuple[_Ask[object], object]] = []
        try:
            for ask in asks:
                try:
                    answers.append((ask, ask.run(turn)))
                except UserError as refusal:
                    _refuse([ask], refusal)
            next_timer = self._apply_timers(turn)
            if turn.entries:
                point("commit.before")
                self.last_seq = await self._commit(turn.batch(), asks)
                point("commit.after")
        except StaleEpoch as stale:
            self.step_down(stale, asks)
            return None
        except Exception as error:
            if not await self._recover(turn, asks, error, clusters):
                return self.now() + RETRY_S
            next_timer = self.now()
        self._finish(turn, answers)
        return next_timer

    def _apply_timers(self, turn: Turn) -> float | None:
        """Apply expired timers; return when to check again. A check visits all live attempts, so not every turn does one."""
        if turn.now < self._timers_at:
            return self._timers_at
        limits = self.config.limits
        due, next_timer = lifecycle.due_timers(self.state.live(), self.state.clusters, turn.now, limits.barrier_s)
        missed, next_missed = self.heartbeats.missed(self.state, turn.now, limits.lost_after_s)
        silent, next_silent = self.notebook_leases.expired(self.state, turn.now)
        for event in (*due, *missed, *silent):
            turn.apply(event, event.job_id)
        upcoming = min((at for at in (next_timer, next_missed, next_silent) if at is not None), default=None)
        self._timers_at = turn.now + TIMERS_EVERY_S if upcoming is None else min(upcoming, turn.now + TIMERS_EVERY_S)
        return upcoming

    def _finish(self, turn: Turn, answers: Sequence[tuple[_Ask[object], object]]) -> None:
        """After the commit: deliver results and perform instructions."""
        self.recent_keys |= turn.keys
        while len(self.recent_keys) > RECENT_KEYS:
            del self.recent_keys[next(iter(self.recent_keys))]
        self._recently_deleted |= {entry.event.job_id: None for entry in turn.entries if isinstance(entry.event, ev.JobDeleted)}
        while len(self._recently_deleted) > RECENT_DELETIONS:
            del self._recently_deleted[next(iter(self._recently_deleted))]
        if turn.entries:
            self._cycles.request()
            self._notify_changed()
        for ask, value in answers:
            if not ask.answer.done():
                ask.answer.set_result(value)
        for instruction in turn.instructions:
            job = self.state.jobs.get(instruction.job_id)
            if job is None or job.kind is not JobKind.NOTEBOOK:  # The hub starts and ends servers; it learns by its next renewal.
                self.performer.perform(instruction)

    async def _commit(self, batch: Batch, asks: Sequence[_Ask[object]]) -> int:
        """Commit; when the outcome is unknown, find it out before anything else is done."""
        try:
            return await self.store.commit(batch)
        except CommitUnknown as error:
            unknown = error
        log.warning("%s", unknown)
        until = self.now() + LONGEST_DOUBT_S
        while True:
            try:
                seq = await self.store.committed(batch, self.last_seq)
                break
            except StoreError as still:
                self._doubts.warning(f"the store does not answer whether the last commit happened: {still}")
                self._doubt = str(still)
                _refuse(self._inbox, still)
                self._inbox = []
            if self.now() > until:
                # Callers may retry with their idempotency keys; results without a waiting caller are dropped.
                _refuse(asks, unknown)
            await asyncio.sleep(0.5)
        self._doubt = ""
        log.warning("the last commit %s", "did not happen" if seq is None else f"did happen, up to {seq}")
        if seq is None:
            raise unknown
        return seq

    def step_down(self, stale: StaleEpoch, asks: Sequence[_Ask[object]] = ()) -> None:
        """Stop deciding, committing and answering: another process leads."""
        if not self.deposed.is_set():
            log.error("another process leads: %s", stale)
        self._stopping = True
        self.deposed.set()
        _refuse([*asks, *self._inbox], stale)
        self._inbox = []

    async def _recover(self, turn: Turn, asks: Sequence[_Ask[object]], error: Exception, clusters: dict[str, ClusterRow]) -> bool:
        """After a failed turn: load the rows again, which contain either all of the turn or nothing of it.

        Returns whether they contain it. Callers get the error at once when they do not, or when the store does not answer.
        """
        if isinstance(error, StoreError):
            log.error("a commit failed, the rows are loaded again: %s", error)
        else:
            log.error("a turn broke, the rows are loaded again", exc_info=error)
            error = Unavailable("The control plane could not do this and has taken it back; its log says why. Try again.")
        waits = self.state.waits
        shown = dict(self.state.clusters)
        while True:
            try:
                is_there = await self._is_committed(turn)
                await self._load(self.state.epoch)
                break
            except StoreError as still:
                log.error("the store does not answer: %s", still)
                _refuse([*asks, *self._inbox], still)
                self._inbox = []
            await asyncio.sleep(RETRY_S)
        self.state.waits = waits.only(self.state.jobs)
        # Nodes are not rows. If the turn was not committed, its observations of nodes are dropped too.
        self.state.clusters = shown if is_there else clusters
        self._cycles.request()
        if not is_there:
            _refuse(asks, error)
        return is_there

    async def _is_committed(self, turn: Turn) -> bool:
        """Whether the journal continues with this turn: a commit that failed may have happened."""
        if not turn.entries:
            return False
        wanted = [(entry.at, event_kind(entry.event), entry.key) for entry in turn.entries]
        found = await self.store.changes(self.last_seq, len(wanted))
        return [(line.at, line.kind, line.key) for line in found] == wanted

    # --- readers that wait for a change --------------------------------------------------------------------------------

    def _notify_changed(self) -> None:
        for waiter in self._change_waiters:
            if not waiter.done():
                waiter.set_result(self.last_seq)
        self._change_waiters.clear()

    async def wait_change(self, since: int, timeout_s: float) -> int:
        """The newest sequence number as soon as it is above ``since``, else after the timeout."""
        if self.last_seq > since or timeout_s <= 0:
            return self.last_seq
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._change_waiters[waiter] = None
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            return self.last_seq
        finally:
            self._change_waiters.pop(waiter, None)

    # --- for the performer and the watcher -----------------------------------------------------------------------------

    def plan(self, turn: Turn, job_id: str, attempt: int, /) -> tuple[str, LaunchPlan] | None:
        """Cluster and plan of a launch; None when the attempt ended or is stopping, or none of its pods remains to be created."""
        live = turn.state.live_attempt(job_id)
        if live is None or live.number != attempt or live.stopping_at is not None:
            return None
        job = turn.state.jobs[job_id]
        run_as = self.config.proxy_users.get(job.work.run_as or "")
        plan = plan_of(job, live, self.secrets, self.addresses, self.config.limits.barrier_s, run_as)
        return None if all(pod.was_made for pod in plan.pods) else (live.cluster, plan)

    def check_launch(self, plan: LaunchPlan, /) -> None:
        """Raises LaunchRefused for a mount that was taken off the list since the job was accepted. A gang that runs may grow."""
        why = refusal_now(plan.work.mounts, plan.group, self.config.storages)
        if why and not plan.is_growth:
            raise LaunchRefused(why, permanent=True)

    async def mark_cleaned_up(self, job_id: str, /) -> None:
        """Record that no cluster has pods or files of that deleted job."""
        await self.store.mark_cleaned_up(self.state.epoch, job_id)

    def apply_pod_states(self, turn: Turn, pods: Collection[PodState], /) -> None:
        """Apply the changes of these pods. An end waits while a launch of the job is in flight."""
        for pod in pods:
            for event in list(reconcile.pod_events(turn.state, pod)):
                if not (isinstance(event, ev.PodEnded) and self.performer.defer_end(pod)):
                    turn.apply(event, pod.job_id)

    # --- for requests --------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        return self._world.new_id()

    def site(self) -> Site:
        """What requests are checked against. The same object as long as nothing changed, so that equal jobs are checked once."""
        known, state, defaults = self._site, self.state, self.config.defaults
        if (
            known is None
            or known.queues is not state.queues
            or known.clusters != state.clusters
            or len(known.accepted_shapes) > MOST_FITTING
        ):
            known = self._site = Site(
                state.queues, dict(state.clusters), defaults.queue, defaults.timeout_s,
                storages=self.config.storages,
                proxy_users=self.config.proxy_users,
                cannot_run_as={
                    name: frozenset(one.name for one in self.config.clusters if not can_run_as(one, user))
                    for name, user in self.config.proxy_users.items()
                },
                driver_ports=self.config.driver_ports,
                sidecars=self.config.sidecars,
                growing=frozenset(one.name for one in self.config.clusters if one.grows),
                without_images=frozenset(one.name for one in self.config.clusters if one.kind == "local"),
                without_default_image=frozenset(
                    one.name for one in self.config.clusters if one.kubernetes is not None and one.kubernetes.image is None
                ),
                without_spark_image=frozenset(
                    one.name for one in self.config.clusters if one.kubernetes is not None and one.kubernetes.spark_image is None
                ),
            )  # fmt: skip
        return known

    def apply_config(self, config: Config) -> None:
        """Use a configuration with other defaults and queues; the queues are already committed (`reload`)."""
        self.config, self._site = config, None

    def is_idle(self) -> bool:
        """Whether no job is live, so that an embedded control plane may end by itself."""
        return self.state.is_idle()
