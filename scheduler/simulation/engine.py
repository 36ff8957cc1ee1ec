"""The discrete-event simulation: feeds events to `State`, runs a cycle after each change, and simulates the clusters."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final

from tuttilab.scheduler.core.cycle import Decision, schedule
from tuttilab.scheduler.core.cycle import Watch as CycleWatch
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.core.told.ranges import ToldRanges
from tuttilab.scheduler.core.told.waits import WaitsByJob
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction, LaunchGang, StopGang, StopPods
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Cluster, Job, JobPhase, PodPhase, Queue, Wait
from tuttilab.scheduler.simulation.policies import Oracle, Policy
from tuttilab.scheduler.simulation.story import Watch
from tuttilab.scheduler.simulation.trace import TraceJob

Check = Callable[[State, float], None]
TELL_AGAIN_S: Final = 900.0
"""After how long a waiting sampled job is asked first what it is told now."""
STOP_S: Final = 5.0
"""How long a stopped gang takes to end."""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of one job of the trace."""

    job: TraceJob
    started_at: float | None
    ended_at: float | None
    attempts: int
    phase: JobPhase
    reason: str = ""
    last: Attempt | None = None
    """Its newest attempt, with where it ran and which pods left it."""

    @property
    def wait_s(self) -> float | None:
        return None if self.started_at is None else self.started_at - self.job.submit_s

    @property
    def completion_s(self) -> float | None:
        return None if self.ended_at is None else self.ended_at - self.job.submit_s


@dataclass(frozen=True, slots=True)
class ToldStart:
    """When a sampled waiting gang was told to start, and when it did; seconds from then on. Without a range nothing was told."""

    earliest_s: float | None
    latest_s: float | None
    started_s: float
    is_first: bool
    """Whether it was told at its submission; else later, while it waited."""

    @property
    def is_told(self) -> bool:
        return self.latest_s is not None

    @property
    def holds(self) -> bool:
        """Whether it started in the told range, give or take the second in which starts are simulated."""
        if self.earliest_s is None or self.latest_s is None:
            return False
        return self.earliest_s - 1 <= self.started_s <= self.latest_s + 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a simulation."""

    policy: str
    ran: tuple[JobOutcome, ...]
    journal: tuple[tuple[ev.Event, float], ...]
    use: tuple[tuple[float, float], ...]
    """Time, and the used share of the scarcest resource from then on."""
    estimate_errors: tuple[tuple[float, float], ...]
    """Of sampled waiting gangs: the forecast wait, and the real wait, in seconds from the forecast on."""
    told: tuple[ToldStart, ...]
    preemptions: int
    decisions: int
    seconds: float
    """Real time spent in cycles and in applying what they decided."""
    longest_cycle_s: float


@dataclass(slots=True)
class Simulation:
    """One simulation. ``extra``: events beside the trace with their times (clusters lost, queues changed, cancels)."""

    clusters: Sequence[Cluster]
    queues: Sequence[Queue]
    trace: Sequence[TraceJob]
    policy: Policy
    extra: Sequence[tuple[float, ev.Event]] = ()
    check: Check | None = None
    sample_every: int = 0
    """Record what each job whose submission number is a multiple of this is told about its start; 0: of none."""
    keeps_journal: bool = False
    watch: Watch | None = None
    """Notes what happens to one waiting gang."""
    jobs: Mapping[str, Job] = field(default_factory=dict)
    """By trace id, jobs to submit in place of those made from the trace, with properties that a trace line cannot express."""
    state: State = field(init=False)
    journal: list[tuple[ev.Event, float]] = field(default_factory=list)
    _heap: list[tuple[float, int, ev.Event]] = field(default_factory=list)
    _count: int = 0
    _durations: dict[str, float] = field(default_factory=dict)
    _told: dict[str, list[tuple[float, Wait]]] = field(default_factory=dict)
    """What each sampled job was told, and when."""
    _tell_again: dict[str, float] = field(default_factory=dict)
    """When to ask again what a sampled job is told that waits."""
    _last_jobs: dict[str, Job] = field(default_factory=dict)
    """The newest version of every job, because the state drops old ended ones."""
    _last_attempts: dict[str, Attempt] = field(default_factory=dict)
    """The newest attempt of every job, for the same reason."""
    _held_back: list[ev.PodEnded] = field(default_factory=list)
    """Ends of pods on unreachable clusters, delivered when the cluster is back."""
    _use: list[tuple[float, float]] = field(default_factory=list)
    _preemptions: int = 0
    _decisions: int = 0

    def __post_init__(self) -> None:
        self.state = State(epoch=1, rules=self.policy.rules)
        self._durations = {job.job_id: job.duration_s for job in self.trace}
        if self.policy.knows_durations:
            self.state.history = Oracle(durations=self._durations)
        self._apply(ev.QueuesConfigured(tuple(self.queues)), 0.0)
        for cluster in self.clusters:
            self._apply(ev.ClusterObserved(cluster), 0.0)
        for order, job in enumerate(self.trace, start=1):
            made = self.jobs.get(job.job_id) or job.job(order)
            self._schedule_event(job.submit_s, ev.JobSubmitted(replace(made, order=order, submitted_at=job.submit_s)))
        for at, event in self.extra:
            self._schedule_event(at, event)

    def _schedule_event(self, at: float, event: ev.Event) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, event))

    def run(self, until: float = float("inf")) -> Outcome:
        """Run until no event is left, or the clock passes ``until``."""
        seconds = longest = 0.0
        submitted = 0
        next_at: float | None = None
        while self._heap or next_at is not None:
            now = min(self._heap[0][0] if self._heap else float("inf"), next_at if next_at is not None else float("inf"))
            if now > until or (not self._heap and not self.state.queued()):
                break
            version = self.state.version
            sampled: list[str] = []
            while self._heap and self._heap[0][0] <= now:
                event = heapq.heappop(self._heap)[2]
                if isinstance(event, ev.JobSubmitted):
                    submitted += 1
                    if self.sample_every and submitted % self.sample_every == 0:
                        sampled.append(event.job.id)
                if isinstance(event, ev.PodEnded) and self._is_unreachable(event):
                    self._held_back.append(event)
                    continue
                self._apply(event, now)
                if isinstance(event, ev.ClusterBack):
                    self._deliver_held_back(now)
            if self.state.version != version or (next_at is not None and now >= next_at):
                began = perf_counter()
                next_at = self._cycle(now, sampled)
                took = perf_counter() - began
                seconds, longest = seconds + took, max(longest, took)
                self._record_use(now)
            if self.check is not None:
                self.check(self.state, now)
            changes = self.state.take_changes()
            for job in changes.jobs:
                self._last_jobs[job.id] = job
            for attempt in changes.attempts:
                self._last_attempts[attempt.job_id] = attempt
        return self._outcome(seconds, longest)

    def _is_unreachable(self, event: ev.PodEnded) -> bool:
        attempt = self.state.attempts.get((event.job_id, event.attempt))
        return attempt is not None and self.state.clusters[attempt.cluster].unreachable_since is not None

    def _deliver_held_back(self, now: float) -> None:
        unheard, self._held_back = self._held_back, []
        for event in unheard:
            self._schedule_event(now, event)

    def _cycle(self, now: float, sampled: Iterable[str]) -> float | None:
        snapshot = self.state.snapshot()
        asked = {*sampled, *(job_id for job_id, at in self._tell_again.items() if at <= now)}
        if asked:
            self._ask(snapshot, asked, now)
        if self.watch is not None and self.watch.asks(now) and self.state.is_queued(self.watch.job_id):
            self.watch.tell(self._explained(snapshot, now, self.watch.note).waits, now)
        decision = schedule(snapshot, now, self.watch)
        for event in decision.events:
            self._decisions += 1
            self._preemptions += isinstance(event, ev.GangPreempted)
            self._apply(event, now)
        if snapshot.rules.explains_all:
            self.state.waits = WaitsByJob(decision.waits)
        return decision.next_at

    def _ask(self, snapshot: Snapshot, asked: Container[str], now: float) -> None:
        """Note what these jobs are told. Each is asked again when it has waited twice as long."""
        waits = self._explained(snapshot, now).waits
        self.state.accuracy.record([one for one in waits.foreseen if one in asked], waits.forecast_of, now)
        for wait in [waits.of(job_id) for job_id in waits.job_ids if job_id in asked]:
            said = self._told.setdefault(wait.job_id, [])
            said.append((now, wait))
            self._tell_again[wait.job_id] = now + max(now - said[0][0], TELL_AGAIN_S)
        for job_id in [job_id for job_id in self._tell_again if not self.state.is_queued(job_id)]:
            del self._tell_again[job_id]

    def _explained(self, snapshot: Snapshot, now: float, see: CycleWatch | None = None) -> Decision:
        """The decision with the reasons of all that wait."""
        rules = replace(snapshot.rules, explains_all=True)
        before = ToldRanges.of(said[-1][1] for job_id, said in self._told.items() if self.state.is_queued(job_id))
        return schedule(replace(snapshot, rules=rules, told=before, factors=self.state.accuracy.factors()), now, see)

    def _apply(self, event: ev.Event, now: float) -> None:
        instructions = self.state.handle(event, now)
        if self.keeps_journal:
            self.journal.append((event, now))
        for instruction in instructions:
            self._perform(instruction, now)

    def _perform(self, instruction: Instruction, now: float) -> None:
        """Simulate what a healthy cluster would do and report."""
        attempt = self.state.attempts.get((instruction.job_id, getattr(instruction, "attempt", 0)))
        if attempt is None:
            return
        where = (attempt.job_id, attempt.number)
        if isinstance(instruction, LaunchGang):
            if attempt.phase is AttemptPhase.LAUNCHING:
                end = now + self._durations.get(attempt.job_id, 1.0)
                for pod in attempt.pods:
                    self._apply(ev.PodStarted(*where, pod.name), now)
                limit = self.state.jobs[attempt.job_id].timeout_s
                if limit is not None and now + limit < end:
                    self._schedule_event(now + limit, ev.RunTimedOut(*where))
                for pod in reversed(attempt.pods):
                    self._schedule_event(end, ev.PodEnded(*where, pod.name, 0, "Completed"))
            else:
                known = [pod for pod in attempt.pods if pod.phase is PodPhase.PENDING]
                end = (attempt.started_at or now) + self._durations.get(attempt.job_id, 1.0)
                for pod in known:
                    self._apply(ev.PodStarted(*where, pod.name), now)
                    self._schedule_event(max(end, now), ev.PodEnded(*where, pod.name, 0, "Completed"))
        elif isinstance(instruction, StopGang):
            for pod in attempt.pods:
                if pod.phase is not PodPhase.ENDED:
                    self._schedule_event(now + min(STOP_S, instruction.grace_s), ev.PodEnded(*where, pod.name, 143, "Stopped"))
        elif isinstance(instruction, StopPods):
            for name in instruction.pods:
                self._schedule_event(now + min(STOP_S, instruction.grace_s), ev.PodEnded(*where, name, 143, "Stopped"))

    def _record_use(self, now: float) -> None:
        self._use.append((now, self.state.room().used_share()))

    def _outcome(self, seconds: float, longest: float) -> Outcome:
        ran = []
        for line in self.trace:
            job = self._last_jobs.get(line.job_id)
            if job is not None:
                last = self._last_attempts.get(line.job_id)
                ran.append(JobOutcome(line, job.started_at, job.ended_at, job.attempts, job.phase, job.reason, last))
        errors, told = [], []
        for job_id, said in self._told.items():
            started = self._last_jobs[job_id].started_at
            for number, (at, wait) in enumerate(said):
                if started is None or started < at:
                    continue
                told.append(_told_start(wait, at, started, number == 0))
                if number == 0 and wait.estimated_start is not None:
                    errors.append((max(wait.estimated_start - at, 0.0), started - at))
        return Outcome(
            self.policy.name,
            tuple(ran),
            tuple(self.journal),
            tuple(self._use),
            tuple(errors),
            tuple(told),
            self._preemptions,
            self._decisions,
            seconds,
            longest,
        )


def _told_start(wait: Wait, at: float, started: float, is_first: bool) -> ToldStart:
    earliest = None if wait.earliest is None else max(wait.earliest - at, 0.0)
    return ToldStart(earliest, None if wait.latest is None else wait.latest - at, started - at, is_first)
