"""The loop: requests and events -> `State.handle` -> commit -> perform. The only place that awaits both the store and a cluster.

A caller hears of success after the commit, never before. When a commit fails, its callers get the error and the state is loaded
again from the rows, so memory never runs ahead of the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar, cast

from tuttilab.scheduler import events as ev
from tuttilab.scheduler import notebooks, reconcile
from tuttilab.scheduler.clock import Clock, World
from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan, LogChunk, Observation, PodState
from tuttilab.scheduler.config import Config
from tuttilab.scheduler.core import lifecycle
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.crashpoints import point
from tuttilab.scheduler.errors import (
    AboveMax,
    ClusterError,
    CommitUnknown,
    Conflict,
    NeverFits,
    NotFound,
    StaleEpoch,
    StoreError,
    Unauthenticated,
    Unavailable,
    UserError,
)
from tuttilab.scheduler.heartbeats import Heartbeats, next_report_s
from tuttilab.scheduler.instructions import DropJob, Instruction
from tuttilab.scheduler.launch import Addresses, Secrets, plan_of
from tuttilab.scheduler.model import MASTER, Attempt, AttemptPhase, Job, JobKind, Pod, PodPhase, Wait
from tuttilab.scheduler.model import Cluster as ClusterRow
from tuttilab.scheduler.performing import Performer, look
from tuttilab.scheduler.requests import (
    JobRequest,
    Who,
)
from tuttilab.scheduler.store.base import Batch, Keyed, Store
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.wire import PodReport, event_kind, to_json

T = TypeVar("T")
log = logging.getLogger(__name__)

RECENT_KEYS: Final = 10_000
LONGEST_PAUSE_S: Final = 5.0
SETTLES_S: Final = 10.0
"""Somebody who only reads waits so long for a commit under way."""
LONGEST_DOUBT_S: Final = 5.0
"""So long those who asked wait to hear whether a commit happened, before they hear that nobody knows."""
TIMERS_REST_S: Final = 1.0
"""A timer that begins after a look at all of them is noticed so much later at most."""
TIDY_EVERY_S: Final = 3600.0
TIDY_AT_ONCE: Final = 200
"""Old jobs that are deleted in one commit."""
RETRY_S: Final = 1.0
"""Before a turn is tried again that could not be committed."""
LOOK_AGAIN_S: Final = 30.0
CYCLE_REST: Final = 4.0
"""Pause after a cycle, as a multiple of what it took."""
SHORTEST_PREFIX: Final = 4


@dataclass(slots=True)
class _Ask(Generic[T]):
    """A request that waits for its turn: ``run`` applies events and answers; the answer is given after the commit."""

    run: Callable[[Turn], T]
    answer: asyncio.Future[T]


def _refuse(asks: Sequence[_Ask[object]], error: Exception) -> None:
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_exception(error)


@dataclass(frozen=True, slots=True)
class DryRun:
    """``verdict`` is starts, waits or refused."""

    verdict: str
    sentence: str
    job: Job | None = None
    placements: Mapping[str, str] = field(default_factory=dict)
    wait: Wait | None = None


class Service:
    """See the module. Methods that change something return after the commit; all raise the errors of `errors`."""

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
        self._clusters = dict(clusters)
        self._kinds = {cluster.name: cluster.kind for cluster in config.clusters}
        self.keys = Secrets.of(config.auth.key_file, state_dir)
        self._clock = Clock(self._world)
        self._heartbeats = Heartbeats(self._clock.now())
        self._performer = Performer(self, self._clusters, may_act)
        self.order = 0
        """Of the newest job; a turn that makes jobs counts it up."""
        self._timers_at = 0.0
        self._inbox: list[_Ask[object]] = []
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        """Memory holds what is committed, and nothing else."""
        self._settled.set()
        self._is_unscheduled = asyncio.Event()
        """Something changed since the snapshot of the last cycle."""
        self._recent_keys: dict[tuple[str, str], Keyed] = {}
        self._change_waiters: dict[asyncio.Future[int], None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self.heard = notebooks.Heard()
        self._leavings: Sequence[DropJob] = ()
        """Of jobs that an earlier life deleted."""
        self._turning = asyncio.Lock()
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
        self._heartbeats = Heartbeats(self.now())
        point("start.loaded")
        self._spawn(self._loop, "loop")
        wanted = tuple(self.config.queues)
        if tuple(self.state.queues.values()) != wanted:
            await self.ask(lambda turn: turn.apply(ev.QueuesConfigured(wanted), "queues"))
        first_looks = [asyncio.Event() for _ in self._clusters]
        for (name, cluster), looked in zip(self._clusters.items(), first_looks, strict=True):
            self._spawn(partial(self._watch, name, cluster, looked), f"watch {name}")
            self._spawn(partial(self._look_again, name, cluster), f"look at {name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                for looked in first_looks:
                    await looked.wait()
        point("start.looked")
        for leaving in self._leavings:
            self._performer.perform(leaving)
        # From here on, so that the first decision knows what the clusters hold already.
        self._spawn(self._decide, "cycle")
        self._spawn(self._tidy_now_and_then, "retention")

    async def stop(self) -> None:
        """End the loop after the turn that runs; pods stay as they are."""
        self._stopping = True
        await self._performer.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _refuse(self._inbox, Unavailable("The control plane is ending; try again in a moment."))
        for cluster in self._clusters.values():
            close = getattr(cluster, "close", None)
            if close is not None:
                await close()
        await self.store.close()

    async def _load(self, epoch: int) -> None:
        loaded = await self.store.load()
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
        )
        self.last_seq = loaded.last_seq
        self.order = loaded.last_order
        self._clock.not_before(loaded.last_at)
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
        turn = Turn(self.state, self.now())
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
            self._step_down(asks, stale)
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
        missed, next_missed = self._heartbeats.missed(self.state, turn.now, limits.lost_after_s)
        silent, next_silent = self.heard.expired(self.state, turn.now)
        for event in (*due, *missed, *silent):
            turn.apply(event, event.job_id)
        upcoming = min((at for at in (next_timer, next_missed, next_silent) if at is not None), default=None)
        self._timers_at = turn.now + TIMERS_REST_S if upcoming is None else min(upcoming, turn.now + TIMERS_REST_S)
        return upcoming

    def _finish(self, turn: Turn, answers: Sequence[tuple[_Ask[object], object]]) -> None:
        """The turn is committed: tell those who asked, and carry out what it decided."""
        for keyed in turn.keys:
            self._recent_keys[keyed.owner, keyed.key] = keyed
        while len(self._recent_keys) > RECENT_KEYS:
            del self._recent_keys[next(iter(self._recent_keys))]
        if turn.entries:
            self._is_unscheduled.set()
            self._tell_changed()
        for ask, value in answers:
            if not ask.answer.done():
                ask.answer.set_result(value)
        for instruction in turn.instructions:
            job = self.state.jobs.get(instruction.job_id)
            if job is None or job.kind is not JobKind.NOTEBOOK:  # The hub makes and ends a server; it hears with its next renewal.
                self._performer.perform(instruction)

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

    def _step_down(self, asks: Sequence[_Ask[object]], stale: StaleEpoch) -> None:
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

    # --- what is kept --------------------------------------------------------------------------------------------------

    async def _tidy_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            try:
                await self.tidy()
            except (StoreError, Unavailable) as error:
                log.warning("old jobs and events could not be removed, they are looked at again: %s", error)

    async def tidy(self) -> tuple[int, int]:
        """Let go of what is older than the configuration keeps; answers how many ended jobs and journal lines went."""
        limits, deleted, trimmed = self.config.limits, 0, 0
        while ids := await self.store.ended_before(self.now() - limits.keep_jobs_s, TIDY_AT_ONCE):
            old = [(job, await self.store.attempts(job_id)) for job_id in ids if (job := await self.store.job(job_id)) is not None]
            went = await self.ask(partial(self._delete_old, old))
            deleted += went
            if not went:
                break
        before = self.now() - limits.keep_journal_s
        oldest = await self.store.oldest_line_at()
        # Not at each call: a checkpoint copies all rows.
        if oldest is not None and oldest < before - limits.keep_journal_s / 10:
            async with self._turning:
                seq = await self.store.checkpoint(self.state.epoch, tuple(self.state.clusters.values()))
            while gone := await self.store.trim(self.state.epoch, before):
                trimmed += gone
            log.info("checkpoint at %d, %d older events and %d old jobs removed", seq, trimmed, deleted)
        return deleted, trimmed

    @staticmethod
    def _delete_old(old: Sequence[tuple[Job, Sequence[Attempt]]], turn: Turn) -> int:
        wanted = {job_id for job in turn.state.queued() for job_id in job.after}
        chosen = [(job, attempts) for job, attempts in old if job.id not in wanted]
        for job, attempts in chosen:
            turn.state.adopt(job, attempts)
            turn.apply(ev.JobDeleted(job.id), job.id)
        return len(chosen)

    # --- watching ------------------------------------------------------------------------------------------------------

    def plan(self, turn: Turn, job_id: str, attempt: int, /) -> tuple[str, LaunchPlan] | None:
        """Where and what to launch; None when the attempt is over or to be stopped, or nothing of it is left to be made."""
        live = turn.state.live_attempt(job_id)
        if live is None or live.number != attempt or live.stopping_at is not None:
            return None
        plan = plan_of(turn.state.jobs[job_id], live, self.keys, self.addresses, self.config.limits.barrier_s)
        return None if all(pod.was_made for pod in plan.pods) else (live.cluster, plan)

    async def _watch(self, name: str, cluster: Cluster, looked: asyncio.Event) -> None:
        """Turn what the cluster shows into events, for as long as the service lives."""
        pause = 0.2
        while True:
            try:
                known = reconcile.seen_pods(self.state)
                async for observation in cluster.observe():
                    await self._take_in(name, observation, known)
                    looked.set()
                    pause = 0.2
            except ClusterError as error:
                log.warning("cluster %s does not answer: %s", name, error)
                looked.set()
                with contextlib.suppress(StoreError, Unavailable):
                    await self.ask(lambda turn: self._lose(turn, name))
            except (StoreError, Unavailable) as error:
                log.warning("what cluster %s shows could not be committed, it is looked at again: %s", name, error)
            except Exception:
                log.exception("watching cluster %s broke, it is looked at again", name)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)

    async def _look_again(self, name: str, cluster: Cluster) -> None:
        """A stream of changes does not tell what is not there: pods that are gone, and what was not carried out."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                known = reconcile.seen_pods(self.state)
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
            self.take_in_pods(turn, seen.pods)
            if seen.is_complete:
                gone = reconcile.gone_pods(turn.state, name, seen.pods, known)
                self._heartbeats.looked(turn.state, gone, [pod.name for pod in seen.pods], turn.now)
                again.extend(reconcile.to_do_again(turn.state, name, seen.pods))

        await self.ask(run)
        for instruction in again:
            self._performer.perform(instruction)

    async def let_go(self, job_id: str, /) -> None:
        """Nothing is left of that deleted job on any cluster."""
        await self.store.let_go(self.state.epoch, job_id)

    def take_in_pods(self, turn: Turn, pods: Collection[PodState], /) -> None:
        """Apply what is news about these pods; an end waits for a launch of the job that is under way."""
        for pod in pods:
            for event in list(reconcile.pod_events(turn.state, pod)):
                if not (isinstance(event, ev.PodEnded) and self._performer.holds(pod)):
                    turn.apply(event, pod.job_id)

    async def report(self, report: PodReport, token: str) -> dict[str, object]:
        """What a sidecar or a master tells; the answer says whether its pods are to stop, and when it is to report again.

        Raises Unauthenticated, NotFound.
        """
        expected = self.keys.attempt_token(report.job_id, report.attempt)
        if not hmac.compare_digest(expected, token):
            raise Unauthenticated("This token does not belong to that attempt; only its own pods may report.")
        await self.settled()
        attempt = self.state.live_attempt(report.job_id)
        if attempt is None or attempt.number != report.attempt:
            raise NotFound(f"Attempt {report.attempt} of job {report.job_id} is over; nobody waits for its reports.")
        if report.epoch != attempt.epoch:
            raise NotFound(f"Attempt {report.attempt} of job {report.job_id} is of epoch {attempt.epoch}, not {report.epoch}.")
        if self._heartbeats.is_news(report.job_id, report.attempt, report.seq):
            pods = [
                PodState(
                    report.job_id,
                    report.attempt,
                    member.pod,
                    member.uid,
                    PodPhase(member.phase),
                    member.exit_code,
                    member.reason,
                    member.endpoints,
                    member.outputs,
                )
                for member in report.members
                if member.uid
            ]
            # A master repeats what it knows of its members; only of itself it says that it lives now.
            sender = next((pod.name for pod in attempt.pods if pod.role == MASTER), attempt.pods[0].name)
            self._heartbeats.heard([sender], self.now())
            if any(True for pod in pods for _ in reconcile.pod_events(self.state, pod)):
                point("report.before")
                await self.ask(lambda turn: self.take_in_pods(turn, pods))
                point("report.after")
        job = self.state.jobs.get(report.job_id)  # It may have been deleted meanwhile.
        if attempt.stopping_at is not None and job is not None:
            grace = job.work.grace_s
            return {"stop": {"grace_s": grace, "why": str(attempt.stop_reason or "")}}
        if attempt.phase is not AttemptPhase.RUNNING:
            return {"stop": None}
        limits = self.config.limits
        return {"stop": None, "next_s": next_report_s(self.state.live_count, limits.heartbeat_s, limits.lost_after_s)}

    # --- what requests are made of ---------------------------------------------------------------------------------------

    def new_id(self) -> str:
        return self._world.new_id()

    # --- requests ------------------------------------------------------------------------------------------------------

    def site(self) -> Site:
        defaults = self.config.defaults
        return Site(self.state.queues, self.state.clusters, defaults.queue, defaults.timeout_s)

    async def submit(self, request: JobRequest, who: Who, key: str | None = None) -> Job:
        """Accept a job. The same key of the same owner gives the same job; another body under it raises Conflict."""
        return (await self.submit_many([request], who, None if key is None else [key]))[0]

    async def submit_many(self, requests: Sequence[JobRequest], who: Who, keys: Sequence[str] | None = None) -> list[Job]:
        """Accept all or none, in one commit."""
        if keys is not None and len(keys) != len(requests):
            raise Conflict(f"{len(keys)} keys for {len(requests)} jobs; expected one key for each.")
        found = {prefix: await self.find(prefix, who) for prefix in {p: None for request in requests for p in request.after}}
        requests = [
            replace(request, after=tuple(found[prefix][0].id for prefix in request.after)) if request.after else request
            for request in requests
        ]
        digests = [hashlib.sha256(to_json(request)).hexdigest() for request in requests] if keys is not None else []
        known = {keyed.key: keyed for keyed in await self.store.keyed_among(who.name, keys or ())}
        earlier = {keyed.job_id: await self.store.job(keyed.job_id) for keyed in known.values()}

        def run(turn: Turn) -> list[Job]:
            jobs: list[tuple[Job, Keyed | None, bool]] = []
            site = self.site()
            # Keys of the same turn too: the same submit may have come twice before either was committed.
            fresh = {(keyed.owner, keyed.key): keyed for keyed in turn.keys}
            for index, request in enumerate(requests):
                # What is not committed yet is looked up only now: the turn that it came with may have been taken back meanwhile.
                key = (who.name, keys[index]) if keys is not None else None
                before = None if key is None else self._recent_keys.get(key) or fresh.get(key) or known.get(key[1])
                if before is not None:
                    if before.digest != digests[index]:
                        raise Conflict(f"The idempotency key {before.key[:40]!r} was used for another submit; use a new key.")
                    job = turn.state.jobs.get(before.job_id) or earlier.get(before.job_id)
                    if job is None:
                        raise NotFound(f"Job {before.job_id}, submitted under this key, was deleted.")
                    jobs.append((job, None, False))
                    continue
                order = self.order + 1 + index
                job = build(request, who, site, job_id=self.new_id(), order=order, now=turn.now)
                keyed = Keyed(*key, digests[index], job.id) if key is not None else None
                if keyed is not None:
                    fresh[keyed.owner, keyed.key] = keyed
                jobs.append((job, keyed, True))
            self.order += len(requests)
            for before_it, attempts in found.values():
                if before_it.phase.is_terminal:
                    turn.state.adopt(before_it, attempts)
            for job, keyed, is_new in jobs:
                if is_new:
                    turn.apply(ev.JobSubmitted(job), job.id)
                if keyed is not None:
                    turn.keys.append(keyed)
            return [turn.state.jobs.get(job.id, job) for job, _, _ in jobs]

        return await self.ask(run)

    def dry_run(self, request: JobRequest, who: Who) -> DryRun:
        """What a submit would lead to now, by the same code."""
        try:
            job = build(request, who, self.site(), job_id="dry-run", order=self.order + 1, now=self.now())
        except (AboveMax, NeverFits) as refusal:
            return DryRun("refused", str(refusal))
        decision = schedule(self.state.snapshot(also=job), self.now())
        for admission in decision.admitted:
            if admission.job_id == job.id:
                places = {f"{p.role}-{p.rank}" if p.rank >= 0 else p.role: p.node for p in admission.placements}
                return DryRun("starts", f"would start now on cluster {admission.cluster}", job, places)
        wait = next(wait for wait in decision.waits if wait.job_id == job.id)
        return DryRun("waits", f"would wait: {wait.sentence}", job, {}, wait)

    async def find(self, prefix_or_id: str, who: Who) -> tuple[Job, tuple[Attempt, ...]]:
        """A job by its id or a unique prefix of it, with its attempts. Another owner's job is not found, except by an admin."""
        owner = None if who.is_admin else who.name
        job = self.state.jobs.get(prefix_or_id) or await self.store.job(prefix_or_id)
        if job is None and len(prefix_or_id) >= SHORTEST_PREFIX:
            ids = await self.store.find_job(prefix_or_id, owner)
            if len(ids) > 1:
                raise NotFound(f"{prefix_or_id!r} stands for {len(ids)} jobs ({', '.join(ids[:3])} …); give more of the id.")
            job = (self.state.jobs.get(ids[0]) or await self.store.job(ids[0])) if ids else None
        if job is None or (owner is not None and job.owner != owner):
            raise NotFound(f"There is no job {prefix_or_id!r}; `tuttilab jobs --all` lists yours.")
        attempts = {a.number: a for a in await self.store.attempts(job.id)} if job.phase.is_terminal else {}
        attempts |= {number: a for (job_id, number), a in self.state.attempts.items() if job_id == job.id}
        return job, tuple(attempts[number] for number in sorted(attempts))

    async def cancel(self, job_id: str, who: Who) -> Job:
        def run(turn: Turn) -> Job | None:
            job = turn.state.jobs.get(job_id)
            if job is not None and not job.phase.is_terminal and not job.cancel_requested:
                turn.apply(ev.JobCancelRequested(job_id, who.name), job_id)
            return turn.state.jobs.get(job_id)

        job = await self.ask(run)
        # Acknowledged is: no pod of it is made from here on.
        await self._performer.launched(job_id)
        return job or (await self.find(job_id, who))[0]

    async def retry(self, job_id: str, who: Who) -> Job:
        """The same work again as a new job that knows where it comes from. Raises Conflict while the first one is live."""
        old, _ = await self.find(job_id, who)
        if not old.phase.is_terminal:
            raise Conflict(f"Job {old.id} is {old.phase}; cancel it or wait for its end before you retry it.")

        def run(turn: Turn) -> Job:
            self.order += 1
            fresh = Job(
                id=self.new_id(), name=old.name,
                owner=old.owner, group=old.group, queue=old.queue, kind=old.kind, gang=old.gang,
                work=old.work, submitted_at=turn.now, order=self.order, priority=old.priority, timeout_s=old.timeout_s,
                retries=old.retries, after=(), cluster=old.cluster, labels=old.labels, retry_of=old.id,
            )  # fmt: skip
            turn.apply(ev.JobSubmitted(fresh), fresh.id)
            return turn.state.jobs[fresh.id]

        return await self.ask(run)

    async def delete(self, job_id: str, who: Who) -> None:
        """Remove an ended job with its logs and results. Raises Conflict while it is live."""
        job, attempts = await self.find(job_id, who)
        if not job.phase.is_terminal:
            raise Conflict(f"Job {job.id} is {job.phase}; cancel it first.")

        def run(turn: Turn) -> None:
            # One that runs too: it may be queued again.
            later = next((one for one in turn.state.unended() if job.id in one.after), None)
            if later is not None:
                raise Conflict(f"Job {later.id} comes after job {job.id} and has not ended; cancel it or wait for its end.")
            turn.state.adopt(job, attempts)
            turn.apply(ev.JobDeleted(job.id), job.id)

        await self.ask(run)

    async def logs(
        self, job_id: str, who: Who, attempt: int | None, rank: int, start: int, limit: int
    ) -> tuple[Pod | None, LogChunk]:
        """Lines of one member's output. A job that has not started has none yet."""
        job, attempts = await self.find(job_id, who)
        if not attempts:
            return None, LogChunk(start, (), job.phase.is_terminal)
        chosen = next((a for a in attempts if a.number == attempt), None) if attempt is not None else attempts[-1]
        if chosen is None:
            raise NotFound(f"Job {job.id} has no attempt {attempt}; it has {len(attempts)}.")
        pod = chosen.of_rank(rank)
        if pod is None:
            last = max(pod.rank for pod in chosen.pods)
            raise NotFound(f"Job {job.id} has no rank {rank}; expected 0 to {last}.")
        try:
            return pod, await self._clusters[chosen.cluster].logs(job.id, chosen.number, pod.name, start, limit)
        except NotFound:
            return pod, LogChunk(start, (), pod.phase is PodPhase.ENDED)

    def is_at_rest(self) -> bool:
        """No job is live: nothing keeps an embedded control plane from ending by itself."""
        return self.state.is_at_rest()
