"""The virtual clock: feeds events to `State`, runs `schedule` when something changed, and plays the part of the clusters."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.instructions import Instruction, LaunchGang, StopGang, StopPods
from tuttilab.scheduler.model import Attempt, AttemptPhase, Cluster, Job, JobPhase, PodPhase, Queue
from tuttilab.scheduler.simulation.policies import Oracle, Policy
from tuttilab.scheduler.simulation.trace import TraceJob

Check = Callable[[State, float], None]
STOP_S: Final = 5.0
"""How long a gang takes to end when it is told to."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One job of the trace, as it went."""

    job: TraceJob
    started_at: float | None
    ended_at: float | None
    attempts: int
    phase: JobPhase
    reason: str = ""
    last: Attempt | None = None
    """Its newest attempt: where it ran, and which pods it gave back."""

    @property
    def wait_s(self) -> float | None:
        return None if self.started_at is None else self.started_at - self.job.submit_s

    @property
    def completion_s(self) -> float | None:
        return None if self.ended_at is None else self.ended_at - self.job.submit_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation leaves behind."""

    policy: str
    ran: tuple[Ran, ...]
    journal: tuple[tuple[ev.Event, float], ...]
    use: tuple[tuple[float, float], ...]
    """Time, and the used part of the scarcest resource from then on."""
    estimate_errors: tuple[tuple[float, float], ...]
    """Of sampled waiting gangs: how long they were told they would wait, and how long they waited after that."""
    preemptions: int
    decisions: int
    seconds: float
    """Real time spent in cycles and in applying what they decided."""
    longest_cycle_s: float


@dataclass(slots=True)
class Simulation:
    """One run. ``extra``: events of other kinds with their times (clusters lost, queues changed, cancels)."""

    clusters: Sequence[Cluster]
    queues: Sequence[Queue]
    trace: Sequence[TraceJob]
    policy: Policy
    extra: Sequence[tuple[float, ev.Event]] = ()
    check: Check | None = None
    sample_every: int = 0
    """Ask every so many submissions when the gang will start; 0: never."""
    keeps_journal: bool = False
    jobs: Mapping[str, Job] = field(default_factory=dict)
    """Jobs as they are submitted, by trace id, where a trace line cannot say all of it."""
    state: State = field(init=False)
    journal: list[tuple[ev.Event, float]] = field(default_factory=list)
    _heap: list[tuple[float, int, ev.Event]] = field(default_factory=list)
    _count: int = 0
    _durations: dict[str, float] = field(default_factory=dict)
    _told: dict[str, tuple[float, float]] = field(default_factory=dict)
    _last: dict[str, Job] = field(default_factory=dict)
    """Every job as its last change left it: the state forgets old ended ones."""
    _attempts: dict[str, Attempt] = field(default_factory=dict)
    """The newest of every job, likewise."""
    _unheard: list[ev.PodEnded] = field(default_factory=list)
    """What pods of lost clusters came to, which nobody hears before the cluster is back."""
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
            self._at(job.submit_s, ev.JobSubmitted(replace(made, order=order, submitted_at=job.submit_s)))
        for at, event in self.extra:
            self._at(at, event)

    def _at(self, at: float, event: ev.Event) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, event))

    def run(self, until: float = float("inf")) -> Outcome:
        """Until nothing more happens, or the clock passes ``until``."""
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
                if isinstance(event, ev.PodEnded) and self._is_lost(event):
                    self._unheard.append(event)
                    continue
                self._apply(event, now)
                if isinstance(event, ev.ClusterBack):
                    self._hear(now)
            if self.state.version != version or (next_at is not None and now >= next_at):
                began = perf_counter()
                next_at = self._cycle(now, sampled)
                took = perf_counter() - began
                seconds, longest = seconds + took, max(longest, took)
                self._note_use(now)
            if self.check is not None:
                self.check(self.state, now)
            changes = self.state.take_changes()
            for job in changes.jobs:
                self._last[job.id] = job
            for attempt in changes.attempts:
                self._attempts[attempt.job_id] = attempt
        return self._outcome(seconds, longest)

    def _is_lost(self, event: ev.PodEnded) -> bool:
        attempt = self.state.attempts.get((event.job_id, event.attempt))
        return attempt is not None and self.state.clusters[attempt.cluster].unreachable_since is not None

    def _hear(self, now: float) -> None:
        unheard, self._unheard = self._unheard, []
        for event in unheard:
            self._at(now, event)

    def _cycle(self, now: float, sampled: Iterable[str]) -> float | None:
        snapshot = self.state.snapshot()
        if sampled:
            told = schedule(replace(snapshot, rules=replace(snapshot.rules, tells_all=True)), now)
            for wait in told.waits:
                if wait.job_id in sampled and wait.estimated_start is not None:
                    self._told[wait.job_id] = (now, wait.estimated_start)
        decision = schedule(snapshot, now)
        for event in decision.events:
            self._decisions += 1
            self._preemptions += isinstance(event, ev.GangPreempted)
            self._apply(event, now)
        if snapshot.rules.tells_all:
            self.state.waits = {wait.job_id: wait for wait in decision.waits}
        return decision.next_at

    def _apply(self, event: ev.Event, now: float) -> None:
        instructions = self.state.handle(event, now)
        if self.keeps_journal:
            self.journal.append((event, now))
        for instruction in instructions:
            self._perform(instruction, now)

    def _perform(self, instruction: Instruction, now: float) -> None:
        """What a cluster that works would do and report."""
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
                    self._at(now + limit, ev.RunTimedOut(*where))
                for pod in reversed(attempt.pods):
                    self._at(end, ev.PodEnded(*where, pod.name, 0, "Completed"))
            else:
                known = [pod for pod in attempt.pods if pod.phase is PodPhase.PENDING]
                end = (attempt.started_at or now) + self._durations.get(attempt.job_id, 1.0)
                for pod in known:
                    self._apply(ev.PodStarted(*where, pod.name), now)
                    self._at(max(end, now), ev.PodEnded(*where, pod.name, 0, "Completed"))
        elif isinstance(instruction, StopGang):
            for pod in attempt.pods:
                if pod.phase is not PodPhase.ENDED:
                    self._at(now + min(STOP_S, instruction.grace_s), ev.PodEnded(*where, pod.name, 143, "Stopped"))
        elif isinstance(instruction, StopPods):
            for name in instruction.pods:
                self._at(now + min(STOP_S, instruction.grace_s), ev.PodEnded(*where, name, 143, "Stopped"))

    def _note_use(self, now: float) -> None:
        self._use.append((now, self.state.room().used_share()))

    def _outcome(self, seconds: float, longest: float) -> Outcome:
        ran = []
        for line in self.trace:
            job = self._last.get(line.job_id)
            if job is not None:
                last = self._attempts.get(line.job_id)
                ran.append(Ran(line, job.started_at, job.ended_at, job.attempts, job.phase, job.reason, last))
        errors = []
        for job_id, (at, told) in self._told.items():
            started = self._last[job_id].started_at
            if started is not None:
                errors.append((max(told - at, 0.0), started - at))
        return Outcome(
            self.policy.name,
            tuple(ran),
            tuple(self.journal),
            tuple(self._use),
            tuple(errors),
            self._preemptions,
            self._decisions,
            seconds,
            longest,
        )
