"""The account of who was overtaken: how much room later gangs used while an earlier one waited. Measured, never predicted.

Gangs of one queue and one class stand in a lane, by order of submission. What a gang that has ended used counts for every gang of
its lane submitted before it, so it is written once, at the nearest of them, and an account is a sum over the lane from the end.
When a gang leaves the lane, what stands at it moves to the one before it. So there is one row a waiting gang, and each event
changes a bounded number of rows.

A gang is protected once ``overtaking / room > 0.15 x its wait + 15 min`` (`Queue.overtaking`, `Queue.overtaking_s`), and *lifted*
above higher classes and queues once it has waited `Queue.class_cap_s` and any of those submitted later used room meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tuttilab.scheduler.core.queues import parting
from tuttilab.scheduler.model import Job, Overtaking, Queue

Lane = tuple[str, int]
"""Queue and priority class."""

Seconds = tuple[tuple[str, float], ...]
"""Room-seconds by cluster: dominant share of the cluster's resources times time."""


class Use(NamedTuple):
    """Room that a gang uses or used: ``share`` of ``cluster`` (dominant resource) for ``seconds`` so far."""

    job_id: str
    order: int
    lane: Lane
    cluster: str
    share: float
    seconds: float


def plus(one: Seconds, other: Seconds) -> Seconds:
    if not other:
        return one
    sums = dict(one)
    for cluster, seconds in other:
        sums[cluster] = sums.get(cluster, 0.0) + seconds
    return tuple(sorted(sums.items()))


def is_above(use: Lane, lane: Lane, queues: Mapping[str, Queue]) -> bool:
    """Whether a gang of the lane ``use`` goes before one of ``lane``: by class in the same queue, by priority where paths part."""
    if use[0] == lane[0]:
        return use[1] > lane[1]
    parts = parting(queues, use[0], lane[0])
    return parts is not None and parts[0].priority > parts[1].priority


@dataclass(slots=True)
class Accounts:
    """The rows of all waiting gangs and their lanes; knows which rows changed."""

    rows: dict[str, Overtaking] = field(default_factory=dict)
    lanes: dict[Lane, list[tuple[int, str]]] = field(default_factory=dict)
    _newest: int = -1
    """Highest order of submission met: one above it was overtaken by nobody yet."""
    _changed: dict[str, None] = field(default_factory=dict)
    _dropped: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Overtaking], waiting: Iterable[Job], newest: int = -1) -> Accounts:
        """From rows; a waiting gang without one has waited since its submission and was not overtaken.

        ``newest``: the highest order of submission of those that wait or run.
        """
        accounts = cls({row.job_id: row for row in rows}, _newest=newest)
        known = set()
        for job in waiting:
            known.add(job.id)
            accounts.rows.setdefault(job.id, Overtaking(job.id, job.submitted_at))
            insort(accounts.lanes.setdefault((job.queue, job.priority), []), (job.order, job.id))
        for job_id in [job_id for job_id in accounts.rows if job_id not in known]:
            accounts._drop(job_id)
        return accounts

    def begin(self, job: Job, at: float, in_use: Iterable[Use], queues: Mapping[str, Queue]) -> None:
        """The gang waits from now on: what later ones used before does not count."""
        lane = (job.queue, job.priority)
        line = self.lanes.setdefault(lane, [])
        if job.id not in self.rows:
            insort(line, (job.order, job.id))
        self._put(replace(self.rows.get(job.id, Overtaking(job.id, at)), since=at, base=(), base_above=()))
        if job.order > self._newest:
            self._newest = job.order
            return
        later, above = self.used_since(job, in_use, queues)
        if later or above:
            self._put(replace(self.rows[job.id], base=later, base_above=above))

    def used_since(self, job: Job, in_use: Iterable[Use], queues: Mapping[str, Queue]) -> tuple[Seconds, Seconds]:
        """Room-seconds of later gangs of the lane, and of later gangs above it, the bases included."""
        lane = (job.queue, job.priority)
        line = self.lanes.get(lane, [])
        later: Seconds = ()
        above: Seconds = ()
        for _, job_id in line[bisect_left(line, (job.order, "")) :]:
            later = plus(later, self.rows[job_id].later)
            above = plus(above, self.rows[job_id].above)
        for use in in_use:
            if use.order <= job.order:
                continue
            if use.lane == lane:
                later = plus(later, ((use.cluster, use.share * use.seconds),))
            elif is_above(use.lane, lane, queues):
                above = plus(above, ((use.cluster, use.share * use.seconds),))
        return later, above

    def leave(self, job: Job) -> None:
        """The gang waits no more: what stands at it moves to the one before it, which was overtaken by the same."""
        row = self.rows.get(job.id)
        if row is None:
            return
        line = self.lanes[job.queue, job.priority]
        place = bisect_left(line, (job.order, job.id))
        del line[place]
        if place and (row.later or row.above):
            before = self.rows[line[place - 1][1]]
            self._put(replace(before, later=plus(before.later, row.later), above=plus(before.above, row.above)))
        if not line:
            del self.lanes[job.queue, job.priority]
        self._drop(job.id)

    def ended(self, use: Use, queues: Mapping[str, Queue]) -> None:
        """A gang has ended that used so much room: written at the nearest waiting gang before it, in its lane and those below."""
        amount = ((use.cluster, use.share * use.seconds),)
        for lane, line in self.lanes.items():
            is_own = lane == use.lane
            if not is_own and not is_above(use.lane, lane, queues):
                continue
            place = bisect_left(line, (use.order, ""))
            if not place:
                continue
            row = self.rows[line[place - 1][1]]
            if is_own:
                self._put(replace(row, later=plus(row.later, amount)))
            else:
                self._put(replace(row, above=plus(row.above, amount)))

    def _put(self, row: Overtaking) -> None:
        self.rows[row.job_id] = row
        self._changed[row.job_id] = None
        self._dropped.pop(row.job_id, None)

    def _drop(self, job_id: str) -> None:
        del self.rows[job_id]
        self._changed.pop(job_id, None)
        self._dropped[job_id] = None

    def take_changes(self) -> tuple[tuple[Overtaking, ...], tuple[str, ...]]:
        """Rows to write, and ids of jobs whose row is to be deleted."""
        changed, dropped = tuple(self.rows[job_id] for job_id in self._changed), tuple(self._dropped)
        self._changed.clear()
        self._dropped.clear()
        return changed, dropped
