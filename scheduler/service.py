"""The loop: requests and events -> `State.handle` -> commit -> perform. The only place that commits.

A caller hears of success after the commit, never before. When a commit fails, its callers get the error and the state is loaded
again from the rows, so memory never runs ahead of the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar, cast

from tuttilab.scheduler import events as ev
from tuttilab.scheduler import notebooks, reconcile
from tuttilab.scheduler.clock import Clock, World
from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan, PodState
from tuttilab.scheduler.config import Config
from tuttilab.scheduler.core import lifecycle
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.crashpoints import point
from tuttilab.scheduler.errors import ClusterUnreachable, CommitUnknown, StaleEpoch, StoreError, Unavailable, UserError
from tuttilab.scheduler.heartbeats import Heartbeats
from tuttilab.scheduler.instructions import DropJob
from tuttilab.scheduler.launch import Addresses, Secrets, plan_of
from tuttilab.scheduler.model import Cluster as ClusterRow
from tuttilab.scheduler.model import JobKind
from tuttilab.scheduler.performing import Performer
from tuttilab.scheduler.retention import Retention
from tuttilab.scheduler.store.base import Batch, Keyed, Store
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.watching import Watcher
from tuttilab.scheduler.wire import event_kind

T = TypeVar("T")
log = logging.getLogger(__name__)

RECENT_KEYS: Final = 10_000
RECENT_DELETIONS: Final = 100_000
"""Many more than are deleted between a look into the database and the turn after it."""
MOST_FITTING: Final = 10_000
"""Shapes of requests that are remembered as having been checked."""
LONGEST_PAUSE_S: Final = 5.0
SETTLES_S: Final = 10.0
"""Somebody who only reads waits so long for a commit under way."""
LONGEST_DOUBT_S: Final = 5.0
"""So long those who asked wait to hear whether a commit happened, before they hear that nobody knows."""
TIMERS_REST_S: Final = 1.0
"""A timer that begins after a look at all of them is noticed so much later at most."""
RETRY_S: Final = 1.0
"""Before a turn is tried again that could not be committed."""
CYCLE_REST: Final = 4.0
"""Pause after a cycle, as a multiple of what it took."""


@dataclass(slots=True)
class _Ask(Generic[T]):
    """A request that waits for its turn: ``run`` applies events and answers; the answer is given after the commit."""

    run: Callable[[Turn], T]
    answer: asyncio.Future[T]


def _refuse(asks: Sequence[_Ask[object]], error: Exception) -> None:
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_exception(error)


class Service:
    """See the module. `ask` is the way in: what is asked about jobs, DAGs, sessions, servers and by pods goes by it."""

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
        """``may_act``: whether this process may touch the clusters now, for a leader whose lease can run out."""
        self.config = config
        self.store = store
        self.state = State()
        self.last_seq = 0
        self.addresses = Addresses("", str(state_dir / "control.json"), config.artifacts.url)
        self._world = world or World()
        self.clusters = dict(clusters)
        self.keys = Secrets.of(config.auth.key_file, state_dir)
        self._clock = Clock(self._world)
        self.heartbeats = Heartbeats(self._clock.now())
        self.performer = Performer(self, self.clusters, may_act)
        self._watcher = Watcher(self, self.performer, {cluster.name: cluster.kind for cluster in config.clusters})
        self.order = 0
        """Of the newest job; a turn that makes jobs counts it up."""
        self._timers_at = 0.0
        self._site: Site | None = None
        self._deleted: dict[str, None] = {}
        """Jobs that were deleted lately: who found one of them before must not take it back into memory."""
        self._inbox: list[_Ask[object]] = []
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        """Memory holds what is committed, and nothing else."""
        self._settled.set()
        self._is_unscheduled = asyncio.Event()
        """Something changed since the snapshot of the last cycle."""
        self.recent_keys: dict[tuple[str, str], Keyed] = {}
        """Of the newest submits that are committed, so that one that comes twice is found without the store."""
        self._change_waiters: dict[asyncio.Future[int], None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self.heard = notebooks.Heard()
        self._leavings: Sequence[DropJob] = ()
        """Of jobs that an earlier life deleted."""
        self._turning = asyncio.Lock()
        self.retention = Retention(self, self._turning)
        self._stopping = False
        self.deposed = asyncio.Event()
        """Set when another process leads: nothing of ours is committed any more, and this service has to be stopped."""

    # --- life ----------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock.now()

    async def start(self, epoch: int | None = None) -> None:
        """Take over: open the store, load the rows, apply the configured queues, and watch the clusters.

        ``epoch`` of a store that is open already, as of a replica that took over. Returns once every cluster that answers has
        been observed completely, so that adopted pods are known.
        """
        point("start.open")
        if epoch is None:
            epoch = await self.store.open()
        point("start.opened")
        await self._load(epoch)
        self.heartbeats = Heartbeats(self.now())
        point("start.loaded")
        self._spawn(self._loop, "loop")
        wanted = tuple(self.config.queues)
        if tuple(self.state.queues.values()) != wanted:
            await self.ask(lambda turn: turn.apply(ev.QueuesConfigured(wanted), "queues"))
        for name, cluster in self.clusters.items():
            try:
                await cluster.lead(epoch)
            except ClusterUnreachable as error:
                log.warning("cluster %s does not answer: %s", name, error)
        first_looks = [asyncio.Event() for _ in self.clusters]
        for (name, cluster), looked in zip(self.clusters.items(), first_looks, strict=True):
            self._spawn(partial(self._watcher.watch, name, cluster, looked), f"watch {name}")
            self._spawn(partial(self._watcher.look_again, name, cluster), f"look at {name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                for looked in first_looks:
                    await looked.wait()
        point("start.looked")
        for leaving in self._leavings:
            self.performer.perform(leaving)
        # From here on, so that the first decision knows what the clusters hold already.
        self._spawn(self._decide, "cycle")
        self._spawn(self.retention.now_and_then, "retention")

    async def stop(self) -> None:
        """End the loop after the turn that runs; pods stay as they are."""
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
        self._clock.not_before(loaded.last_at)
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
        self.last_seq = loaded.last_seq
        self.order = loaded.last_order
        self.heard.begin(self.state, self.now())
        self._timers_at = 0.0
        self._leavings = loaded.leavings

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
        """``run`` in the next turn; answers after the commit of what it applied."""
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
                async with self._turning:
                    next_at = await self._turn()
            finally:
                self._settled.set()
            # Who waited for that reads before the next turn begins.
            await asyncio.sleep(0)

    async def settled(self) -> None:
        """Returns when memory holds what is committed and nothing else: what is shown to anybody is not taken back.

        Raises Unavailable when the store takes too long.
        """
        try:
            async with asyncio.timeout(SETTLES_S):
                await self._settled.wait()
        except TimeoutError:
            raise Unavailable("The database does not answer; what is shown would not be certain. Try again in a moment.") from None

    async def _turn(self) -> float | None:
        """One transaction: everything that was asked, and the timers that ran out. Answers when the next one will."""
        self._settled.clear()
        asks, self._inbox = self._inbox, []
        clusters = dict(self.state.clusters)
        turn = Turn(self.state, self.now(), gone=self._deleted)
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
            if not await self._give_up(turn, asks, error, clusters):
                return self.now() + RETRY_S
            next_timer = self.now()
        self._finish(turn, answers)
        return next_timer

    def _apply_timers(self, turn: Turn) -> float | None:
        """Ends what has run out of time; answers when to look again. A look walks over all that lives, so not each turn has one."""
        if turn.now < self._timers_at:
            return self._timers_at
        limits = self.config.limits
        due, next_timer = lifecycle.due_timers(self.state.live(), turn.now, limits.barrier_s)
        missed, next_missed = self.heartbeats.missed(self.state, turn.now, limits.lost_after_s)
        silent, next_silent = self.heard.expired(self.state, turn.now)
        for event in (*due, *missed, *silent):
            turn.apply(event, event.job_id)
        upcoming = min((at for at in (next_timer, next_missed, next_silent) if at is not None), default=None)
        self._timers_at = turn.now + TIMERS_REST_S if upcoming is None else min(upcoming, turn.now + TIMERS_REST_S)
        return upcoming

    def _finish(self, turn: Turn, answers: Sequence[tuple[_Ask[object], object]]) -> None:
        """The turn is committed: tell those who asked, and carry out what it decided."""
        self.recent_keys |= turn.keys
        while len(self.recent_keys) > RECENT_KEYS:
            del self.recent_keys[next(iter(self.recent_keys))]
        self._deleted |= {entry.event.job_id: None for entry in turn.entries if isinstance(entry.event, ev.JobDeleted)}
        while len(self._deleted) > RECENT_DELETIONS:
            del self._deleted[next(iter(self._deleted))]
        if turn.entries:
            self._is_unscheduled.set()
            self._tell_changed()
        for ask, value in answers:
            if not ask.answer.done():
                ask.answer.set_result(value)
        for instruction in turn.instructions:
            job = self.state.jobs.get(instruction.job_id)
            if job is None or job.kind is not JobKind.NOTEBOOK:  # The hub makes and ends a server; it hears with its next renewal.
                self.performer.perform(instruction)

    async def _commit(self, batch: Batch, asks: Sequence[_Ask[object]]) -> int:
        """Commit, and when nobody can say whether that happened, find out before anything else is done."""
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
                log.error("the store does not answer whether the last commit happened: %s", still)
                _refuse(self._inbox, still)
                self._inbox = []
            if self.now() > until:
                # They may ask again under their keys; the answer that nobody waits for is dropped.
                _refuse(asks, unknown)
            await asyncio.sleep(0.5)
        log.warning("the last commit %s", "did not happen" if seq is None else f"did happen, up to {seq}")
        if seq is None:
            raise unknown
        return seq

    def step_down(self, stale: StaleEpoch, asks: Sequence[_Ask[object]] = ()) -> None:
        """Another process leads: nothing is decided, committed or answered any more."""
        if not self.deposed.is_set():
            log.error("another process leads: %s", stale)
        self._stopping = True
        self.deposed.set()
        _refuse([*asks, *self._inbox], stale)
        self._inbox = []

    async def _give_up(self, turn: Turn, asks: Sequence[_Ask[object]], error: Exception, clusters: dict[str, ClusterRow]) -> bool:
        """A turn that broke: load the rows again, which either have it, although nobody said so, or nothing of it.

        Answers whether they have it. Those who asked are told of the error at once when they do not, or when nobody can tell.
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
        self.state.waits = {job_id: wait for job_id, wait in waits.items() if job_id in self.state.jobs}
        # Nodes are no rows; what of them is not in the journal is not known yet.
        self.state.clusters = shown if is_there else clusters
        self._is_unscheduled.set()
        if not is_there:
            _refuse(asks, error)
        return is_there

    async def _is_committed(self, turn: Turn) -> bool:
        """Whether the journal goes on with this turn: a commit that failed may have happened."""
        if not turn.entries:
            return False
        wanted = [(entry.at, event_kind(entry.event), entry.key) for entry in turn.entries]
        found = await self.store.changes(self.last_seq, len(wanted))
        return [(line.at, line.kind, line.key) for line in found] == wanted

    # --- decisions -----------------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        """Cycles, each on a snapshot and beside the loop, for at most a fifth of the time."""
        next_at: float | None = None
        while not self.deposed.is_set():
            pause = LONGEST_PAUSE_S if next_at is None else min(max(next_at - self.now(), 0.0), LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_unscheduled.wait()
            begun = self._world.monotonic()
            try:
                next_at = await self._cycle()
            except (StoreError, Unavailable) as error:
                log.warning("what was decided could not be committed, it is decided again: %s", error)
                next_at = self.now() + RETRY_S
            await asyncio.sleep(CYCLE_REST * (self._world.monotonic() - begun))

    async def _cycle(self) -> float | None:
        """One cycle, unless it would find what the last one found; answers when the next back-off ends."""
        snapshot, now, version = await self.ask(lambda turn: (self._snapshot(turn.now), turn.now, turn.state.version))
        if snapshot is None:
            return self.state.settled_until if self.state.has_decisions() else None
        decision = await self._world.in_thread(partial(schedule, snapshot, now))
        await self.ask(lambda turn: turn.take(decision, version))
        return decision.next_at

    def _snapshot(self, now: float) -> Snapshot | None:
        """None when there is nothing to decide, or nothing has happened since the last cycle."""
        self._is_unscheduled.clear()
        return self.state.snapshot() if not self.state.is_settled(now) and self.state.has_decisions() else None

    def _tell_changed(self) -> None:
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

    # --- what performing and watching ask ----------------------------------------------------------------------------

    def plan(self, turn: Turn, job_id: str, attempt: int, /) -> tuple[str, LaunchPlan] | None:
        """Where and what to launch; None when the attempt is over or to be stopped, or nothing of it is left to be made."""
        live = turn.state.live_attempt(job_id)
        if live is None or live.number != attempt or live.stopping_at is not None:
            return None
        plan = plan_of(turn.state.jobs[job_id], live, self.keys, self.addresses, self.config.limits.barrier_s)
        return None if all(pod.was_made for pod in plan.pods) else (live.cluster, plan)

    async def let_go(self, job_id: str, /) -> None:
        """Nothing is left of that deleted job on any cluster."""
        await self.store.let_go(self.state.epoch, job_id)

    def take_in_pods(self, turn: Turn, pods: Collection[PodState], /) -> None:
        """Apply what is news about these pods; an end waits for a launch of the job that is under way."""
        for pod in pods:
            for event in list(reconcile.pod_events(turn.state, pod)):
                if not (isinstance(event, ev.PodEnded) and self.performer.holds(pod)):
                    turn.apply(event, pod.job_id)

    # --- what requests are made of -----------------------------------------------------------------------------------

    def new_id(self) -> str:
        return self._world.new_id()

    def site(self) -> Site:
        """What requests are checked against; the same as long as nothing of it changed, so that equal jobs are checked once."""
        known, state, defaults = self._site, self.state, self.config.defaults
        if (
            known is None
            or known.queues is not state.queues
            or known.clusters != state.clusters
            or len(known.fitting) > MOST_FITTING
        ):
            known = self._site = Site(state.queues, dict(state.clusters), defaults.queue, defaults.timeout_s)
        return known

    def take_up(self, config: Config) -> None:
        """Other defaults and queues than at the start, which are committed (`reload`)."""
        self.config, self._site = config, None

    def is_at_rest(self) -> bool:
        """No job is live: nothing keeps an embedded control plane from ending by itself."""
        return self.state.is_at_rest()
