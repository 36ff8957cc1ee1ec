"""Why each gang waits: one sentence for people, the same as data, and when it will probably start with what that rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final

from tuttilab.scheduler.core.backfill import QuotaHold, end_of
from tuttilab.scheduler.core.causes import Cause
from tuttilab.scheduler.core.desk import Desk
from tuttilab.scheduler.core.forecast import line_starts
from tuttilab.scheduler.core.line import Candidate
from tuttilab.scheduler.core.placement import Misfit, named_clusters, possible_clusters
from tuttilab.scheduler.core.quota import Shortage
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.model import Job, Wait, Why
from tuttilab.scheduler.resources import Resources

BY_ENDS: Final = "predicted ends of what runs"
BY_LINE: Final = "predicted run times of the gangs before it"
UNKNOWN: Final = "what holds it has no known end"
MOST_BLOCKERS: Final = 20


def _runs_on(cluster: str, keys: tuple[str, ...], runner: Running) -> bool:
    return runner.cluster == cluster and _has_any(runner.charge, keys)


def _has_any(charge: Resources, keys: tuple[str, ...]) -> bool:
    """Whether it holds any of what is short; of what is no resource (jobs, pods, labels) everybody does."""
    return not keys or any(charge[key] for key in keys)


def _first_of(names: tuple[str, ...]) -> str:
    return "it" if len(names) == 1 else "one of them"


@dataclass(slots=True)
class _Holders:
    """Who holds room or quota, as far as the reader may know: own jobs by id, the own group's as data, others as a number."""

    count: int = 0
    by_owner: dict[str, list[str]] = field(default_factory=dict)
    by_group: dict[str, list[str]] = field(default_factory=dict)
    _told: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, running: Iterable[Running]) -> _Holders:
        holders = cls()
        for runner in running:
            holders.count += 1
            job = runner.job
            holders.by_owner.setdefault(job.owner, []).append(job.id)
            holders.by_group.setdefault(job.group, []).append(job.id)
        return holders

    def text(self, owner: str) -> str:
        own = self.by_owner.get(owner, [])
        others = self.count - len(own)
        parts = []
        if own:
            parts.append(f"your {'job' if len(own) == 1 else 'jobs'} {', '.join(own[:3])}{' …' if len(own) > 3 else ''}")
        if others:
            parts.append(f"{others} {'job' if others == 1 else 'jobs'} of others")
        return f" (held by {' and '.join(parts)})" if parts else ""

    def told(self, job: Job) -> tuple[str, tuple[str, ...]]:
        """What the job's owner may read, and the ids that the job's group may see."""
        known = self._told.get((job.owner, job.group))
        if known is None:
            known = (self.text(job.owner), tuple(self.by_group.get(job.group, ())[:MOST_BLOCKERS]))
            self._told[job.owner, job.group] = known
        return known


@dataclass(slots=True)
class _Told:
    """What is said of one cause: the same to everybody, except who holds what is missing, or behind whom they wait."""

    pattern: Wait
    holders: _Holders | None = None
    behind: Job | None = None
    what: str = "room"
    """That is kept for the one it waits behind."""
    is_by_line: bool = False
    """Whether the line before a gang says when it starts, the pattern at most that it is no earlier."""
    holder: Job | None = None
    """The one gang that starts when the pattern says, whoever else is before it in line."""


@dataclass(slots=True)
class _Words:
    """Every sentence once: for each cause, and for each reader of it."""

    desk: Desk
    _causes: dict[Cause, _Told] = field(default_factory=dict)
    _clusters: dict[tuple[str, tuple[str, ...]], _Holders] = field(default_factory=dict)
    """By cluster and what is short there."""
    _queues: dict[tuple[str, tuple[str, ...]], _Holders] = field(default_factory=dict)
    _first_ends: dict[str, float | None] = field(default_factory=dict)
    """The queues with nothing running."""

    def waits(self, waiting: Sequence[Candidate]) -> Iterator[Wait]:
        causes, overtaken_s = self._causes, self.desk.protection.overtaken_s
        for candidate, line_start in zip(waiting, line_starts(self.desk, waiting), strict=True):
            job, cause = candidate.job, candidate.cause
            assert cause is not None
            told = causes.get(cause) or self._cause(candidate, cause)
            _, why, sentence, _, short, queue, role, blockers, start, basis, *_ = told.pattern
            if told.is_by_line and job is not told.holder and line_start < inf and (start is None or line_start > start):
                start, basis = line_start, BY_LINE
            if told.holders is not None:
                held_by, blockers = told.holders.told(job)
                sentence += held_by
            elif told.behind is not None:
                sentence, blockers = self._behind(told.behind, told.what, job)
            job_id, place, is_protected = job.id, candidate.place, candidate.is_protected
            used_s = overtaken_s.get(job_id, 0.0)
            yield Wait(job_id, why, sentence, place, short, queue, role, blockers, start, basis, used_s, is_protected)

    def _holders(self, holds: Callable[[Running], bool]) -> _Holders:
        """Those that ran before this cycle; only where there are none, those that it started."""
        before = [runner for runner in self.desk.snapshot.running if holds(runner)]
        return _Holders.of(before or filter(holds, self.desk.running))

    @staticmethod
    def _behind(first: Job, what: str, job: Job) -> tuple[str, tuple[str, ...]]:
        """The wait of a gang whose room or quota is kept for one that goes before it."""
        whose = f"{first.name} ({first.id})" if first.owner == job.owner else "a job"
        seen = (first.id,) if first.group == job.group else ()
        return f"{what} is kept for {whose} that goes before it, and this one could delay it", seen

    def _cause(self, candidate: Candidate, cause: Cause) -> _Told:
        told = self._causes[cause] = self._tell(candidate, cause)
        return told

    def _tell(self, candidate: Candidate, cause: Cause) -> _Told:
        job = candidate.job
        if cause.why is Why.CLUSTER_DOWN:
            return _Told(self._down(job, cause.clusters))
        if cause.why is Why.QUOTA and cause.shortage is not None:
            return self._no_quota(candidate, cause, cause.shortage)
        if cause.why is Why.HOLD and cause.hold is not None:
            what = "quota" if isinstance(cause.hold, QuotaHold) else "room"
            return _Told(Wait(job.id, Why.HOLD, "", 0), behind=cause.hold.job, what=what, is_by_line=True)
        if cause.why is Why.NO_ROOM:
            return self._no_room(candidate, cause)
        return self._equal(candidate, cause)

    def _down(self, job: Job, down: tuple[str, ...]) -> Wait:
        """Of a gang none of whose clusters answers, or that may use none at all."""
        if down:
            who = f"cluster {down[0]} does" if len(down) == 1 else f"clusters {', '.join(down)} do"
            return Wait(job.id, Why.CLUSTER_DOWN, f"{who} not answer; the job starts when {_first_of(down)} is back", 0)
        path, named = self.desk.ledger.path(job.queue), sorted(named_clusters(job))
        possible = possible_clusters(job, path)
        if possible is None:
            return Wait(job.id, Why.CLUSTER_DOWN, "no cluster is there; the job starts when one is", 0)
        if possible:
            missing = tuple(sorted(possible))
            who = f"cluster {missing[0]} is" if len(missing) == 1 else f"clusters {', '.join(missing)} are"
            return Wait(job.id, Why.CLUSTER_DOWN, f"{who} not there; the job starts when {_first_of(missing)} is", 0)
        if len(named) > 1:
            return Wait(job.id, Why.NEVER_FITS, f"asks for clusters {' and '.join(named)}, but all of a job runs on one cluster", 0)
        bounds = [f"queue {step.name} uses only {', '.join(step.clusters)}" for step in path if step.clusters]
        asked = [f"the job asks for cluster {named[0]}"] if named else []
        return Wait(job.id, Why.NEVER_FITS, f"cannot start on any cluster: {' and '.join([*bounds, *asked])}", 0)

    def _no_quota(self, candidate: Candidate, cause: Cause, shortage: Shortage) -> _Told:
        job, hold = candidate.job, cause.hold
        if not self.desk.is_ever_allowed(candidate):
            sentence = f"{shortage.sentence}, and it asks for more than it may ever use"
            return _Told(Wait(job.id, Why.QUOTA, sentence, 0, shortage.over, shortage.queue))
        keys = tuple(key for key, _ in shortage.over)
        users = (shortage.queue, keys)
        if users not in self._queues:
            below = self.desk.queues_below(shortage.queue)
            self._queues[users] = self._holders(lambda runner: runner.queue in below and _has_any(runner.charge, keys))
        start = hold.start if hold is not None else None
        basis = BY_ENDS if start is not None else UNKNOWN
        pattern = Wait(job.id, Why.QUOTA, shortage.sentence, 0, shortage.over, shortage.queue, None, (), start, basis)
        return _Told(pattern, self._queues[users], is_by_line=True, holder=None if hold is None else hold.job)

    def _equal(self, candidate: Candidate, cause: Cause) -> _Told:
        sentence = "no room: an equal job before it in line does not fit either"
        first = cause.first
        if first is not None and first.misfits:
            told = self._no_room(candidate, first)
            if told.pattern.why is Why.NEVER_FITS:
                return told
            pattern = told.pattern._replace(why=Why.BEHIND, sentence=sentence, estimated_start=None, basis=UNKNOWN)
            return _Told(pattern, is_by_line=True)
        return _Told(Wait(candidate.job.id, Why.BEHIND, sentence, 0), is_by_line=True)

    def _no_room(self, candidate: Candidate, cause: Cause) -> _Told:
        desk, job, shape = self.desk, candidate.job, candidate.shape
        never: tuple[str, Misfit] | None = None
        for cluster, misfit in cause.misfits:
            name, alone = cluster.name, desk.alone(shape, cluster)
            if alone is None:
                keys = tuple(key for key, _ in misfit.short)
                if (name, keys) not in self._clusters:
                    self._clusters[name, keys] = self._holders(partial(_runs_on, name, keys))
                start = cause.hold.start if cause.hold is not None else self._when(name)
                basis = BY_ENDS if start is not None else UNKNOWN
                sentence = f"no room now: {misfit.sentence()}"
                role = misfit.pod_set.role
                pattern = Wait(job.id, Why.NO_ROOM, sentence, 0, misfit.short, None, role, (), start, basis)
                holder = None if cause.hold is None else cause.hold.job
                return _Told(pattern, self._clusters[name, keys], is_by_line=True, holder=holder)
            never = never or (name, alone)
        assert never is not None
        what = "cannot start" if never[1].is_certain else "no way was found to start"
        sentence = f"{what} on cluster {never[0]} even when it is empty: {never[1].sentence()}"
        return _Told(Wait(job.id, Why.NEVER_FITS, sentence, 0, never[1].short, None, never[1].pod_set.role))

    def _when(self, cluster: str) -> float | None:
        """When the first gang of the cluster ends: the earliest that a gang without a hold may start."""
        if cluster not in self._first_ends:
            ends = [end_of(runner, self.desk.now) for runner in self.desk.running if runner.cluster == cluster]
            self._first_ends[cluster] = min(ends, default=None)
        return self._first_ends[cluster]


def explain(desk: Desk) -> tuple[Wait, ...]:
    """One `Wait` for every waiting gang that does not start, in the order of the snapshot."""
    waiting = [candidate for line in desk.lines_.values() for candidate in line if candidate.cause is not None]
    waits = {wait.job_id: wait for wait in _Words(desk).waits(waiting)} | desk.early
    return tuple([waits[job.id] for job in desk.snapshot.waiting if job.id in waits])
