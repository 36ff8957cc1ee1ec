"""Which waiting gangs are protected now, and when the next one will be, from the accounts of `overtaking`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.ordering.overtaking import GangUsage, Lane, Seconds, is_above
from tuttilab.scheduler.core.rules import SERVICE_RULES, Rules
from tuttilab.scheduler.domain.model import Job, Overtaking, Queue

Floats = npt.NDArray[np.float64]
_ABOVE = attrgetter("above")


@dataclass(frozen=True, slots=True)
class Protection:
    """Accounts and protection of the waiting gangs, by job id."""

    overtaken_s: Mapping[str, float] = field(default_factory=dict)
    """The account as seconds of the whole room."""
    protected: frozenset[str] = frozenset()
    """Overtaken by `Rules.protected_at` x their allowance: the first, by submission, that does not fit gets the hold."""
    overdue: frozenset[str] = frozenset()
    """By `Rules.overdue_at` x: a backfill must end in time even if it runs a spread longer than predicted."""
    strict: frozenset[str] = frozenset()
    """Overtaken by `Rules.strict_at` x their allowance: no backfill relies on a prediction."""
    class_exempt: frozenset[str] = frozenset()
    """Passed by higher classes for `class_cap_s`."""
    next_at: float | None = None
    """When the next gang becomes protected or class exempt if nothing else happens."""


@dataclass(frozen=True, slots=True)
class _Uses:
    """Running gangs as arrays, sorted by order of submission."""

    orders: npt.NDArray[np.int64]
    lanes: Sequence[Lane]
    lane_numbers: npt.NDArray[np.int64]
    seconds: Floats
    """Room-seconds so far, one column per cluster."""
    shares: Floats


def _uses(in_use: Iterable[GangUsage], columns: Mapping[str, int]) -> _Uses:
    uses = sorted((use for use in in_use if use.cluster in columns), key=attrgetter("order"))
    lanes = sorted({use.lane for use in uses})
    numbers = {lane: number for number, lane in enumerate(lanes)}
    shares, seconds = np.zeros((2, len(uses), len(columns)))
    cells = np.arange(len(uses)), [columns[use.cluster] for use in uses]
    shares[cells] = [use.share for use in uses]
    seconds[cells] = [use.share * use.seconds for use in uses]
    return _Uses(
        np.array([use.order for use in uses], dtype=np.int64),
        lanes,
        np.array([numbers[use.lane] for use in uses], dtype=np.int64),
        seconds,
        shares,
    )


def _from_end(amounts: Floats) -> Floats:
    """Sums from each row to the end, followed by a row of zeros."""
    sums = np.zeros((len(amounts) + 1, amounts.shape[1]))
    sums[:-1] = amounts[::-1].cumsum(axis=0)[::-1]
    return sums


def _matrix(rows: Sequence[Seconds], columns: Mapping[str, int]) -> Floats:
    matrix = np.zeros((len(rows), len(columns)))
    for number, row in enumerate(rows):
        for cluster, seconds in row:
            if cluster in columns:
                matrix[number, columns[cluster]] += seconds
    return matrix


def protection(
    waiting: Iterable[Job],
    accounts: Mapping[str, Overtaking],
    in_use: Iterable[GangUsage],
    queues: Mapping[str, Queue],
    weights: Mapping[str, float],
    usable: Mapping[str, frozenset[str]],
    now: float,
    rules: Rules = SERVICE_RULES,
) -> Protection:
    """The protection of the waiting gangs at ``now``.

    ``weights``: each cluster's share of the site's room. ``usable``: for jobs that may not use all clusters, those they may use.
    An account is the weighted mean of the room-seconds of the clusters that the gang may use.
    """
    columns = {name: column for column, name in enumerate(sorted(weights))}
    if not columns:
        return Protection()
    uses = _uses(in_use, columns)
    sizes = np.array([weights[name] for name in sorted(weights)])
    lanes: dict[Lane, list[Job]] = {}
    for job in waiting:
        lane = (job.queue, job.priority)
        in_lane = lanes.get(lane)
        if in_lane is None:
            in_lane = lanes[lane] = []
        in_lane.append(job)
    overtaken: dict[str, float] = {}
    stages: list[tuple[float, list[str]]] = [(rules.protected_at, []), (rules.overdue_at, []), (rules.strict_at, [])]
    class_exempt: list[str] = []
    upcoming: list[float] = []
    # With equal priorities no queue is above another, so only classes of the own queue are.
    are_level = len({queue.priority for queue in queues.values()}) == 1
    lane_numbers = {lane: number for number, lane in enumerate(uses.lanes)}
    nobody = np.zeros(len(uses.orders), dtype=np.bool_)
    for lane, jobs in lanes.items():
        queue = queues.get(lane[0])
        if queue is None:
            continue
        orders = np.array([job.order for job in jobs], dtype=np.int64)
        if (np.diff(orders) < 0).any():
            jobs.sort(key=attrgetter("order"))
            orders.sort()
        rows = [accounts.get(job.id) or Overtaking(job.id, job.submitted_at) for job in jobs]
        waits = now - np.array([row.since for row in rows])
        size = np.tile(sizes, (len(jobs), 1))
        for number, job in enumerate(jobs if usable else ()):
            if job.id in usable:
                size[number, [c for name, c in columns.items() if name not in usable[job.id]]] = 0.0
        size /= np.maximum(size.sum(axis=1, keepdims=True), 1e-12)
        own = uses.lane_numbers == lane_numbers[lane] if lane in lane_numbers else nobody
        seconds, rate = _later(orders, own, uses, [row.later for row in rows], [row.base for row in rows], size, columns)
        allowance = queue.overtaking * waits + queue.overtaking_s
        overtaken.update(zip([job.id for job in jobs], seconds.tolist(), strict=True))
        for part, ids in stages:
            is_past = seconds > part * allowance
            ids += [jobs[number].id for number in np.nonzero(is_past)[0].tolist()]
            gains = ~is_past & (rate > part * queue.overtaking)
            if gains.any():
                left = (part * allowance - seconds)[gains] / (rate - part * queue.overtaking)[gains]
                upcoming.append(now + float(left.min()))

        higher = np.array(
            [(one[0] == lane[0] or not are_level) and is_above(one, lane, queues) for one in uses.lanes], dtype=np.bool_
        )
        if higher.any() or any(map(_ABOVE, rows)):
            above = higher[uses.lane_numbers] if len(uses.lanes) else np.zeros(0, dtype=np.bool_)
            used, rate = _later(orders, above, uses, [r.above for r in rows], [r.base_above for r in rows], size, columns)
            is_passed = (used > 1e-9) | (rate > 0)
            is_past_cap = waits >= queue.class_cap_s
            class_exempt += [jobs[number].id for number in np.nonzero(is_passed & is_past_cap)[0].tolist()]
            is_before_cap = is_passed & ~is_past_cap
            if is_before_cap.any():
                upcoming.append(now + float((queue.class_cap_s - waits[is_before_cap]).min()))
    # 1 ms later: with rounding a gang could be just below the threshold at `next_at`, and the same time would come again.
    next_at = min(upcoming) + 1e-3 if upcoming else None
    protected, overdue, strict = (frozenset(ids) for _, ids in stages)
    return Protection(overtaken, protected, overdue, strict, frozenset(class_exempt), next_at)


def _later(
    orders: npt.NDArray[np.int64],
    which: npt.NDArray[np.bool_],
    uses: _Uses,
    ended: Sequence[Seconds],
    base: Sequence[Seconds],
    size: Floats,
    columns: Mapping[str, int],
) -> tuple[Floats, Floats]:
    """Per order of submission: seconds of the whole room used by later gangs of ``which``, and the rate at which that grows."""
    after = np.searchsorted(uses.orders[which], orders, side="right")
    amounts = _from_end(uses.seconds[which])[after]
    if any(ended):
        amounts += _from_end(_matrix(ended, columns))[:-1]
    if any(base):
        amounts -= _matrix(base, columns)
    shares = _from_end(uses.shares[which])[after]
    return np.maximum((amounts * size).sum(axis=1), 0.0), (shares * size).sum(axis=1)
