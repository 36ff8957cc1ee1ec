"""The rows in memory, with indexes and usage that every put keeps up to date.

The database has the rows; these are a copy of it. Each put records the key of the row that it changed, and `take_changes` returns
those rows to the commit. Which event changes which row is decided in `handlers/`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Final, Self

from tuttilab.scheduler.core.ordering.overtaking import Accounts, GangUsage
from tuttilab.scheduler.core.ordering.queues import check_tree, path_of
from tuttilab.scheduler.core.ordering.run_times import History, PredictionEntry
from tuttilab.scheduler.core.placement.room import NodeKey, Room
from tuttilab.scheduler.core.placement.shapes import Shapes
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.rows.changes import AttemptKey, ChangedKeys, Changes
from tuttilab.scheduler.core.rows.places import Places
from tuttilab.scheduler.core.rows.tuning import rules_in_force
from tuttilab.scheduler.core.rows.unfinished import Unfinished
from tuttilab.scheduler.core.rows.usage import Usage
from tuttilab.scheduler.core.rules import SERVICE_RULES, Rules
from tuttilab.scheduler.core.snapshot import Snapshot, allocations_of, usage_of
from tuttilab.scheduler.core.told.accuracy import NO_FACTORS, Accuracy
from tuttilab.scheduler.core.told.waits import Waits, WaitsByJob
from tuttilab.scheduler.domain.model import (
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
)
from tuttilab.scheduler.domain.resources import NOTHING, ONE_POD, PODS, Resources, total

ENDED_JOBS_KEPT: Final = 2000
"""Ended jobs kept in memory so that requests about them need no database; it has them all."""

ENDED_JOBS_SLACK: Final = 200
"""How many more there may be before the oldest are dropped: each time costs a walk over all unfinished jobs."""

MOST_PASSED: Final = 20
"""Attempts that were started past one waiting job, of which it is told."""

ENDED_RUNS_KEPT: Final = 200


@dataclass(slots=True)
class Rows:
    jobs: dict[str, Job] = field(default_factory=dict)
    attempts: dict[AttemptKey, Attempt] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    waits: WaitsByJob = field(default_factory=WaitsByJob)
    """Why each queued job waits, from the last cycle. Not a row: computed again after a restart."""
    runs: dict[str, Run] = field(default_factory=dict)
    dags: dict[str, Dag] = field(default_factory=dict)
    """The newest version of each named DAG."""
    profiles: dict[str, Profile] = field(default_factory=dict)
    epoch: int = 0
    rules: Rules = SERVICE_RULES
    accounts: Accounts = field(default_factory=Accounts)
    history: History = field(default_factory=History)
    version: int = 0
    """Grows with every change that a decision may depend on."""
    accuracy: Accuracy = field(default_factory=Accuracy)
    """How well starts were forecast. Not a row."""
    next_cycle_at: float | None = None
    """When the last cycle wants the next one to run even if nothing changes."""
    _decided_version: int = -1
    """`version` at the last cycle; -1 when that cycle changed something."""
    usage: Usage = field(default_factory=Usage)
    """What the live attempts hold of quota and of room."""
    unfinished: Unfinished = field(default_factory=Unfinished)
    places: Places = field(default_factory=Places)
    """Of the pods of live attempts."""
    passed: dict[str, deque[AttemptKey]] = field(default_factory=dict)
    """By waiting job with a hold: the newest attempts that were started past it, those that have ended since included."""
    _shapes: Shapes = field(default_factory=Shapes)
    _prediction_entries: dict[str, PredictionEntry] = field(default_factory=dict)
    """Of the queued jobs."""
    _dependents: dict[str, dict[str, None]] = field(default_factory=dict)
    """Queued jobs, by each job that they come after."""
    _run_node_of: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By job id: run id and node name, for nodes of running runs."""
    _queued: dict[str, None] = field(default_factory=dict)
    _live: dict[str, AttemptKey] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)
    _changed: ChangedKeys = field(default_factory=ChangedKeys)

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
        """``at``: when a new leader loads the rows; each notebook counts as active then, as reports to the former one are lost."""
        rows = cls(epoch=epoch)
        rows.queues = check_tree(tuple(queues))
        rows.history = History.of(history)
        for job in jobs:
            rows.jobs[job.id] = job
            rows.unfinished.put(job)
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
                rows.usage.put(rows.jobs[attempt.job_id], attempt)
            rows.note_passed(attempt)
        for run in runs:
            rows._keep_run(run)
        rows.dags = {one.name: one for one in dags}
        rows.profiles = {one.name: one for one in profiles}
        rows.usage.configure(rows.queues)
        if at is not None:
            rows.usage.active_at = {job.id: at for job, _ in rows.live() if job.kind is JobKind.NOTEBOOK}
        return rows

    # --- reads -------------------------------------------------------------------------------------------------------

    def live_attempt(self, job_id: str) -> Attempt | None:
        key = self._live.get(job_id)
        return self.attempts[key] if key else None

    def live(self) -> list[tuple[Job, Attempt]]:
        return [(self.jobs[job_id], self.attempts[key]) for job_id, key in self._live.items()]

    def find_live(self, job_id: str, number: int) -> tuple[Job, Attempt] | None:
        """The job and its live attempt; None when the attempt of that number is no longer live (the event is late)."""
        attempt = self.live_attempt(job_id)
        return (self.jobs[job_id], attempt) if attempt is not None and attempt.number == number else None

    def has_running_cell(self, job: Job, at: float) -> bool:
        """Whether a notebook's server reported a running cell within the last `Rules.idle_notebook_s` seconds."""
        active_at = self.usage.active_at.get(job.id)
        return active_at is not None and at - active_at < self.rules.idle_notebook_s

    def pod(self, job_id: str, number: int, name: str) -> Pod | None:
        """The pod of that live attempt; None when the attempt is no longer live (the event is late)."""
        attempt = self.live_attempt(job_id)
        if attempt is None or attempt.number != number:
            return None
        place = self.places.place(attempt, name)
        return None if place is None else attempt.pods[place]

    @property
    def live_count(self) -> int:
        return len(self._live)

    def queued(self) -> list[Job]:
        return [self.jobs[job_id] for job_id in self._queued]

    def is_queued(self, job_id: str) -> bool:
        return job_id in self._queued

    def dependents(self, job_id: str) -> list[str]:
        """The queued jobs that come after this one, in order of submission."""
        return sorted(self._dependents.get(job_id, ()), key=lambda dependent: self.jobs[dependent].order)

    def run_node_of(self, job_id: str) -> tuple[str, str] | None:
        """Run id and node name of a job that is a node of a running run."""
        return self._run_node_of.get(job_id)

    def unfinished_jobs(self) -> list[Job]:
        return [*self.queued(), *(job for job, _ in self.live())]

    def is_idle(self) -> bool:
        """Whether no job waits or runs, and so no run of a DAG."""
        return not self._queued and not self._live

    def charges(self) -> list[Charge]:
        return [Charge(job.id, a.number, job.queue, job.owner, a.charge) for job, a in self.live()]

    def ledger(self) -> Ledger:
        """What queues use, counted anew from the live attempts (`usage.ledger` is kept up to date)."""
        return Ledger.of(self.queues, self.usage.charges())

    def use(self, queue: str) -> Resources:
        """What the queue and all queues below it use now."""
        below = [c.resources for c in self.charges() if any(q.name == queue for q in path_of(self.queues, c.queue))]
        return total(below)

    def room(self) -> Room:
        """A copy of the free room of the clusters that answer."""
        return self.usage.reachable_room(self.clusters)

    def node_use(self) -> dict[NodeKey, Resources]:
        used: dict[NodeKey, Resources] = {}
        limited = {(c.name, node.name) for c in self.clusters.values() for node in c.nodes if node.allocatable[PODS]}
        for _, attempt in self.live():
            for key, amount in allocations_of(attempt):
                used[key] = used.get(key, NOTHING) + amount + (ONE_POD if key in limited else NOTHING)
        return used

    def snapshot(self, also: Job | None = None) -> Snapshot:
        """The input of a cycle, in an order that no restart changes: jobs by submission, clusters by name.

        ``also``: a job of a dry run, which waits last without being accepted.
        """
        waiting = sorted(self.queued(), key=attrgetter("order"))
        clusters = dict(sorted(self.clusters.items()))
        return Snapshot(
            queues=dict(self.queues),
            clusters=clusters,
            waiting=tuple(waiting) if also is None else (*waiting, also),
            ledger=self.usage.ledger.copy(),
            room=self.usage.reachable_room(clusters),
            running=self.usage.running(),
            phases={job_id: self.jobs[job_id].phase for job_id in self._dependents if job_id in self.jobs},
            befores={one: self.jobs[one] for one in (*self._dependents, *(also.after if also else ())) if one in self.jobs},
            told=self.waits.told(),
            factors=self.accuracy.factors() if self.rules.explains_all else NO_FACTORS,
            epoch=self.epoch,
            predictions=self._predictions(also),
            trusts={queue: self.history.trust(queue) for queue in self.queues},
            accounts=dict(self.accounts.rows),
            shapes=dict(self._shapes.numbers),
            rules=rules_in_force(self.rules, self.queues.values()),
            shape_cache=self._shapes.cache,
        )

    def _predictions(self, also: Job | None) -> dict[str, Prediction]:
        prediction_of = self.history.prediction_of
        found = {job_id: entry.prediction or prediction_of(entry) for job_id, entry in self._prediction_entries.items()}
        if also is not None:
            found[also.id] = self.history.predict(also)
        return found

    def has_demand(self) -> bool:
        """Whether a cycle could decide anything: a job waits, or a running gang lacks pods."""
        return bool(self._queued) or self.usage.has_missing_pods()

    def is_up_to_date(self, now: float) -> bool:
        """Whether a cycle would decide what the last one did: nothing changed since, and none of its timers has run out."""
        return self._decided_version == self.version and (self.next_cycle_at is None or now < self.next_cycle_at)

    def record_decision(self, waits: Waits, at: float, until: float | None, has_changed: bool) -> None:
        """Record the outcome of a cycle; ``until``: when to run the next. After one that changed something, that is at once."""
        self.waits = WaitsByJob(waits, self._queued)
        foreseen = (job_id for job_id in waits.foreseen if job_id in self._queued)
        self.accuracy.record(foreseen, waits.forecast_of, at)
        self.next_cycle_at = until
        self._decided_version = -1 if has_changed else self.version

    # --- puts --------------------------------------------------------------------------------------------------------

    def put_job(self, job: Job) -> Job:
        self.jobs[job.id] = job
        self._changed.jobs[job.id] = None
        self.version += 1
        if job.phase is JobPhase.QUEUED:
            self._queue_up(job)
        elif job.id in self._queued:
            self._leave_queue(job)
        self.usage.update_job(job)
        self.unfinished.put(job)
        if job.phase.is_terminal:
            self._ended[job.id] = None
        return job

    def _queue_up(self, job: Job) -> None:
        self._queued[job.id] = None
        self._shapes.add(job)
        self._prediction_entries[job.id] = self.history.entry(job)
        for waited_for in job.after:
            self._dependents.setdefault(waited_for, {})[job.id] = None

    def _leave_queue(self, job: Job) -> None:
        del self._queued[job.id]
        self.waits.pop(job.id, None)
        self.accuracy.forget(job.id)
        self.passed.pop(job.id, None)
        self._shapes.remove(job.id)
        del self._prediction_entries[job.id]
        self.accounts.stop_waiting(job)
        for waited_for in job.after:
            dependents = self._dependents.get(waited_for, {})
            dependents.pop(job.id, None)
            if not dependents:
                self._dependents.pop(waited_for, None)

    def put_attempt(self, attempt: Attempt) -> Attempt:
        key = (attempt.job_id, attempt.number)
        self.attempts[key] = attempt
        self._changed.attempts[key] = None
        self.version += 1
        if attempt.phase.is_live:
            self._live[attempt.job_id] = key
            self.usage.put(self.jobs[attempt.job_id], attempt)
        elif self._live.get(attempt.job_id) == key:
            del self._live[attempt.job_id]
            self.usage.drop(attempt.job_id)
            self.places.drop(key)
        return attempt

    def note_passed(self, attempt: Attempt) -> None:
        """A new attempt, which may have been started past gangs that wait."""
        for past in attempt.past:
            if past.job_id in self._queued:
                self.passed.setdefault(past.job_id, deque(maxlen=MOST_PASSED)).append((attempt.job_id, attempt.number))

    def put_pod(self, job_id: str, number: int, pod: Pod) -> None:
        attempt = self.attempts[job_id, number]
        place = self.places.place(attempt, pod.name)
        if place is not None:
            self.put_attempt(replace(attempt, pods=(*attempt.pods[:place], pod, *attempt.pods[place + 1 :])))

    def put_queues(self, queues: dict[str, Queue]) -> None:
        self.queues = queues
        self._changed.has_queues = True
        self.usage.configure(self.queues)
        self.version += 1

    def put_cluster(self, cluster: Cluster) -> None:
        self.clusters[cluster.name] = cluster
        self.version += 1

    def put_run(self, run: Run) -> None:
        self._keep_run(run)
        self._changed.runs[run.id] = None

    def _keep_run(self, run: Run) -> None:
        self.runs[run.id] = run
        self.unfinished.put_run(run)
        for node in run.nodes:
            if run.phase is RunPhase.RUNNING:
                self._run_node_of[node.job.id] = (run.id, node.name)
            else:
                self._run_node_of.pop(node.job.id, None)

    def put_dag(self, dag: Dag) -> None:
        self.dags[dag.name] = dag
        self._changed.dags[dag.name] = None

    def put_profile(self, profile: Profile) -> None:
        self.profiles[profile.name] = profile
        self._changed.profiles[profile.name] = None

    def delete_profile(self, name: str) -> None:
        if self.profiles.pop(name, None) is not None:
            self._changed.profiles[name] = None

    def delete_job(self, job_id: str) -> None:
        self._forget_job(job_id)
        self._changed.deleted_jobs.append(job_id)

    def begin_wait(self, job: Job, at: float) -> None:
        """Open the gang's overtaking account: from now on it counts what gangs submitted later use."""
        self.accounts.start_waiting(job, at, self._in_use(at), self.queues)

    def _in_use(self, at: float) -> Iterator[GangUsage]:
        """What runs, computed lazily: a new gang's account does not need it."""
        for runner in self.usage.running():
            yield usage_of(runner, at)

    # --- commits and memory ------------------------------------------------------------------------------------------

    def take_changes(self) -> Changes:
        """The rows that changed since the last call; drops ended jobs and runs beyond those kept in memory."""
        changed, self._changed = self._changed, ChangedKeys()
        changes = Changes(
            tuple(self.jobs[job_id] for job_id in changed.jobs if job_id in self.jobs),
            tuple(self.attempts[key] for key in changed.attempts if key in self.attempts),
            tuple(self.queues.values()) if changed.has_queues else None,
            tuple(changed.deleted_jobs),
            tuple(self.runs[run_id] for run_id in changed.runs),
            tuple(self.dags[name] for name in changed.dags),
            tuple(self.profiles[name] for name in changed.profiles if name in self.profiles),
            tuple(name for name in changed.profiles if name not in self.profiles),
            *self.accounts.take_changes(),
            *self.history.take_changes(),
        )
        self._drop_old_ended()
        return changes

    def reload_run(self, run: Run) -> None:
        """Load an ended run into memory again, so that events about it apply."""
        if run.id not in self.runs:
            self._keep_run(run)

    def reload_job(self, job: Job, attempts: Iterable[Attempt]) -> None:
        """Load an ended job into memory again, so that events about it apply."""
        if job.id not in self.jobs:
            self.jobs[job.id] = job
            self._ended[job.id] = None
            self.attempts.update({(attempt.job_id, attempt.number): attempt for attempt in attempts})

    def is_deleted(self, job_id: str) -> bool:
        """Whether it was deleted since the last commit."""
        return job_id in self._changed.deleted_jobs

    def _drop_old_ended(self) -> None:
        ended = [run_id for run_id, run in self.runs.items() if run.phase is not RunPhase.RUNNING][:-ENDED_RUNS_KEPT]
        for run_id in ended:
            del self.runs[run_id]
        if len(self._ended) <= ENDED_JOBS_KEPT + ENDED_JOBS_SLACK:
            return
        # Those that active jobs come after are needed too: an active job may be queued again.
        needed = {job_id for job in self.unfinished_jobs() for job_id in job.after}
        for job_id in [j for j in self._ended if j not in needed][: len(self._ended) - ENDED_JOBS_KEPT]:
            self._forget_job(job_id)

    def _forget_job(self, job_id: str) -> None:
        job = self.jobs.pop(job_id)
        self._ended.pop(job_id, None)
        for number in range(1, job.attempts + 1):
            self.attempts.pop((job_id, number), None)
