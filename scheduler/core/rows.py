"""The rows in memory: how they are read and put, and what is kept in step with them: who waits, what is in use, what changed.

The rows live in the database; these are their image. Each put notes which row it changed, and `take_changes` hands those to
whoever commits. Which event changes what is said in `core.handlers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Final, Self

from tuttilab.scheduler.core.accounts import Accounts, Use
from tuttilab.scheduler.core.books import Books
from tuttilab.scheduler.core.desk import use_of
from tuttilab.scheduler.core.estimates import Guess, History
from tuttilab.scheduler.core.queues import check_tree, path_of
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rules import THE_SERVICES, Rules
from tuttilab.scheduler.core.shapes import Shapes
from tuttilab.scheduler.core.snapshot import NodeKey, Room, Snapshot, holds_of
from tuttilab.scheduler.model import (
    Attempt,
    Charge,
    Cluster,
    Dag,
    Job,
    JobKind,
    JobPhase,
    Overtaking,
    Pod,
    Prediction,
    Profile,
    Queue,
    Run,
    RunHistory,
    RunPhase,
    Wait,
)
from tuttilab.scheduler.resources import NOTHING, Resources, total

ENDED_JOBS_KEPT: Final = 2000
"""Ended jobs kept in memory for quick answers; the database has them all."""

ENDED_JOBS_SLACK: Final = 200
"""So many more before they are thinned out: looking which are still needed costs a walk over all live jobs."""

ENDED_RUNS_KEPT: Final = 200

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
class Rows:
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
    rules: Rules = THE_SERVICES
    accounts: Accounts = field(default_factory=Accounts)
    history: History = field(default_factory=History)
    version: int = 0
    """Rises with every change that a decision could depend on."""
    settled_until: float | None = None
    """When the last decision wants to be looked at again although nothing changed."""
    _settled_version: int = -1
    books: Books = field(default_factory=Books)
    """What the live attempts hold of quota and of room."""
    _shapes: Shapes = field(default_factory=Shapes)
    _guesses: dict[str, Guess] = field(default_factory=dict)
    """Of the queued jobs."""
    _followers: dict[str, dict[str, None]] = field(default_factory=dict)
    """Queued jobs by the job that they come after."""
    _node_of: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Job id to run id and node name, for the nodes of runs that are not over."""
    _queued: dict[str, None] = field(default_factory=dict)
    _live: dict[str, AttemptKey] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)
    _changed_jobs: dict[str, None] = field(default_factory=dict)
    _changed_attempts: dict[AttemptKey, None] = field(default_factory=dict)
    _changed_runs: dict[str, None] = field(default_factory=dict)
    _changed_dags: dict[str, None] = field(default_factory=dict)
    _changed_profiles: dict[str, None] = field(default_factory=dict)
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
        *,
        at: float | None = None,
    ) -> Self:
        """``at``: when a service takes over. What servers reported before is not known, so each may have a running cell then."""
        rows = cls(epoch=epoch)
        rows.queues = check_tree(tuple(queues))
        rows.history = History.of(history)
        for job in jobs:
            rows.jobs[job.id] = job
            if job.phase is JobPhase.QUEUED:
                rows._queue_up(job)
            elif job.phase.is_terminal:
                rows._ended[job.id] = None
        newest = max((job.order for job in rows.jobs.values()), default=-1)
        rows.accounts = Accounts.of(accounts, rows.queued(), newest)
        for attempt in attempts:
            key = (attempt.job_id, attempt.number)
            rows.attempts[key] = attempt
            if attempt.phase.is_live:
                rows._live[attempt.job_id] = key
                rows.books.put(rows.jobs[attempt.job_id], attempt)
        for run in runs:
            rows._keep_run(run)
        rows.dags = {one.name: one for one in dags}
        rows.profiles = {one.name: one for one in profiles}
        rows.books.configure(rows.queues)
        if at is not None:
            rows.books.active_at = {job.id: at for job, _ in rows.live() if job.kind is JobKind.NOTEBOOK}
        return rows

    # --- questions ---------------------------------------------------------------------------------------------------

    def live_attempt(self, job_id: str) -> Attempt | None:
        key = self._live.get(job_id)
        return self.attempts[key] if key else None

    def live(self) -> list[tuple[Job, Attempt]]:
        return [(self.jobs[job_id], self.attempts[key]) for job_id, key in self._live.items()]

    def live_one(self, job_id: str, number: int) -> tuple[Job, Attempt] | None:
        """The job and its live attempt of that number; None when the event is late."""
        attempt = self.live_attempt(job_id)
        return (self.jobs[job_id], attempt) if attempt is not None and attempt.number == number else None

    def has_running_cell(self, job: Job, at: float) -> bool:
        """Whether a notebook's server reported one so lately that it counts as running."""
        active_at = self.books.active_at.get(job.id)
        return active_at is not None and at - active_at < self.rules.idle_notebook_s

    def pod(self, job_id: str, number: int, name: str) -> Pod | None:
        """The pod of that live attempt; None when the event is late."""
        found = self.live_one(job_id, number)
        return next((pod for pod in found[1].pods if pod.name == name), None) if found else None

    @property
    def live_count(self) -> int:
        return len(self._live)

    def queued(self) -> list[Job]:
        return [self.jobs[job_id] for job_id in self._queued]

    def is_queued(self, job_id: str) -> bool:
        return job_id in self._queued

    def followers(self, job_id: str) -> list[str]:
        """The queued jobs that come after that one, in order of submission."""
        return sorted(self._followers.get(job_id, ()), key=lambda follower: self.jobs[follower].order)

    def node_of(self, job_id: str) -> tuple[str, str] | None:
        """Run id and node name of a job that is a node of a run that is not over."""
        return self._node_of.get(job_id)

    def unended(self) -> list[Job]:
        return [*self.queued(), *(job for job, _ in self.live())]

    def is_at_rest(self) -> bool:
        """No job waits or runs, so no run of a DAG does either."""
        return not self._queued and not self._live

    def charges(self) -> list[Charge]:
        return [Charge(job.id, a.number, job.queue, job.owner, a.charge) for job, a in self.live()]

    def ledger(self) -> Ledger:
        """What queues use, as the live rows say."""
        return Ledger.of(self.queues, self.books.charges())

    def use(self, queue: str) -> Resources:
        """What the queue and everything below it holds now."""
        below = [c.resources for c in self.charges() if any(q.name == queue for q in path_of(self.queues, c.queue))]
        return total(below)

    def room(self) -> Room:
        """A copy of what is free on the clusters that answer."""
        return self.books.room_that_answers(self.clusters)

    def node_use(self) -> dict[NodeKey, Resources]:
        used: dict[NodeKey, Resources] = {}
        for _, attempt in self.live():
            for key, amount in holds_of(attempt):
                used[key] = used.get(key, NOTHING) + amount
        return used

    def snapshot(self, also: Job | None = None) -> Snapshot:
        """What a cycle sees, in an order that no restart changes: by submission, clusters by name.

        ``also`` waits at the end of its line without being accepted (a dry run).
        """
        waiting = sorted(self.queued(), key=attrgetter("order"))
        clusters = dict(sorted(self.clusters.items()))
        return Snapshot(
            queues=dict(self.queues),
            clusters=clusters,
            waiting=tuple(waiting) if also is None else (*waiting, also),
            ledger=self.books.ledger.copy(),
            room=self.books.room_that_answers(clusters),
            running=self.books.running(),
            phases={job_id: self.jobs[job_id].phase for job_id in self._followers if job_id in self.jobs},
            epoch=self.epoch,
            predictions=self._predictions(also),
            accounts=dict(self.accounts.rows),
            shapes=dict(self._shapes.numbers),
            rules=self.rules,
            kept=self._shapes.kept,
        )

    def _predictions(self, also: Job | None) -> dict[str, Prediction]:
        tell = self.history.tell
        found = {job_id: guess.prediction or tell(guess) for job_id, guess in self._guesses.items()}
        if also is not None:
            found[also.id] = self.history.predict(also)
        return found

    def has_decisions(self) -> bool:
        """Whether a cycle could decide anything: somebody waits, or a running gang lacks pods that it asked for."""
        return bool(self._queued) or self.books.wants_pods()

    def is_settled(self, now: float) -> bool:
        """Whether a cycle would find what the last one found: nothing changed since, and none of its timers has run out."""
        return self._settled_version == self.version and (self.settled_until is None or now < self.settled_until)

    def settle(self, waits: Iterable[Wait], until: float | None, has_changed: bool) -> None:
        """Note the outcome of a cycle. One that changed something is followed by another."""
        self.waits = {wait.job_id: wait for wait in waits if wait.job_id in self._queued}
        self.settled_until = until
        self._settled_version = -1 if has_changed else self.version

    # --- puts --------------------------------------------------------------------------------------------------------

    def put_job(self, job: Job) -> Job:
        self.jobs[job.id] = job
        self._changed_jobs[job.id] = None
        self.version += 1
        if job.phase is JobPhase.QUEUED:
            self._queue_up(job)
        elif job.id in self._queued:
            self._leave_queue(job)
        self.books.touch(job)
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

    def put_attempt(self, attempt: Attempt) -> Attempt:
        key = (attempt.job_id, attempt.number)
        self.attempts[key] = attempt
        self._changed_attempts[key] = None
        self.version += 1
        if attempt.phase.is_live:
            self._live[attempt.job_id] = key
            self.books.put(self.jobs[attempt.job_id], attempt)
        elif self._live.get(attempt.job_id) == key:
            del self._live[attempt.job_id]
            self.books.drop(attempt.job_id)
        return attempt

    def put_pod(self, job_id: str, number: int, pod: Pod) -> None:
        attempt = self.attempts[job_id, number]
        pods = tuple(pod if other.name == pod.name else other for other in attempt.pods)
        self.put_attempt(replace(attempt, pods=pods))

    def put_queues(self, queues: dict[str, Queue]) -> None:
        self.queues = queues
        self._queues_changed = True
        self.books.configure(self.queues)
        self.version += 1

    def put_cluster(self, cluster: Cluster) -> None:
        self.clusters[cluster.name] = cluster
        self.version += 1

    def put_run(self, run: Run) -> None:
        self._keep_run(run)
        self._changed_runs[run.id] = None

    def _keep_run(self, run: Run) -> None:
        self.runs[run.id] = run
        for node in run.nodes:
            if run.phase is RunPhase.RUNNING:
                self._node_of[node.job.id] = (run.id, node.name)
            else:
                self._node_of.pop(node.job.id, None)

    def put_dag(self, dag: Dag) -> None:
        self.dags[dag.name] = dag
        self._changed_dags[dag.name] = None

    def put_profile(self, profile: Profile) -> None:
        self.profiles[profile.name] = profile
        self._changed_profiles[profile.name] = None

    def delete_profile(self, name: str) -> None:
        if self.profiles.pop(name, None) is not None:
            self._changed_profiles[name] = None

    def delete_job(self, job_id: str) -> None:
        self._forget_job(job_id)
        self._deleted.append(job_id)

    def begin_wait(self, job: Job, at: float) -> None:
        """From now on the gang waits, and what those submitted after it use counts for it."""
        self.accounts.begin(job, at, self._in_use(at), self.queues)

    def _in_use(self, at: float) -> Iterator[Use]:
        """What runs, looked at only when it is asked for: the accounts of a new gang do not need it."""
        for runner in self.books.running():
            yield use_of(runner, at)

    # --- what a commit takes -----------------------------------------------------------------------------------------

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

    def is_deleted(self, job_id: str) -> bool:
        """Whether it was deleted since the changes were taken last."""
        return job_id in self._deleted

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
