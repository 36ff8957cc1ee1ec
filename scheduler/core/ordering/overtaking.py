"""Overtaking accounts: how much room later gangs used while an earlier one waited. Measured, never predicted.

A lane is the waiting gangs of one queue and class, in order of submission. The usage of an ended gang counts for every gang of its
lane submitted before it. It is stored once, in the row of the nearest one; a gang's account is the sum of the rows from its own to
the end of the lane. When a gang leaves the lane, its amounts move to the row before it. So there is one row per waiting gang, and
each event changes a bounded number of rows.

A gang is protected once ``overtaking / room > 0.15 x its wait + 15 min`` (`Queue.overtaking`, `Queue.overtaking_s`). It is class
exempt once it has waited `Queue.class_cap_s` and a later gang of a higher class or queue used room meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tuttilab.scheduler.core.ordering.queues import diverging_queues
from tuttilab.scheduler.domain.model import Job, Overtaking, Queue

Lane = tuple[str, int]
"""Queue and priority class."""

Seconds = tuple[tuple[str, float], ...]
"""Room-seconds by cluster: dominant share of the cluster's resources times time."""


class GangUsage(NamedTuple):
    """Room that a gang uses or used: ``share`` of ``cluster`` (dominant resource) for ``seconds`` so far."""

    job_id: str
    order: int
    lane: Lane
    cluster: str
    share: float
    seconds: float


def add_seconds(one: Seconds, other: Seconds) -> Seconds:
    if not other:
        return one
    sums = dict(one)
    for cluster, seconds in other:
        sums[cluster] = sums.get(cluster, 0.0) + seconds
    return tuple(sorted(sums.items()))


def is_above(one: Lane, other: Lane, queues: Mapping[str, Queue]) -> bool:
    """Whether gangs of lane ``one`` go before those of ``other``: by class in one queue, else by priority where paths diverge."""
    if one[0] == other[0]:
        return one[1] > other[1]
    branches = diverging_queues(queues, one[0], other[0])
    return branches is not None and branches[0].priority > branches[1].priority


@dataclass(slots=True)
class Accounts:
    """The rows of all waiting gangs and their lanes; tracks which rows changed."""

    rows: dict[str, Overtaking] = field(default_factory=dict)
    lanes: dict[Lane, list[tuple[int, str]]] = field(default_factory=dict)
    _newest: int = -1
    """Highest order of submission seen: a gang above it has not been overtaken yet."""
    _changed: dict[str, None] = field(default_factory=dict)
    _dropped: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Overtaking], waiting: Iterable[Job], newest: int = -1) -> Accounts:
        """From stored rows. A waiting gang without a row has waited since its submission and was not overtaken.

        ``newest``: the highest order of submission among waiting and running gangs.
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

    def start_waiting(self, job: Job, at: float, in_use: Iterable[GangUsage], queues: Mapping[str, Queue]) -> None:
        """The gang waits from ``at`` on: earlier usage by later gangs does not count."""
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

    def used_since(self, job: Job, in_use: Iterable[GangUsage], queues: Mapping[str, Queue]) -> tuple[Seconds, Seconds]:
        """Room-seconds of later gangs of the lane, and of later gangs above it. The bases are not subtracted."""
        lane = (job.queue, job.priority)
        line = self.lanes.get(lane, [])
        later: Seconds = ()
        above: Seconds = ()
        for _, job_id in line[bisect_left(line, (job.order, "")) :]:
            later = add_seconds(later, self.rows[job_id].later)
            above = add_seconds(above, self.rows[job_id].above)
        for use in in_use:
            if use.order <= job.order:
                continue
            if use.lane == lane:
                later = add_seconds(later, ((use.cluster, use.share * use.seconds),))
            elif is_above(use.lane, lane, queues):
                above = add_seconds(above, ((use.cluster, use.share * use.seconds),))
        return later, above

    def stop_waiting(self, job: Job) -> None:
        """The gang no longer waits: its amounts move to the gang before it, which the same gangs overtook."""
        row = self.rows.get(job.id)
        if row is None:
            return
        line = self.lanes[job.queue, job.priority]
        place = bisect_left(line, (job.order, job.id))
        del line[place]
        if place and (row.later or row.above):
            before = self.rows[line[place - 1][1]]
            self._put(replace(before, later=add_seconds(before.later, row.later), above=add_seconds(before.above, row.above)))
        if not line:
            del self.lanes[job.queue, job.priority]
        self._drop(job.id)

    def record_ended(self, use: GangUsage, queues: Mapping[str, Queue]) -> None:
        """Add the usage of an ended gang to the nearest earlier waiting gang, in its lane and in each lane below it."""
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
                self._put(replace(row, later=add_seconds(row.later, amount)))
            else:
                self._put(replace(row, above=add_seconds(row.above, amount)))

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
