"""The loop: requests and events -> `State.handle` -> commit -> perform. The only place that awaits both the store and a cluster.

A caller hears of success after the commit, never before. When a commit fails, its callers get the error and the state is loaded
again from the rows, so memory never runs ahead of the database.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar, cast

from tuttilab.scheduler import events as ev
from tuttilab.scheduler import reconcile
from tuttilab.scheduler.clusters.base import Cluster, LogChunk, Observation, PodState
from tuttilab.scheduler.config import Config
from tuttilab.scheduler.core import lifecycle
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.kinds import spark as spark_kind
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.errors import (
    AboveMax,
    Bug,
    ClusterError,
    ClusterUnreachable,
    Conflict,
    LaunchRefused,
    NeverFits,
    NotFound,
    StoreError,
    Unauthenticated,
    Unavailable,
    UserError,
)
from tuttilab.scheduler.instructions import DropJob, ForgetPods, Instruction, LaunchGang, StopGang
from tuttilab.scheduler.launch import Addresses, Secrets, plan_of
from tuttilab.scheduler.model import Attempt, Job, JobKind, JobPhase, Pod, PodPhase, Wait
from tuttilab.scheduler.requests import JobRequest, SparkRequest, Who
from tuttilab.scheduler.store.base import Keyed, Store
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.wire import PodReport, SparkEndpointView, to_json

T = TypeVar("T")
log = logging.getLogger(__name__)

RECENT_KEYS: Final = 10_000
LONGEST_PAUSE_S: Final = 5.0
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


class Clock:
    """Service time: monotonic, anchored at start to the later of wall clock and the last journal entry, never backwards."""

    def __init__(self, last_at: float) -> None:
        self._anchor = max(time.time(), last_at)
        self._from = time.monotonic()

    def now(self) -> float:
        return self._anchor + time.monotonic() - self._from


class Service:
    """See the module. Methods that change something return after the commit; all raise the errors of `errors`."""

    def __init__(self, config: Config, store: Store, clusters: Mapping[str, Cluster], *, state_dir: Path) -> None:
        self.config = config
        self.store = store
        self.state = State()
        self.last_seq = 0
        self.addresses = Addresses("", str(state_dir / "control.json"), config.artifacts.url)
        self._clusters = dict(clusters)
        self._kinds = {cluster.name: cluster.kind for cluster in config.clusters}
        self._keys = Secrets.in_folder(state_dir)
        self._clock = Clock(0.0)
        self._order = 0
        self._inbox: list[_Ask[object]] = []
        self._wake = asyncio.Event()
        self._recent_keys: dict[tuple[str, str], Keyed] = {}
        self._change_waiters: set[asyncio.Future[int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._stopping = False

    # --- life ----------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock.now()

    async def start(self) -> None:
        """Take over: open the store, load the rows, apply the configured queues, and watch the clusters.

        Returns once every cluster that answers has been observed completely, so that adopted pods are known.
        """
        epoch = await self.store.open()
        await self._load(epoch)
        self._spawn(self._loop, "loop")
        wanted = tuple(self.config.queues)
        if tuple(self.state.queues.values()) != wanted:
            await self._ask(lambda turn: turn.apply(ev.QueuesConfigured(wanted), "queues"))
        first_looks = [asyncio.Event() for _ in self._clusters]
        for (name, cluster), looked in zip(self._clusters.items(), first_looks, strict=True):
            self._spawn(partial(self._watch, name, cluster, looked), f"watch {name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                for looked in first_looks:
                    await looked.wait()

    async def stop(self) -> None:
        """End the loop after the turn that runs; pods stay as they are."""
        self._stopping = True
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
        clusters, waits = self.state.clusters, self.state.waits
        self.state = State.load(loaded.jobs, loaded.attempts, loaded.queues, epoch, loaded.accounts, loaded.history)
        self.state.clusters, self.state.waits = clusters, waits
        self.last_seq = loaded.last_seq
        self._order = loaded.last_order
        self._clock = Clock(max(loaded.last_at, self.now()))

    def _spawn(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        async def run() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s ended unexpectedly", name)

        task = asyncio.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the loop ------------------------------------------------------------------------------------------------------

    async def _ask(self, run: Callable[[Turn], T]) -> T:
        if self._stopping:
            raise Unavailable("The control plane is ending; try again in a moment.")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._inbox.append(cast("_Ask[object]", _Ask(run, answer)))
        self._wake.set()
        return await answer

    async def _loop(self) -> None:
        next_at: float | None = None
        while True:
            pause = LONGEST_PAUSE_S if next_at is None else min(max(next_at - self.now(), 0.0), LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            next_at = await self._turn()

    async def _turn(self) -> float | None:
        """One transaction: everything that was asked, the timers that ran out, a cycle if anything changed."""
        asks, self._inbox = self._inbox, []
        turn = Turn(self.state, self.now())
        answers: list[tuple[_Ask[object], object]] = []
        try:
            for ask in asks:
                try:
                    answers.append((ask, ask.run(turn)))
                except UserError as refusal:
                    _refuse([ask], refusal)
            due, next_timer = lifecycle.due_timers(self.state.live(), turn.now, self.config.limits.barrier_s)
            for event in due:
                turn.apply(event, event.job_id)
            next_back_off = None
            if turn.entries or any(job.not_before <= turn.now for job in self.state.queued()):
                next_back_off = turn.schedule()
            if turn.entries:
                self.last_seq = await self.store.commit(turn.batch())
        except Exception as error:
            await self._give_up(turn, asks, error)
            return self.now()
        if turn.entries:
            self._tell_changed()
        for ask, value in answers:
            if not ask.answer.done():
                ask.answer.set_result(value)
        for instruction in turn.instructions:
            self._perform(instruction)
        return min((at for at in (next_timer, next_back_off) if at is not None), default=None)

    async def _give_up(self, turn: Turn, asks: Sequence[_Ask[object]], error: Exception) -> None:
        """Nothing of this turn happened: forget its keys, load the rows again, then tell those who asked."""
        if isinstance(error, StoreError):
            log.error("a commit failed, the rows are loaded again: %s", error)
        else:
            log.error("a turn broke, the rows are loaded again", exc_info=error)
            error = Unavailable("The control plane could not do this and has taken it back; its log says why. Try again.")
        for keyed in turn.keys:
            self._recent_keys.pop((keyed.owner, keyed.key), None)
        while True:
            try:
                await self._load(self.state.epoch)
                _refuse(asks, error)
                return
            except StoreError as still:
                log.error("the store does not answer: %s", still)
                _refuse([*asks, *self._inbox], still)
                self._inbox = []
            await asyncio.sleep(1.0)

    def _remember(self, keyed: Keyed) -> None:
        self._recent_keys[keyed.owner, keyed.key] = keyed
        while len(self._recent_keys) > RECENT_KEYS:
            del self._recent_keys[next(iter(self._recent_keys))]

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
        self._change_waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            return self.last_seq
        finally:
            self._change_waiters.discard(waiter)

    # --- performing ----------------------------------------------------------------------------------------------------

    def _perform(self, instruction: Instruction) -> None:
        self._spawn(partial(self._perform_one, instruction), f"{type(instruction).__name__} {instruction.job_id}")

    async def _perform_one(self, instruction: Instruction) -> None:
        """Carry out one instruction; instructions about one job go one after the other. Unreachable clusters are tried again."""
        lock = self._locks.setdefault(instruction.job_id, asyncio.Lock())
        pause = 0.2
        async with lock:
            while True:
                try:
                    await self._carry_out(instruction)
                    break
                except (ClusterUnreachable, StoreError, Unavailable) as error:
                    log.warning("%s: %s; trying again in %.1f s", instruction, error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
        if isinstance(instruction, (ForgetPods, DropJob)) and not lock.locked():
            self._locks.pop(instruction.job_id, None)

    async def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case LaunchGang(job_id, number):
                await self._launch(job_id, number)
            case StopGang(job_id, number, grace_s, _):
                attempt = self.state.attempts.get((job_id, number))
                for cluster in self._where(attempt):
                    await cluster.stop(job_id, number, grace_s)
                if attempt is not None:
                    await self._end_unmade(job_id, number, attempt.cluster)
            case ForgetPods(job_id, number):
                for cluster in self._where(self.state.attempts.get((job_id, number))):
                    await cluster.forget(job_id, number)
            case DropJob(job_id, attempts):
                for cluster in self._clusters.values():
                    for number in range(1, attempts + 1):
                        await cluster.forget(job_id, number, erase=True)

    def _where(self, attempt: Attempt | None) -> list[Cluster]:
        return [self._clusters[attempt.cluster]] if attempt is not None else list(self._clusters.values())

    async def _launch(self, job_id: str, number: int) -> None:
        attempt = self.state.live_attempt(job_id)
        if attempt is None or attempt.number != number or attempt.stopping_at is not None:
            return
        plan = plan_of(self.state.jobs[job_id], attempt, self._keys, self.addresses, self.config.limits.barrier_s)
        try:
            await self._clusters[attempt.cluster].launch(plan)
        except LaunchRefused as refusal:
            event = ev.LaunchFailed(job_id, number, str(refusal), refusal.permanent, refusal.node)
            await self._ask(lambda turn: turn.apply(event, job_id))
        except Bug as bug:
            log.error("job %s attempt %s: %s", job_id, number, bug)
            broken = ev.LaunchFailed(job_id, number, str(bug), permanent=True)
            await self._ask(lambda turn: turn.apply(broken, job_id))

    async def _end_unmade(self, job_id: str, number: int, cluster: str) -> None:
        """After a stop under the job's lock no launch is under way, so a pod that the cluster does not have never will be."""
        seen = await self._look(self._clusters[cluster])
        shown = [pod.name for pod in seen.pods if (pod.job_id, pod.attempt) == (job_id, number)]

        def run(turn: Turn) -> None:
            for event in list(reconcile.unmade_pods(turn.state, job_id, number, shown)):
                turn.apply(event, job_id)

        attempt = self.state.live_attempt(job_id)
        if attempt is not None and any(pod.uid is None and pod.name not in shown for pod in attempt.pods):
            await self._ask(run)

    @staticmethod
    async def _look(cluster: Cluster) -> Observation:
        """One complete observation."""
        async with contextlib.aclosing(cluster.observe()) as stream:
            return await anext(stream)

    # --- watching ------------------------------------------------------------------------------------------------------

    async def _watch(self, name: str, cluster: Cluster, looked: asyncio.Event) -> None:
        """Turn what the cluster shows into events, for as long as the service lives."""
        pause = 0.2
        while True:
            try:
                async for observation in cluster.observe():
                    await self._take_in(name, observation)
                    looked.set()
                    pause = 0.2
            except ClusterError as error:
                log.warning("cluster %s does not answer: %s", name, error)
                looked.set()
                with contextlib.suppress(StoreError, Unavailable):
                    await self._ask(lambda turn: turn.apply(ev.ClusterLost(name), name))
            except (StoreError, Unavailable) as error:
                log.warning("what cluster %s shows could not be committed, it is looked at again: %s", name, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)

    async def _take_in(self, name: str, seen: Observation) -> None:
        again: list[Instruction] = []

        def run(turn: Turn) -> None:
            known = turn.state.clusters.get(name)
            if known is not None and known.unreachable_since is not None:
                turn.apply(ev.ClusterBack(name), name)
            nodes = reconcile.cluster_event(turn.state, name, self._kinds.get(name, "fake"), seen)
            if nodes is not None:
                turn.apply(nodes, name)
            self._apply_pods(turn, seen.pods)
            if seen.is_complete:
                for event in list(reconcile.missing_pods(turn.state, name, seen.pods)):
                    turn.apply(event, cast("ev.PodEnded", event).job_id)
                again.extend(reconcile.to_do_again(turn.state, name, seen.pods))

        await self._ask(run)
        for instruction in again:
            self._perform(instruction)

    @staticmethod
    def _apply_pods(turn: Turn, pods: Sequence[PodState]) -> None:
        for pod in pods:
            for event in list(reconcile.pod_events(turn.state, pod)):
                turn.apply(event, pod.job_id)

    async def report(self, report: PodReport, token: str) -> dict[str, object]:
        """What a sidecar or a master tells; the answer says whether its pods are to stop. Raises Unauthenticated, NotFound."""
        expected = self._keys.attempt_token(report.job_id, report.attempt)
        if not hmac.compare_digest(expected, token):
            raise Unauthenticated("This token does not belong to that attempt; only its own pods may report.")
        attempt = self.state.live_attempt(report.job_id)
        if attempt is None or attempt.number != report.attempt:
            raise NotFound(f"Attempt {report.attempt} of job {report.job_id} is over; nobody waits for its reports.")
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
        ]
        if any(True for pod in pods for _ in reconcile.pod_events(self.state, pod)):
            await self._ask(lambda turn: self._apply_pods(turn, pods))
        if attempt.stopping_at is not None:
            grace = self.state.jobs[report.job_id].work.grace_s
            return {"stop": {"grace_s": grace, "why": str(attempt.stop_reason or "")}}
        return {"stop": None}

    # --- requests ------------------------------------------------------------------------------------------------------

    def _site(self) -> Site:
        defaults = self.config.defaults
        return Site(self.state.queues, self.state.clusters, defaults.queue, defaults.timeout_s)

    async def submit(self, request: JobRequest, who: Who, key: str | None = None) -> Job:
        """Accept a job. The same key of the same owner gives the same job; another body under it raises Conflict."""
        return (await self.submit_many([request], who, None if key is None else [key]))[0]

    async def submit_many(self, requests: Sequence[JobRequest], who: Who, keys: Sequence[str] | None = None) -> list[Job]:
        """Accept all or none, in one commit."""
        if keys is not None and len(keys) != len(requests):
            raise Conflict(f"{len(keys)} keys for {len(requests)} jobs; expected one key for each.")
        requests = [replace(request, after=tuple([await self._full_id(j, who) for j in request.after])) for request in requests]
        digests = [hashlib.sha256(to_json(request)).hexdigest() for request in requests]
        known = [await self._keyed(who.name, key) for key in keys] if keys is not None else [None] * len(requests)
        earlier = {k.job_id: await self.store.job(k.job_id) for k in known if k is not None}

        def run(turn: Turn) -> list[Job]:
            jobs: list[tuple[Job, Keyed | None, bool]] = []
            for index, request in enumerate(requests):
                before = known[index] or (self._recent_keys.get((who.name, keys[index])) if keys is not None else None)
                if before is not None:
                    if before.digest != digests[index]:
                        raise Conflict(f"The idempotency key {before.key[:40]!r} was used for another submit; use a new key.")
                    job = turn.state.jobs.get(before.job_id) or earlier.get(before.job_id)
                    if job is None:
                        raise NotFound(f"Job {before.job_id}, submitted under this key, was deleted.")
                    jobs.append((job, None, False))
                    continue
                job = build(request, who, self._site(), job_id=new_id(), order=self._order + 1 + index, now=turn.now)
                keyed = Keyed(who.name, keys[index], digests[index], job.id) if keys is not None else None
                jobs.append((job, keyed, True))
            self._order += len(requests)
            for job, keyed, is_new in jobs:
                if is_new:
                    turn.apply(ev.JobSubmitted(job), job.id)
                if keyed is not None:
                    turn.keys.append(keyed)
                    self._remember(keyed)
            return [turn.state.jobs.get(job.id, job) for job, _, _ in jobs]

        return await self._ask(run)

    async def _keyed(self, owner: str, key: str) -> Keyed | None:
        return self._recent_keys.get((owner, key)) or await self.store.keyed(owner, key)

    async def _full_id(self, prefix: str, who: Who) -> str:
        job, _ = await self.find(prefix, who)
        return job.id

    def dry_run(self, request: JobRequest, who: Who) -> DryRun:
        """What a submit would lead to now, by the same code."""
        try:
            job = build(request, who, self._site(), job_id="dry-run", order=self._order + 1, now=self.now())
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

        return await self._ask(run) or (await self.find(job_id, who))[0]

    async def retry(self, job_id: str, who: Who) -> Job:
        """The same work again as a new job that knows where it comes from. Raises Conflict while the first one is live."""
        old, _ = await self.find(job_id, who)
        if not old.phase.is_terminal:
            raise Conflict(f"Job {old.id} is {old.phase}; cancel it or wait for its end before you retry it.")

        def run(turn: Turn) -> Job:
            self._order += 1
            fresh = Job(
                id=new_id(), name=old.name, owner=old.owner, group=old.group, queue=old.queue, kind=old.kind, gang=old.gang,
                work=old.work, submitted_at=turn.now, order=self._order, priority=old.priority, timeout_s=old.timeout_s,
                retries=old.retries, after=(), cluster=old.cluster, labels=old.labels, retry_of=old.id,
            )  # fmt: skip
            turn.apply(ev.JobSubmitted(fresh), fresh.id)
            return turn.state.jobs[fresh.id]

        return await self._ask(run)

    async def delete(self, job_id: str, who: Who) -> None:
        """Remove an ended job with its logs and results. Raises Conflict while it is live."""
        job, attempts = await self.find(job_id, who)
        if not job.phase.is_terminal:
            raise Conflict(f"Job {job.id} is {job.phase}; cancel it first.")

        def run(turn: Turn) -> None:
            turn.state.adopt(job, attempts)
            turn.apply(ev.JobDeleted(job.id), job.id)

        await self._ask(run)

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
        pod = next((pod for pod in chosen.pods if pod.rank == rank), None)
        if pod is None:
            last = max(pod.rank for pod in chosen.pods)
            raise NotFound(f"Job {job.id} has no rank {rank}; expected 0 to {last}.")
        try:
            return pod, await self._clusters[chosen.cluster].logs(job.id, chosen.number, pod.name, start, limit)
        except NotFound:
            return pod, LogChunk(start, (), pod.phase is PodPhase.ENDED)

    # --- Spark sessions ------------------------------------------------------------------------------------------------

    def spark_jobs(self, who: Who) -> list[Job]:
        """The caller's live sessions."""
        live = [job for job in self.state.jobs.values() if job.kind is JobKind.SPARK and job.owner == who.name]
        return [job for job in live if job.phase in (JobPhase.QUEUED, JobPhase.ACTIVE)]

    async def spark(self, request: SparkRequest, who: Who) -> Job:
        """The caller's session by that name: the one that lives, else a new one in the queue."""
        conf = {**self.config.defaults.spark_conf, **request.conf}
        submit = spark_kind.request_of(replace(request, conf=conf), sys.executable)

        def run(turn: Turn) -> Job:
            for job in turn.state.jobs.values():
                if spark_kind.is_live_session(job, request.name, who.name):
                    return job
            self._order += 1
            job = build(submit, who, self._site(), job_id=new_id(), order=self._order, now=turn.now)
            turn.apply(ev.JobSubmitted(job), job.id)
            return turn.state.jobs[job.id]

        return await self._ask(run)

    def spark_endpoint(self, name: str, who: Who) -> SparkEndpointView:
        """How the owner reaches the session. Raises NotFound without one, Conflict while it is not ready."""
        job = next((j for j in self.spark_jobs(who) if spark_kind.session_name(j) == name), None)
        if job is None:
            raise NotFound(f"There is no Spark session {name!r}; `%spark start {name}` starts one.")
        attempt = self.state.live_attempt(job.id)
        endpoints = attempt.members[0].endpoints if attempt is not None else {}
        if attempt is None or spark_kind.CONNECT_ENDPOINT not in endpoints:
            wait = self.state.waits.get(job.id)
            why = wait.sentence if wait else (attempt.phase.lower() if attempt else "queued")
            raise Conflict(f"Spark session {name!r} is not ready yet: {why}.")
        host, _, port = endpoints[spark_kind.CONNECT_ENDPOINT].rpartition(":")
        token = self._keys.spark_token(job.id, attempt.number)
        return SparkEndpointView(name=name, job_id=job.id, host=host, port=int(port), token=token, ui=endpoints.get("ui"))

    def is_at_rest(self) -> bool:
        """No job is live: nothing keeps an embedded control plane from ending by itself."""
        return self.state.is_at_rest()


def new_id() -> str:
    """128 random bits as 26 lower-case letters and digits."""
    return base64.b32hexencode(secrets.token_bytes(16)).decode().rstrip("=").lower()
