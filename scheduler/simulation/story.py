"""The story of one waiting gang: its place, the room held for it, who went past it and by which promise, and when it was to start.

`Watch` sees every cycle of a simulation and notes what changes for its gang; `story` joins that with how everything ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.core.backfill import Hold
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.cycle import Decision
from tuttilab.scheduler.core.explain.kept import kept_by
from tuttilab.scheduler.core.holds import Holds
from tuttilab.scheduler.core.told.waits import Waits
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.events import GangAdmitted
from tuttilab.scheduler.domain.model import Job, Kept, Promise

if TYPE_CHECKING:
    from tuttilab.scheduler.simulation.engine import JobOutcome, Outcome

ASKS_AFTER_S: Final = 60.0
"""How often the gang is asked what it is told, at most; and no oftener than after a fiftieth of its wait so far."""
MOVE_S: Final = 1.0
"""A start that moved by less did not move."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The gang from one cycle on, until the next moment."""

    at: float
    place: int
    kept: Kept | None
    behind: str
    """The job for which room is held instead, with its name and owner; empty without one."""
    is_protected: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What its owner was told."""

    at: float
    start: float | None
    earliest: float | None
    latest: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A gang that was submitted later and started first."""

    at: float
    job_id: str
    owner: str
    name: str
    gpus: int
    pods: int
    nodes: tuple[str, ...]
    promise: Promise
    predicted_end: float
    limit_end: float | None
    kept_start: float | None
    """When the gang was to start as it went past."""
    ended: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether it was to be gone before the gang's start, and was not."""
        by_end = (Promise.PREDICTION, Promise.SPREAD, Promise.LIMIT)
        return self.promise in by_end and self.kept_start is not None and (self.ended is None or self.ended > self.kept_start)


@dataclass(slots=True)
class Watch:
    """Notes what a simulation's cycles mean for one gang, while it waits for its first start."""

    job_id: str
    moments: list[Moment] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)
    _ask_at: float = 0.0

    def asks(self, now: float) -> bool:
        """Whether it is time to ask what the gang is told."""
        return now >= self._ask_at

    def tell(self, waits: Waits, now: float) -> None:
        if self.job_id not in waits.job_ids:
            return
        wait = waits.of(self.job_id)
        self.told.append(Told(now, wait.estimated_start, wait.earliest, wait.latest, wait.sentence))
        self._ask_at = now + max(ASKS_AFTER_S, (now - self.told[0].at) / 50)

    def __call__(self, working_set: WorkingSet, holds: Holds, decision: Decision) -> None:
        """What a cycle held and decided (`core.cycle.Watch`)."""
        own = self._own(working_set)
        if own is None:
            return
        if decision.admitted or holds.on_room:
            # Else nothing fitted anywhere, and no hold was computed: what was held is as it was.
            self.note(working_set, holds, decision)
        kept = self._kept(holds)
        later = {one.job_id: one for one in decision.admitted if one.job_id != self.job_id}
        for candidate in working_set.lines.candidates() if later else ():
            if candidate.job.id in later and candidate.job.order > own.job.order:
                self.passed.append(_passed(later[candidate.job.id], candidate, own, kept, working_set.now))

    def _own(self, working_set: WorkingSet) -> Candidate | None:
        return next((c for c in working_set.lines.candidates() if c.job.id == self.job_id), None)

    def _kept(self, holds: Holds) -> Hold | None:
        return next((hold for hold in holds.on_room.values() if hold.job.id == self.job_id), None)

    def note(self, working_set: WorkingSet, holds: Holds, decision: Decision) -> None:
        """The gang's place and hold in a cycle that decides nothing, such as one that only explains."""
        own, hold, kept = self._own(working_set), self._kept(holds), None
        if own is None:
            return
        if hold is not None:
            kept = kept_by(hold, own, working_set)
        others = [_named(holds.on_room[c.name].job) for c in own.shape.clusters if c.name in holds.on_room]
        moment = Moment(working_set.now, own.place, kept, "" if kept or not others else others[0], own.is_protected)
        if not self.moments or _differs(self.moments[-1], moment):
            self.moments.append(moment)


def _differs(one: Moment, other: Moment) -> bool:
    if (one.place, one.behind, one.is_protected) != (other.place, other.behind, other.is_protected):
        return True
    if one.kept is None or other.kept is None:
        return one.kept is not other.kept
    return one.kept.nodes != other.kept.nodes or abs(one.kept.start - other.kept.start) >= MOVE_S


def _passed(admitted: GangAdmitted, candidate: Candidate, own: Candidate, hold: Hold | None, now: float) -> Passed:
    job, prediction = candidate.job, candidate.prediction
    return Passed(
        now,
        job.id,
        job.owner,
        job.name,
        _gpus(job),
        job.gang.size,
        tuple(dict.fromkeys(place.node for place in admitted.placements)),
        _promise(admitted, candidate, own, hold, now),
        now + prediction.seconds,
        None if job.timeout_s is None else now + job.timeout_s,
        None if hold is None else hold.start,
    )


def _named(job: Job) -> str:
    return f"{job.id} ({job.name} of {job.owner})"


def _gpus(job: Job) -> int:
    return job.gang.resources["nvidia.com/gpu"]


def _promise(admitted: GangAdmitted, candidate: Candidate, own: Candidate, hold: Hold | None, now: float) -> Promise:
    if candidate.job.queue == own.job.queue and candidate.place < own.place:
        return Promise.ORDER
    if hold is None or hold.cluster != admitted.cluster:
        return Promise.FITS
    return hold.promise_of(candidate.job, candidate.prediction, now)


@dataclass(frozen=True, slots=True)
class Story:
    """Of one gang under one policy. Times are those of the trace."""

    policy: str
    job_id: str
    owner: str
    name: str
    gpus: int
    pods: int
    submitted: float
    started: float | None
    ended: float | None
    nodes: tuple[str, ...]
    """Where it ran."""
    moments: tuple[Moment, ...]
    told: tuple[Told, ...]
    passed: tuple[Passed, ...]

    @property
    def kept(self) -> list[tuple[Moment, Kept]]:
        return [(moment, moment.kept) for moment in self.moments if moment.kept is not None]

    def node_changes(self) -> int:
        """How often the hold went to other nodes."""
        return sum(before[1].nodes != after[1].nodes for before, after in pairwise(self.kept))

    def moves(self) -> tuple[int, int]:
        """How often the start of its hold went later, and earlier."""
        moved = [after[1].start - before[1].start for before, after in pairwise(self.kept)]
        return sum(by >= MOVE_S for by in moved), sum(by <= -MOVE_S for by in moved)

    def gpu_seconds(self, promise: Promise | None = None) -> float:
        """GPU time, while the gang waited, of those that went past it."""
        until = self.started if self.started is not None else max((one.at for one in self.moments), default=self.submitted)
        return sum(
            max(min(one.ended if one.ended is not None else until, until) - one.at, 0.0) * one.gpus
            for one in self.passed
            if promise is None or one.promise is promise
        )


def story(watch: Watch, outcome: Outcome) -> Story:
    """What the watch saw, with how it ended."""
    ran: Mapping[str, JobOutcome] = {one.job.job_id: one for one in outcome.ran}
    own = ran[watch.job_id]
    nodes = () if own.last is None else tuple(dict.fromkeys(pod.node for pod in own.last.pods))
    return Story(
        outcome.policy,
        watch.job_id,
        own.job.owner,
        own.job.name,
        own.job.gpus,
        own.job.pods,
        own.job.submit_s,
        own.started_at,
        own.ended_at,
        nodes,
        tuple(watch.moments),
        tuple(watch.told),
        tuple(_with_end(one, ran.get(one.job_id)) for one in watch.passed),
    )


def _with_end(one: Passed, ran: JobOutcome | None) -> Passed:
    return replace(one, ended=None if ran is None else ran.ended_at)
