"""`State.handle(event, at) -> [instruction]`: the only place where a job, an attempt or a pod changes. Events in, instructions out.

The rows live in the database; this is their image in memory. Each call notes which rows it changed, and `take_changes` hands them
to whoever commits. An event that is late, doubled or about something unknown changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from typing import Final

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core import dag, lifecycle, resizing
from tuttilab.scheduler.core.accounts import Accounts, Use
from tuttilab.scheduler.core.books import Books
from tuttilab.scheduler.core.desk import use_of
from tuttilab.scheduler.core.estimates import Guess, History
from tuttilab.scheduler.core.kinds import notebook
from tuttilab.scheduler.core.layout import layout_of
from tuttilab.scheduler.core.placement import allowed_clusters, charge_of, pod_cost
from tuttilab.scheduler.core.queues import check_tree, path_of
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rules import THE_SERVICES, Rules
from tuttilab.scheduler.core.shapes import Shapes
from tuttilab.scheduler.core.snapshot import NodeKey, Room, Snapshot, holds_of
from tuttilab.scheduler.errors import Bug
from tuttilab.scheduler.instructions import DropJob, ForgetPods, Instruction, LaunchGang, StopGang, StopPods
from tuttilab.scheduler.model import (
    MASTER,
    Attempt,
    AttemptPhase,
    Charge,
    Cluster,
    Dag,
    Ends,
    Gang,
    Job,
    JobKind,
    JobPhase,
    NodePhase,
    Overtaking,
    Pod,
    PodPhase,
    Prediction,
    Profile,
    Queue,
    Run,
    RunHistory,
    RunPhase,
    StopReason,
    Wait,
)
from tuttilab.scheduler.resources import MEMORY, NOTHING, Resources, show_amount, show_duration, total

ENDED_JOBS_KEPT: Final = 2000
"""Ended jobs kept in memory for quick answers; the database has them all."""

ENDED_JOBS_SLACK: Final = 200
"""So many more before they are thinned out: looking which are still needed costs a walk over all live jobs."""

ENDED_RUNS_KEPT: Final = 200

LEASE_LOST: Final = "LeaseLost"
"""Reason of a pod that stopped itself because nobody answered it any more: lost infrastructure, no failure of the job's own."""
NOT_STARTED: Final = ("NeverStarted", "InputMissing", "WorkdirMissing", "CommandNotFound")
"""Reasons of a pod that ended before its user code ran."""
ENDED_BY_ITSELF: Final = (None, StopReason.REQUIRED_DONE, StopReason.MEMBER_FAILED, StopReason.TIMEOUT)
"""Reasons for a stop (none: it just ended) after which the run time says something about the next run."""

AttemptKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that changed since the last call."""

    jobs: tuple[Job, ...]
    attempts: tuple[Attempt, ...]
    queues: tuple[Queue, ...] | None
    deleted_jobs: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    dags: tuple[Dag, ...] = ()
    profiles: tuple[Profile, ...] = ()
    deleted_profiles: tuple[str, ...] = ()
    accounts: tuple[Overtaking, ...] = ()
    ended_accounts: tuple[str, ...] = ()
    """Jobs that wait no more: their account rows go."""
    history: tuple[RunHistory, ...] = ()
    dropped_history: tuple[str, ...] = ()
    """Keys of history that are given up."""


@dataclass(slots=True)
class State:
    jobs: dict[str, Job] = field(default_factory=dict)
    attempts: dict[AttemptKey, Attempt] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    waits: dict[str, Wait] = field(default_factory=dict)
    """Why each queued job waits, as the last cycle saw it. Not a row: computed again after a restart."""
    runs: dict[str, Run] = field(default_factory=dict)
    dags: dict[str, Dag] = field(default_factory=dict)
    """The newest version of each named DAG."""
    profiles: dict[str, Profile] = field(default_factory=dict)
    epoch: int = 0
    _node_of: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Job id to run id and node name, for the nodes of runs that are not over."""
    _changed_runs: dict[str, None] = field(default_factory=dict)
    _changed_dags: dict[str, None] = field(default_factory=dict)
    _changed_profiles: dict[str, None] = field(default_factory=dict)
    rules: Rules = THE_SERVICES
    accounts: Accounts = field(default_factory=Accounts)
    history: History = field(default_factory=History)
    version: int = 0
    """Rises with every change that a decision could depend on."""
    settled_until: float | None = None
    """When the last decision wants to be looked at again although nothing changed."""
    _settled_version: int = -1
    _books: Books = field(default_factory=Books)
    _shapes: Shapes = field(default_factory=Shapes)
    _guesses: dict[str, Guess] = field(default_factory=dict)
    """Of the queued jobs."""
    _followers: dict[str, dict[str, None]] = field(default_factory=dict)
    """Queued jobs by the job that they come after."""
    _queued: dict[str, None] = field(default_factory=dict)
    _live: dict[str, AttemptKey] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)
    _changed_jobs: dict[str, None] = field(default_factory=dict)
    _changed_attempts: dict[AttemptKey, None] = field(default_factory=dict)
    _queues_changed: bool = False
    _deleted: list[str] = field(default_factory=list)

    @classmethod
    def load(
        cls,
        jobs: Iterable[Job],
        attempts: Iterable[Attempt],
        queues: Iterable[Queue],
        epoch: int,
        runs: Iterable[Run] = (),
        dags: Iterable[Dag] = (),
        profiles: Iterable[Profile] = (),
        accounts: Iterable[Overtaking] = (),
        history: Iterable[RunHistory] = (),
    ) -> State:
        state = cls(epoch=epoch)
        state.queues = check_tree(tuple(queues))
        state.history = History.of(history)
        for job in jobs:
            state.jobs[job.id] = job
            if job.phase is JobPhase.QUEUED:
                state._queue_up(job)
            elif job.phase.is_terminal:
                state._ended[job.id] = None
        state.accounts = Accounts.of(accounts, state.queued())
        for attempt in attempts:
            key = (attempt.job_id, attempt.number)
            state.attempts[key] = attempt
            if attempt.phase.is_live:
                state._live[attempt.job_id] = key
                state._books.put(state.jobs[attempt.job_id], attempt, state.history)
        for run in runs:
            state._keep_run(run)
        state.dags = {one.name: one for one in dags}
        state.profiles = {one.name: one for one in profiles}
        state._books.configure(state.queues)
        return state

    # --- questions -------------------------------------------------------------------------------------------------

    def live_attempt(self, job_id: str) -> Attempt | None:
        key = self._live.get(job_id)
        return self.attempts[key] if key else None

    def live(self) -> list[tuple[Job, Attempt]]:
        return [(self.jobs[job_id], self.attempts[key]) for job_id, key in self._live.items()]

    @property
    def live_count(self) -> int:
        return len(self._live)

    def queued(self) -> list[Job]:
        return [self.jobs[job_id] for job_id in self._queued]

    def unended(self) -> list[Job]:
        return [*self.queued(), *(job for job, _ in self.live())]

    def is_at_rest(self) -> bool:
        """No job waits or runs, so no run of a DAG does either."""
        return not self._queued and not self._live

    def charges(self) -> list[Charge]:
        return [Charge(job.id, a.number, job.queue, job.owner, a.charge) for job, a in self.live()]

    def ledger(self) -> Ledger:
        """What queues use, as the live rows say."""
        return Ledger.of(self.queues, self._books.charges())

    def use(self, queue: str) -> Resources:
        """What the queue and everything below it holds now."""
        below = [c.resources for c in self.charges() if any(q.name == queue for q in path_of(self.queues, c.queue))]
        return total(below)

    def room(self) -> Room:
        """A copy of what is free on the clusters that answer."""
        return self._books.room_that_answers(self.clusters)

    def node_use(self) -> dict[NodeKey, Resources]:
        used: dict[NodeKey, Resources] = {}
        for _, attempt in self.live():
            for key, amount in holds_of(attempt):
                used[key] = used.get(key, NOTHING) + amount
        return used

    def snapshot(self, also: Job | None = None) -> Snapshot:
        """What a cycle sees. ``also`` waits at the end of its line without being accepted (a dry run)."""
        waiting = tuple(self.queued()) if also is None else (*self.queued(), also)
        return Snapshot(
            queues=dict(self.queues),
            clusters=dict(self.clusters),
            waiting=waiting,
            ledger=self._books.ledger.copy(),
            room=self._books.room_that_answers(self.clusters),
            running=self._books.running(),
            phases={job_id: self.jobs[job_id].phase for job_id in self._followers if job_id in self.jobs},
            epoch=self.epoch,
            predictions=self._predictions(also),
            accounts=dict(self.accounts.rows),
            shapes=dict(self._shapes.numbers),
            rules=self.rules,
        )

    def _predictions(self, also: Job | None) -> dict[str, Prediction]:
        tell = self.history.tell
        found = {job_id: guess.prediction or tell(guess) for job_id, guess in self._guesses.items()}
        if also is not None:
            found[also.id] = self.history.predict(also)
        return found

    def has_decisions(self) -> bool:
        """Whether a cycle could decide anything: somebody waits, or a running gang lacks pods that it asked for."""
        return bool(self._queued) or self._books.wants_pods()

    def is_settled(self, now: float) -> bool:
        """Whether a cycle would find what the last one found: nothing changed since, and none of its timers has run out."""
        return self._settled_version == self.version and (self.settled_until is None or now < self.settled_until)

    def settle(self, waits: Iterable[Wait], until: float | None, has_changed: bool) -> None:
        """Note the outcome of a cycle. One that changed something is followed by another."""
        self.waits = {wait.job_id: wait for wait in waits if wait.job_id in self._queued}
        self.settled_until = until
        self._settled_version = -1 if has_changed else self.version

    # --- changes ---------------------------------------------------------------------------------------------------

    def take_changes(self) -> Changes:
        changes = Changes(
            tuple(self.jobs[job_id] for job_id in self._changed_jobs if job_id in self.jobs),
            tuple(self.attempts[key] for key in self._changed_attempts if key in self.attempts),
            tuple(self.queues.values()) if self._queues_changed else None,
            tuple(self._deleted),
            tuple(self.runs[run_id] for run_id in self._changed_runs),
            tuple(self.dags[name] for name in self._changed_dags),
            tuple(self.profiles[name] for name in self._changed_profiles if name in self.profiles),
            tuple(name for name in self._changed_profiles if name not in self.profiles),
            *self.accounts.take_changes(),
            *self.history.take_changes(),
        )
        self._changed_profiles.clear()
        self._changed_runs.clear()
        self._changed_dags.clear()
        self._changed_jobs.clear()
        self._changed_attempts.clear()
        self._queues_changed = False
        self._deleted.clear()
        self._drop_old_ended()
        return changes

    def adopt_run(self, run: Run) -> None:
        """Take an ended run back into memory, so that an event about it is heard."""
        if run.id not in self.runs:
            self._keep_run(run)

    def adopt(self, job: Job, attempts: Iterable[Attempt]) -> None:
        """Take an ended job back into memory, so that an event about it is heard."""
        if job.id not in self.jobs:
            self.jobs[job.id] = job
            self._ended[job.id] = None
            self.attempts.update({(attempt.job_id, attempt.number): attempt for attempt in attempts})

    def _drop_old_ended(self) -> None:
        over = [run_id for run_id, run in self.runs.items() if run.phase is not RunPhase.RUNNING][:-ENDED_RUNS_KEPT]
        for run_id in over:
            del self.runs[run_id]
        if len(self._ended) <= ENDED_JOBS_KEPT + ENDED_JOBS_SLACK:
            return
        # Of what runs too: it may be queued again.
        needed = {job_id for job in self.unended() for job_id in job.after}
        for job_id in [j for j in self._ended if j not in needed][: len(self._ended) - ENDED_JOBS_KEPT]:
            self._forget_job(job_id)

    def _forget_job(self, job_id: str) -> None:
        job = self.jobs.pop(job_id)
        self._ended.pop(job_id, None)
        for number in range(1, job.attempts + 1):
            self.attempts.pop((job_id, number), None)

    def _put_job(self, job: Job) -> Job:
        self.jobs[job.id] = job
        self._changed_jobs[job.id] = None
        self.version += 1
        if job.phase is JobPhase.QUEUED:
            self._queue_up(job)
        elif job.id in self._queued:
            self._leave_queue(job)
        self._books.touch(job)
        if job.phase.is_terminal:
            self._ended[job.id] = None
        return job

    def _queue_up(self, job: Job) -> None:
        self._queued[job.id] = None
        self._shapes.add(job)
        self._guesses[job.id] = self.history.guess(job)
        for waited_for in job.after:
            self._followers.setdefault(waited_for, {})[job.id] = None

    def _leave_queue(self, job: Job) -> None:
        del self._queued[job.id]
        self.waits.pop(job.id, None)
        self._shapes.remove(job.id)
        del self._guesses[job.id]
        self.accounts.leave(job)
        for waited_for in job.after:
            followers = self._followers.get(waited_for, {})
            followers.pop(job.id, None)
            if not followers:
                self._followers.pop(waited_for, None)

    def _put_attempt(self, attempt: Attempt) -> Attempt:
        key = (attempt.job_id, attempt.number)
        self.attempts[key] = attempt
        self._changed_attempts[key] = None
        self.version += 1
        if attempt.phase.is_live:
            self._live[attempt.job_id] = key
            self._books.put(self.jobs[attempt.job_id], attempt, self.history)
        elif self._live.get(attempt.job_id) == key:
            del self._live[attempt.job_id]
            self._books.drop(attempt.job_id)
        return attempt

    def _begin_wait(self, job: Job, at: float) -> None:
        """From now on the gang waits, and what those submitted after it use counts for it."""
        self.accounts.begin(job, at, self._in_use(at), self.queues)

    def _in_use(self, at: float) -> Iterator[Use]:
        """What runs, looked at only when it is asked for: the accounts of a new gang do not need it."""
        for runner in self._books.running():
            yield use_of(runner, at)

    def _live_one(self, job_id: str, number: int) -> tuple[Job, Attempt] | None:
        """The job and its live attempt of that number; None when the event is late."""
        attempt = self.live_attempt(job_id)
        return (self.jobs[job_id], attempt) if attempt is not None and attempt.number == number else None

    # --- events ----------------------------------------------------------------------------------------------------

    @singledispatchmethod
    def handle(self, event: ev.Event, at: float) -> list[Instruction]:
        raise Bug(f"no rule for the event {event!r}")

    @handle.register
    def _(self, event: ev.QueuesConfigured, at: float) -> list[Instruction]:
        self.queues = check_tree(event.queues)
        self._queues_changed = True
        self._books.configure(self.queues)
        self.version += 1
        return []

    @handle.register
    def _(self, event: ev.ClusterObserved, at: float) -> list[Instruction]:
        known = self.clusters.get(event.cluster.name)
        since = known.unreachable_since if known else None
        self.clusters[event.cluster.name] = replace(event.cluster, unreachable_since=since)
        self.version += 1
        return []

    @handle.register
    def _(self, event: ev.ClusterLost, at: float) -> list[Instruction]:
        cluster = self.clusters.get(event.cluster)
        if cluster is not None and cluster.unreachable_since is None:
            self.clusters[event.cluster] = replace(cluster, unreachable_since=at)
            self.version += 1
        return []

    @handle.register
    def _(self, event: ev.ClusterBack, at: float) -> list[Instruction]:
        cluster = self.clusters.get(event.cluster)
        if cluster is not None:
            self.clusters[event.cluster] = replace(cluster, unreachable_since=None)
            self.version += 1
        return []

    @handle.register
    def _(self, event: ev.JobSubmitted, at: float) -> list[Instruction]:
        if event.job.id in self.jobs:
            return []
        self._accept(event.job, at)
        return []

    def _accept(self, job: Job, at: float) -> None:
        self._put_job(job)
        self._begin_wait(job, at)
        for waited_for in job.after:
            self._end_if_hopeless(job.id, self.jobs.get(waited_for), waited_for, at)

    @handle.register
    def _(self, event: ev.JobCancelRequested, at: float) -> list[Instruction]:
        job = self.jobs.get(event.job_id)
        if job is None or job.phase.is_terminal or job.cancel_requested:
            return []
        job = replace(job, cancel_requested=True)
        if job.phase is JobPhase.QUEUED:
            self._end_job(job, JobPhase.CANCELLED, at, "cancelled before it started", None)
            return []
        self._put_job(job)
        attempt = self.live_attempt(job.id)
        return self._stop(job, attempt, StopReason.CANCELLED, at, f"cancelled by {event.by}") if attempt else []

    @handle.register
    def _(self, event: ev.JobDeleted, at: float) -> list[Instruction]:
        job = self.jobs.get(event.job_id)
        if job is None or not job.phase.is_terminal:
            return []
        self._forget_job(event.job_id)
        self._deleted.append(event.job_id)
        return [DropJob(event.job_id, job.attempts)]

    @handle.register
    def _(self, event: ev.GangAdmitted, at: float) -> list[Instruction]:
        job = self.jobs.get(event.job_id)
        cluster = self.clusters.get(event.cluster)
        if job is None or cluster is None or not self._may_still_start(job, cluster, event):
            return []
        by_role = {pod_set.role: pod_cost(job, pod_set, cluster) for pod_set in job.gang.pod_sets}
        pods = tuple(
            Pod(
                name=pod_name(job.id, event.attempt, place.role, place.rank),
                role=place.role,
                rank=place.rank,
                cluster=cluster.name,
                node=place.node,
                resources=cluster.master_cost if place.role == MASTER else by_role[place.role],
            )
            for place in event.placements
        )
        charge = charge_of(job, cluster, resizing.counts_of(event.placements))
        attempt = Attempt(
            job_id=job.id,
            number=event.attempt,
            phase=AttemptPhase.ADMITTED,
            cluster=cluster.name,
            pods=pods,
            charge=charge,
            admitted_at=at,
            epoch=event.epoch,
            is_borrowed=self._books.ledger.borrows(job.queue, charge) is not None,
        )
        self._put_job(replace(lifecycle.move_job(job, JobPhase.ACTIVE), attempts=event.attempt, reason=""))
        self._put_attempt(lifecycle.move_attempt(attempt, AttemptPhase.LAUNCHING))
        return [LaunchGang(job.id, event.attempt)]

    def _may_still_start(self, job: Job, cluster: Cluster, event: ev.GangAdmitted) -> bool:
        """A decision is checked again when it is applied, so that a stale one is dropped."""
        is_next = job.phase is JobPhase.QUEUED and event.attempt == job.attempts + 1 and not job.cancel_requested
        if not is_next or event.epoch != self.epoch or cluster.unreachable_since is not None:
            return False
        counts = resizing.counts_of(event.placements)
        if not resizing.is_whole(job, event.placements) or cluster not in allowed_clusters(job, self.clusters, self._path(job)):
            return False
        charge = charge_of(job, cluster, counts)
        if self._books.ledger.shortage(job.queue, charge, len(event.placements), job.is_preemptible) is not None:
            return False
        room = self._books.room(self.clusters).copy_of(cluster.name)
        by_role = {pod_set.role: pod_cost(job, pod_set, cluster) for pod_set in job.gang.pod_sets}
        by_role[MASTER] = cluster.master_cost
        for place in event.placements:
            key, amount = (cluster.name, place.node), by_role[place.role]
            if not room.fits(key, amount):
                return False
            room.take(key, amount)
        return True

    def _path(self, job: Job) -> tuple[Queue, ...]:
        return self._books.ledger.path(job.queue)

    @handle.register
    def _(self, event: ev.GangPreempted, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None or found[1].phase is AttemptPhase.STOPPING:
            return []
        return self._stop(*found, StopReason.PREEMPTED, at, event.reason)

    @handle.register
    def _(self, event: ev.GangGrown, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None or event.epoch != self.epoch or found[1].phase is not AttemptPhase.RUNNING:
            return []
        job, attempt = found
        cluster = self.clusters.get(attempt.cluster)
        if cluster is None or cluster.unreachable_since is not None or at < attempt.grows_at:
            return []
        grown = resizing.grown(job, attempt, cluster, event.placements, pod_name, at)
        more = grown.charge - attempt.charge
        room = self._books.room(self.clusters).copy_of(cluster.name)
        for pod in grown.pods[len(attempt.pods) :]:
            if not room.fits((pod.cluster, pod.node), pod.resources):
                return []
            room.take((pod.cluster, pod.node), pod.resources)
        count = len(grown.pods) - len(attempt.pods)
        ledger = self._books.ledger
        if not count or ledger.shortage(job.queue, more, count, job.is_preemptible, jobs=0) is not None:
            return []
        is_borrowed = attempt.is_borrowed or ledger.borrows(job.queue, more) is not None
        self._put_attempt(replace(grown, is_borrowed=is_borrowed))
        return [LaunchGang(job.id, attempt.number)]

    @handle.register
    def _(self, event: ev.GangShrunk, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None or found[1].phase is not AttemptPhase.RUNNING:
            return []
        job, attempt = found
        shrunk, names = resizing.shrunk(job, attempt, event.pods, event.reason)
        if not names:
            return []
        self._put_attempt(shrunk)
        return [StopPods(job.id, attempt.number, names, job.work.grace_s)]

    @handle.register
    def _(self, event: ev.GrowthFailed, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None or found[1].phase is not AttemptPhase.RUNNING:
            return []
        job, attempt = found
        fewer, names = resizing.unstarted(attempt, event.pods, event.reason)
        if not names:
            return []
        self._put_attempt(self._backed_off(fewer, at))
        if event.node and event.node not in job.avoid_nodes:
            job = self._put_job(replace(job, avoid_nodes=(*job.avoid_nodes, event.node)))
        return [StopPods(job.id, attempt.number, names, job.work.grace_s)]

    @staticmethod
    def _backed_off(attempt: Attempt, at: float) -> Attempt:
        """Pods that it was given did not start: the next ones come later each time, until one starts."""
        tries = attempt.failed_growths + 1
        return replace(attempt, failed_growths=tries, grows_at=at + lifecycle.back_off_s(tries))

    @handle.register
    def _(self, event: ev.NotebookActive, at: float) -> list[Instruction]:
        if self._live_one(event.job_id, event.attempt) is not None:
            self._books.active_at[event.job_id] = at
            self._books.touch(self.jobs[event.job_id])
        return []

    @handle.register
    def _(self, event: ev.PodSeen, at: float) -> list[Instruction]:
        pod = self._pod(event.job_id, event.attempt, event.pod)
        if pod is not None and pod.uid is None:
            self._put_pod(event.job_id, event.attempt, replace(pod, uid=event.uid))
        return []

    @handle.register
    def _(self, event: ev.PodReady, at: float) -> list[Instruction]:
        pod = self._pod(event.job_id, event.attempt, event.pod)
        if pod is not None and pod.phase is PodPhase.PENDING:
            self._put_pod(event.job_id, event.attempt, replace(pod, phase=PodPhase.READY))
        return []

    @handle.register
    def _(self, event: ev.PodStarted, at: float) -> list[Instruction]:
        pod = self._pod(event.job_id, event.attempt, event.pod)
        if pod is not None and pod.phase in (PodPhase.PENDING, PodPhase.READY):
            self._put_pod(event.job_id, event.attempt, replace(pod, phase=PodPhase.RUNNING, started_at=at))
            if pod.joined_at is not None:
                self._put_attempt(replace(self.attempts[event.job_id, event.attempt], failed_growths=0))
            self._start_when_all_run(event.job_id, event.attempt, at)
        return []

    @handle.register
    def _(self, event: ev.PodOffers, at: float) -> list[Instruction]:
        pod = self._pod(event.job_id, event.attempt, event.pod)
        if pod is not None and pod.phase is not PodPhase.ENDED and dict(pod.endpoints) != dict(event.endpoints):
            self._put_pod(event.job_id, event.attempt, replace(pod, endpoints=dict(event.endpoints)))
        return []

    @handle.register
    def _(self, event: ev.PodEnded, at: float) -> list[Instruction]:
        pod = self._pod(event.job_id, event.attempt, event.pod)
        if pod is None or pod.phase is PodPhase.ENDED:
            return []
        ended = replace(
            pod,
            phase=PodPhase.ENDED,
            exit_code=event.exit_code,
            reason=event.reason,
            ended_at=at,
            outputs=dict(event.outputs),
        )
        attempt = self.attempts[event.job_id, event.attempt]
        if resizing.is_on_its_way(pod) and attempt.phase is AttemptPhase.RUNNING and has_not_run(ended):
            # Nothing of the job was lost with it: the gang goes on without.
            ended = replace(ended, is_given_back=True, given_back_why=f"it did not start ({event.reason or 'no trace of it'})")
            self._put_attempt(self._backed_off(attempt, at))
        self._put_pod(event.job_id, event.attempt, ended)
        if ended.is_given_back:
            attempt = self._put_attempt(resizing.without(self.attempts[event.job_id, event.attempt], pod.name))
            if attempt.phase is AttemptPhase.STOPPING:
                return self._finish_when_all_ended(self.jobs[event.job_id], attempt, at)
            return self._stop_when_done(event.job_id, event.attempt, at)
        return self._after_end(event.job_id, event.attempt, ended, at)

    @handle.register
    def _(self, event: ev.HeartbeatMissed, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None or found[1].phase is AttemptPhase.STOPPING:
            return []
        why = f"no sign of life from pod {event.pod}"
        pod = self._pod(event.job_id, event.attempt, event.pod)
        if pod is not None and pod.is_given_back:
            return []  # Its stop is told again until the cluster shows that it is gone.
        if pod is not None and resizing.is_on_its_way(pod):
            return self.handle(ev.GrowthFailed(event.job_id, event.attempt, (event.pod,), why), at)
        return self._stop(*found, StopReason.MEMBER_LOST, at, why)

    @handle.register
    def _(self, event: ev.LaunchFailed, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None:
            return []
        job, attempt = found
        most = lifecycle.MOST_FAILED_LAUNCHES - 1 if event.permanent else job.failed_launches
        avoid = (*job.avoid_nodes, event.node) if event.node and event.node not in job.avoid_nodes else job.avoid_nodes
        job = self._put_job(replace(job, failed_launches=most, avoid_nodes=avoid))
        return self._stop(job, attempt, StopReason.LAUNCH_FAILED, at, event.reason)

    @handle.register
    def _(self, event: ev.BarrierTimedOut, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None or found[1].phase is not AttemptPhase.LAUNCHING:
            return []
        late = [pod.name for pod in found[1].members if pod.phase is PodPhase.PENDING]
        after = show_duration(max(at - found[1].admitted_at, 1))
        return self._stop(
            *found,
            StopReason.BARRIER_TIMEOUT,
            at,
            f"not all pods were ready after {after}: {', '.join(late[:5]) or 'none started'}",
        )

    @handle.register
    def _(self, event: ev.RunTimedOut, at: float) -> list[Instruction]:
        found = self._live_one(event.job_id, event.attempt)
        if found is None or found[1].phase is not AttemptPhase.RUNNING or found[0].timeout_s is None:
            return []
        limit = show_duration(found[0].timeout_s)
        return self._stop(*found, StopReason.TIMEOUT, at, f"ran past its limit of {limit}; raise --timeout or do less")

    # --- notebooks -------------------------------------------------------------------------------------------------

    @handle.register
    def _(self, event: ev.NotebookExpired, at: float) -> list[Instruction]:
        job, attempt = self.jobs.get(event.job_id), self.live_attempt(event.job_id)
        if job is None or job.phase.is_terminal or not notebook.may_expire(attempt):
            return []
        reason = "nobody waited for it any more"
        if attempt is None:
            self._end_job(job, JobPhase.CANCELLED, at, reason, None)
            return []
        told = self._stop(self._put_job(replace(job, cancel_requested=True)), attempt, StopReason.CANCELLED, at, reason)
        for pod in attempt.pods:
            told += self.handle(ev.PodEnded(job.id, attempt.number, pod.name, None, "NeverStarted"), at)
        return told

    @handle.register
    def _(self, event: ev.ProfileApplied, at: float) -> list[Instruction]:
        self.profiles[event.profile.name] = event.profile
        self._changed_profiles[event.profile.name] = None
        return []

    @handle.register
    def _(self, event: ev.ProfileDeleted, at: float) -> list[Instruction]:
        if self.profiles.pop(event.name, None) is not None:
            self._changed_profiles[event.name] = None
        return []

    # --- graphs of jobs --------------------------------------------------------------------------------------------

    @handle.register
    def _(self, event: ev.DagApplied, at: float) -> list[Instruction]:
        known = self.dags.get(event.dag.name)
        if known is None or event.dag.version == known.version + 1:
            self.dags[event.dag.name] = event.dag
            self._changed_dags[event.dag.name] = None
        return []

    @handle.register
    def _(self, event: ev.RunSubmitted, at: float) -> list[Instruction]:
        if event.run.id not in self.runs:
            self._advance_run(event.run, at)
        return []

    @handle.register
    def _(self, event: ev.RunCancelRequested, at: float) -> list[Instruction]:
        run = self.runs.get(event.run_id)
        if run is None or run.phase is not RunPhase.RUNNING or run.cancel_requested:
            return []
        self._advance_run(replace(run, cancel_requested=True), at)
        submitted = [node.job.id for node in run.nodes if node.phase is NodePhase.SUBMITTED]
        return [told for job_id in submitted for told in self.handle(ev.JobCancelRequested(job_id, event.by), at)]

    @handle.register
    def _(self, event: ev.RunRetried, at: float) -> list[Instruction]:
        run = self.runs.get(event.run_id)
        if run is None or run.phase is RunPhase.RUNNING:
            return []
        nodes = tuple(
            replace(node, job=event.jobs[node.name], phase=NodePhase.PENDING, reason="") if node.name in event.jobs else node
            for node in run.nodes
        )
        self._advance_run(replace(run, nodes=nodes, phase=RunPhase.RUNNING, cancel_requested=False, ended_at=None), at)
        return []

    def _keep_run(self, run: Run) -> None:
        self.runs[run.id] = run
        for node in run.nodes:
            if run.phase is RunPhase.RUNNING:
                self._node_of[node.job.id] = (run.id, node.name)
            else:
                self._node_of.pop(node.job.id, None)

    def _advance_run(self, run: Run, at: float) -> None:
        """Submit the nodes that became ready, in the same turn as the ends that made them so."""
        run, ready = dag.advance(run)
        if run.phase is not RunPhase.RUNNING:
            run = replace(run, ended_at=at)
        self._keep_run(run)
        self._changed_runs[run.id] = None
        for node in ready:
            self._accept(replace(node.job, submitted_at=at), at)

    def _node_ended(self, job: Job, at: float) -> None:
        found = self._node_of.get(job.id)
        if found is None:
            return
        run = self.runs[found[0]]
        nodes = tuple(
            replace(node, phase=dag.node_phase(job.phase), reason=job.reason) if node.name == found[1] else node
            for node in run.nodes
        )
        self._advance_run(replace(run, nodes=nodes), at)

    # --- attempts and jobs on their way to the end --------------------------------------------------------------------

    def _pod(self, job_id: str, number: int, name: str) -> Pod | None:
        found = self._live_one(job_id, number)
        return next((pod for pod in found[1].pods if pod.name == name), None) if found else None

    def _put_pod(self, job_id: str, number: int, pod: Pod) -> None:
        attempt = self.attempts[job_id, number]
        pods = tuple(pod if other.name == pod.name else other for other in attempt.pods)
        self._put_attempt(replace(attempt, pods=pods))

    def _start_when_all_run(self, job_id: str, number: int, at: float) -> None:
        job, attempt = self.jobs[job_id], self.attempts[job_id, number]
        has_all_started = all(pod.phase in (PodPhase.RUNNING, PodPhase.ENDED) for pod in attempt.members)
        if attempt.phase is AttemptPhase.LAUNCHING and has_all_started:
            self._put_attempt(replace(lifecycle.move_attempt(attempt, AttemptPhase.RUNNING), started_at=at))
            self._put_job(replace(job, failed_launches=0, started_at=job.started_at if job.started_at is not None else at))

    def _stop(self, job: Job, attempt: Attempt, why: StopReason, at: float, reason: str) -> list[Instruction]:
        """Tell all pods to end. The first reason stands, except that a cancel is always heard."""
        if attempt.phase is AttemptPhase.STOPPING:
            if why is StopReason.CANCELLED and attempt.stop_reason is not StopReason.REQUIRED_DONE:
                self._put_attempt(replace(attempt, stop_reason=why, reason=reason))
            return [StopGang(job.id, attempt.number, job.work.grace_s, why)]
        stopping = replace(lifecycle.move_attempt(attempt, AttemptPhase.STOPPING), stopping_at=at, stop_reason=why, reason=reason)
        self._put_attempt(stopping)
        return [
            StopGang(job.id, attempt.number, job.work.grace_s, why),
            *self._finish_when_all_ended(job, stopping, at),
        ]

    def _after_end(self, job_id: str, number: int, ended: Pod, at: float) -> list[Instruction]:
        job, attempt = self.jobs[job_id], self.attempts[job_id, number]
        if attempt.phase is AttemptPhase.STOPPING:
            return self._finish_when_all_ended(job, attempt, at)
        if ended.role == MASTER:
            if ended.exit_code == 0:
                return []  # It ends well only after its members did; their own records are on the way.
            return self._stop(
                job,
                attempt,
                StopReason.MEMBER_LOST,
                at,
                f"its master ended first ({ended.reason or 'no reason given'})",
            )
        if ended.exit_code is None:
            return self._stop(job, attempt, StopReason.MEMBER_LOST, at, f"pod {ended.name} was lost ({ended.reason or 'no trace'})")
        if ended.reason == LEASE_LOST:
            why = f"pod {ended.name} stopped itself, cut off from its master"
            return self._stop(job, attempt, StopReason.MEMBER_LOST, at, why)
        if ended.exit_code != 0:
            return self._stop(job, attempt, StopReason.MEMBER_FAILED, at, describe_end(job.gang, ended))
        self._start_when_all_run(job_id, number, at)
        return self._stop_when_done(job_id, number, at)

    def _stop_when_done(self, job_id: str, number: int, at: float) -> list[Instruction]:
        """The attempt succeeds when its required members have done their work; those given back are not waited for."""
        job, attempt = self.jobs[job_id], self.attempts[job_id, number]
        required = [pod for pod in attempt.members if _ends(job.gang, pod) is Ends.REQUIRED and not pod.is_given_back]
        if all(pod.phase is PodPhase.ENDED for pod in required):
            if all(pod.phase is PodPhase.ENDED for pod in attempt.pods):
                return self._finish(job, attempt, at, AttemptPhase.SUCCEEDED)
            return self._stop(job, attempt, StopReason.REQUIRED_DONE, at, "")
        return []

    def _finish_when_all_ended(self, job: Job, attempt: Attempt, at: float) -> list[Instruction]:
        if any(pod.phase is not PodPhase.ENDED for pod in attempt.pods):
            return []
        job = self.jobs[job.id]
        phase = {
            None: AttemptPhase.SUCCEEDED,
            StopReason.REQUIRED_DONE: AttemptPhase.SUCCEEDED,
            StopReason.CANCELLED: AttemptPhase.CANCELLED,
            StopReason.PREEMPTED: AttemptPhase.PREEMPTED,
            StopReason.MEMBER_LOST: AttemptPhase.LOST,
        }.get(attempt.stop_reason, AttemptPhase.FAILED)
        return self._finish(job, attempt, at, phase)

    def _finish(self, job: Job, attempt: Attempt, at: float, phase: AttemptPhase) -> list[Instruction]:
        """Commit the attempt's end, and the job's end or its way back to the queue."""
        exit_code = _exit_code(job.gang, attempt)
        if attempt.phase is AttemptPhase.LAUNCHING and phase is AttemptPhase.SUCCEEDED:
            attempt = lifecycle.move_attempt(attempt, AttemptPhase.RUNNING)
        if attempt.cluster in self.clusters:
            self.accounts.ended(use_of(self._books.see(job.id), at), self.queues)
        attempt = replace(lifecycle.move_attempt(attempt, phase), ended_at=at, exit_code=exit_code)
        self._put_attempt(attempt)
        if attempt.started_at is not None and attempt.stop_reason in ENDED_BY_ITSELF:
            self.history.learn(job, (attempt.stopping_at or at) - attempt.started_at)
        done: list[Instruction] = [ForgetPods(job.id, attempt.number)]
        if phase is AttemptPhase.SUCCEEDED:
            self._end_job(job, JobPhase.SUCCEEDED, at, "", 0)
        elif job.cancel_requested or phase is AttemptPhase.CANCELLED:
            self._end_job(job, JobPhase.CANCELLED, at, attempt.reason or "cancelled", exit_code)
        elif phase is AttemptPhase.FAILED:
            self._fail_or_requeue(job, attempt, at)
        else:
            self._requeue(job, at, attempt.reason, max(attempt.number - job.failures, 1))
        return done

    def _fail_or_requeue(self, job: Job, attempt: Attempt, at: float) -> None:
        if attempt.stop_reason in (StopReason.LAUNCH_FAILED, StopReason.BARRIER_TIMEOUT):
            job = replace(job, failed_launches=job.failed_launches + 1)
            if job.failed_launches >= lifecycle.MOST_FAILED_LAUNCHES:
                self._end_job(job, JobPhase.FAILED, at, f"could not be launched: {attempt.reason}", attempt.exit_code)
            else:
                self._requeue(job, at, attempt.reason, job.failed_launches)
        elif attempt.stop_reason is not StopReason.TIMEOUT and job.failures < job.retries:
            self._requeue(replace(job, failures=job.failures + 1), at, attempt.reason, job.failures + 1)
        else:
            self._end_job(job, JobPhase.FAILED, at, attempt.reason, attempt.exit_code)

    def _requeue(self, job: Job, at: float, reason: str, tries: int) -> None:
        if job.kind is JobKind.NOTEBOOK:
            # Nobody but its user starts a server again.
            self._end_job(job, JobPhase.CANCELLED, at, reason, None)
            return
        queued = lifecycle.move_job(job, JobPhase.QUEUED)
        again = self._put_job(replace(queued, reason=reason, not_before=at + lifecycle.back_off_s(tries)))
        self._begin_wait(again, at)

    def _end_job(self, job: Job, phase: JobPhase, at: float, reason: str, exit_code: int | None) -> None:
        ended = replace(lifecycle.move_job(job, phase), ended_at=at, reason=reason, exit_code=exit_code)
        self._put_job(ended)
        self._node_ended(ended, at)
        for waiting_id in list(self._followers.get(job.id, ())):
            self._end_if_hopeless(waiting_id, ended, job.id, at)
            if waiting_id in self._queued:
                self._begin_wait(self.jobs[waiting_id], at)

    def _end_if_hopeless(self, job_id: str, waited_for: Job | None, waited_id: str, at: float) -> None:
        """A job whose predecessor ended without success, or is gone, ends too: it could never start."""
        job = self.jobs[job_id]
        if job.phase.is_terminal:
            return
        if waited_for is None:
            self._end_job(job, JobPhase.CANCELLED, at, f"job {waited_id}, which it comes after, does not exist", None)
        elif waited_for.phase in (JobPhase.FAILED, JobPhase.CANCELLED):
            how = waited_for.phase.lower()
            self._end_job(
                job,
                JobPhase.CANCELLED,
                at,
                f"job {waited_id}, which it comes after, {how if how == 'failed' else 'was ' + how}",
                None,
            )

    # --- checks ------------------------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Raises Bug when something that must always hold does not (I1 to I5, I10 of the list in docs)."""
        for job in self.jobs.values():
            live = [a for (job_id, _), a in self.attempts.items() if job_id == job.id and a.phase.is_live]
            if len(live) > 1 or (len(live) == 1) != (job.phase is JobPhase.ACTIVE):
                raise Bug(f"I2: job {job.id} is {job.phase} with {len(live)} live attempts")
            if (job.id in self._queued) != (job.phase is JobPhase.QUEUED):
                raise Bug(f"I1: job {job.id} is {job.phase} but the list of queued jobs says otherwise")
            if job.failures > job.retries:
                raise Bug(f"I10: job {job.id} failed {job.failures} times with {job.retries} retries")
        ledger = self.ledger()
        for name, queue in self.queues.items():
            if not ledger.use[name].within(queue.max) or ledger.use[name].is_negative():
                raise Bug(f"I4: queue {name} uses {ledger.use[name]}, its max is {queue.max}")
            booked = self._books.ledger
            if ledger.use[name] != self.use(name) or (ledger.use[name], ledger.pods[name]) != (booked.use[name], booked.pods[name]):
                raise Bug(f"I4: queue {name}: {booked.use[name]} in the ledger, {self.use(name)} in its rows")
        nodes: Mapping[NodeKey, Resources] = {(c.name, n.name): n.allocatable for c in self.clusters.values() for n in c.nodes}
        for key, used in self.node_use().items():
            if key in nodes and not used.fits(nodes[key]):
                raise Bug(f"I3: node {key} holds {used} of {nodes[key]}")
        for name, free in self._books.room(self.clusters).free.items():
            for row, node in enumerate(layout_of(self.clusters[name]).nodes):
                left = node.allocatable - self.node_use().get((name, node.name), NOTHING)
                if layout_of(self.clusters[name]).amounts(free[row]) != left:
                    raise Bug(f"I3: node {name}/{node.name} has {left} left by its rows, the books say otherwise")
        if set(self.accounts.rows) != set(self._queued):
            raise Bug("I27: the overtaking accounts are not those of the queued jobs")
        for _, attempt in self.live():
            if total(pod.resources for pod in attempt.pods) != attempt.charge:
                raise Bug(
                    f"I5: attempt {attempt.job_id}/{attempt.number} is charged {attempt.charge}, its pods hold something else"
                )


def pod_name(job_id: str, attempt: int, role: str, rank: int) -> str:
    """Fixed before the pod exists; unique over the service because job ids are."""
    return f"{job_id}-{attempt}-{role}" if role == MASTER else f"{job_id}-{attempt}-{role}-{rank}"


def has_not_run(pod: Pod) -> bool:
    """Whether an ended pod that was never seen to run did not come to user code; of one that is lost nobody knows better."""
    return pod.exit_code is None or pod.reason in NOT_STARTED


def _ends(gang: Gang, pod: Pod) -> Ends:
    return next(pod_set.ends for pod_set in gang.pod_sets if pod_set.role == pod.role)


def describe_end(gang: Gang, pod: Pod) -> str:
    """One sentence for a pod that did not end well."""
    who = "it" if gang.size == 1 else f"{pod.role} {pod.rank}"
    code = pod.exit_code or 0
    memory = f" ({show_amount(MEMORY, pod.resources[MEMORY])})" if pod.resources[MEMORY] else ""
    sentences = {
        "OOMKilled": f"{who} used more memory than it asked for{memory} and was killed; ask for more with --memory",
        "CommandNotFound": f"{who} could not start: the command does not exist in its environment",
        "InputMissing": f"{who} did not start: a declared input is missing",
        "OutputMissing": f"{who} ended without leaving a declared output",
        "WorkdirMissing": f"{who} did not start: its working directory does not exist",
    }
    if pod.reason in sentences:
        return sentences[pod.reason]
    if code > 128:
        return f"{who} was killed by signal {code - 128}"
    return f"{who} exited with code {code}"


def _exit_code(gang: Gang, attempt: Attempt) -> int | None:
    """Of the first required member that failed, else 0 when all are known, else None."""
    required: Sequence[Pod] = [pod for pod in attempt.members if _ends(gang, pod) is Ends.REQUIRED]
    ended = sorted(required, key=lambda pod: (pod.ended_at or 0.0, pod.rank))
    failed = next((pod.exit_code for pod in ended if pod.exit_code and pod.reason not in ("Stopped", LEASE_LOST)), None)
    if failed is not None:
        return failed
    codes = [pod.exit_code for pod in required]
    return next((code for code in codes if code), 0) if None not in codes else None
