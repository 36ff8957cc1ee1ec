"""Which waiting gangs are protected now, and when the next one will be: the accounts of `accounts.py` read at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.accounts import Lane, Seconds, Use, is_above
from tuttilab.scheduler.model import Job, Overtaking, Queue

EARLY: Final = 2 / 3
OVERDUE: Final = 1.0
STRICT: Final = 2.0
"""Multiples of the allowance at which a gang is protected, so that it may start in time; at which its hold takes predictions of
those that want to pass with a margin of one spread; and at which it trusts none. Trusting none from the beginning drains the
cluster so often that everybody waits longer (docs/scheduling-proof.md has the figures)."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Protection:
    """Of the gangs that wait: seconds of the whole room by which each was overtaken, who is protected, who is lifted."""

    overtaken_s: Mapping[str, float] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()
    """Overtaken by two thirds of their allowance: they go in order of submission, and the first that does not fit has the hold."""
    overdue: frozenset[str] = frozenset()
    """Overtaken by all of it: what passes them has to end in time even if it takes a spread longer than predicted."""
    strict: frozenset[str] = frozenset()
    """Overtaken by twice it: nothing passes them on the strength of a prediction."""
    lifted: frozenset[str] = frozenset()
    """Passed by higher classes for as long as the cap allows."""
    next_at: float | None = None
    """When the next gang will be protected or lifted if nothing else happens."""


@dataclass(frozen=True, slots=True)
class _Uses:
    """What runs, as arrays: sorted by order of submission."""

    orders: npt.NDArray[np.int64]
    lanes: Sequence[Lane]
    lane_numbers: npt.NDArray[np.int64]
    seconds: Floats
    """Room-seconds so far, a column a cluster."""
    shares: Floats


def _uses(in_use: Iterable[Use], columns: Mapping[str, int]) -> _Uses:
    uses = sorted((use for use in in_use if use.cluster in columns), key=lambda use: use.order)
    lanes = sorted({use.lane for use in uses})
    numbers = {lane: number for number, lane in enumerate(lanes)}
    seconds = np.zeros((len(uses), len(columns)))
    shares = np.zeros_like(seconds)
    for row, use in enumerate(uses):
        seconds[row, columns[use.cluster]] = use.share * use.seconds
        shares[row, columns[use.cluster]] = use.share
    return _Uses(
        np.array([use.order for use in uses], dtype=np.int64),
        lanes,
        np.array([numbers[use.lane] for use in uses], dtype=np.int64),
        seconds,
        shares,
    )


def _from_end(amounts: Floats) -> Floats:
    """Sums from each row to the end, and a last row of zeros."""
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
    in_use: Iterable[Use],
    queues: Mapping[str, Queue],
    weights: Mapping[str, float],
    usable: Mapping[str, frozenset[str]],
    now: float,
) -> Protection:
    """``weights``: each cluster's part of the site's room. ``usable``: the clusters of a job that may not use all of them.

    Room is that of the clusters a gang may use, so an account is the mean of the clusters' room-seconds by their weights.
    """
    columns = {name: column for column, name in enumerate(sorted(weights))}
    if not columns:
        return Protection()
    uses = _uses(in_use, columns)
    sizes = np.array([weights[name] for name in sorted(weights)])
    lanes: dict[Lane, list[Job]] = {}
    for job in waiting:
        lanes.setdefault((job.queue, job.priority), []).append(job)
    overtaken: dict[str, float] = {}
    reached: dict[float, list[str]] = {EARLY: [], OVERDUE: [], STRICT: []}
    lifted: list[str] = []
    upcoming: list[float] = []
    for lane, jobs in lanes.items():
        queue = queues.get(lane[0])
        if queue is None:
            continue
        jobs.sort(key=attrgetter("order"))
        rows = [accounts.get(job.id) or Overtaking(job.id, job.submitted_at) for job in jobs]
        waits = now - np.array([row.since for row in rows])
        size = np.tile(sizes, (len(jobs), 1))
        for number, job in enumerate(jobs if usable else ()):
            if job.id in usable:
                size[number, [c for name, c in columns.items() if name not in usable[job.id]]] = 0.0
        size /= np.maximum(size.sum(axis=1, keepdims=True), 1e-12)
        orders = np.array([job.order for job in jobs], dtype=np.int64)

        own = uses.lane_numbers == uses.lanes.index(lane) if lane in uses.lanes else np.zeros(len(uses.orders), dtype=np.bool_)
        seconds, rate = _later(orders, own, uses, [row.later for row in rows], [row.base for row in rows], size, columns)
        allowance = queue.overtaking * waits + queue.overtaking_s
        overtaken.update(zip((job.id for job in jobs), seconds.tolist(), strict=True))
        for part, ids in reached.items():
            is_past = seconds > part * allowance
            ids += [jobs[number].id for number in np.nonzero(is_past)[0].tolist()]
            gains = ~is_past & (rate > part * queue.overtaking)
            if gains.any():
                left = (part * allowance - seconds)[gains] / (rate - part * queue.overtaking)[gains]
                upcoming.append(now + float(left.min()))

        higher = np.array([is_above(one, lane, queues) for one in uses.lanes], dtype=np.bool_)
        if higher.any() or any(row.above for row in rows):
            above = higher[uses.lane_numbers] if len(uses.lanes) else np.zeros(0, dtype=np.bool_)
            used, rate = _later(orders, above, uses, [r.above for r in rows], [r.base_above for r in rows], size, columns)
            is_passed = (used > 1e-9) | (rate > 0)
            old = waits >= queue.class_cap_s
            lifted += [jobs[number].id for number in np.nonzero(is_passed & old)[0].tolist()]
            young = is_passed & ~old
            if young.any():
                upcoming.append(now + float((queue.class_cap_s - waits[young]).min()))
    # A moment later, so that rounding never leaves a gang a hair short of protection and the clock standing still.
    next_at = min(upcoming) + 1e-3 if upcoming else None
    protected, overdue, strict = (frozenset(ids) for ids in reached.values())
    return Protection(overtaken, protected, overdue, strict, frozenset(lifted), next_at)


def _later(
    orders: npt.NDArray[np.int64],
    which: npt.NDArray[np.bool_],
    uses: _Uses,
    ended: Sequence[Seconds],
    base: Sequence[Seconds],
    size: Floats,
    columns: Mapping[str, int],
) -> tuple[Floats, Floats]:
    """Seconds of the whole room used by the gangs of ``which`` submitted after each of ``orders``, and how fast that grows."""
    after = np.searchsorted(uses.orders[which], orders, side="right")
    amounts = _from_end(uses.seconds[which])[after]
    if any(ended):
        amounts += _from_end(_matrix(ended, columns))[:-1]
    if any(base):
        amounts -= _matrix(base, columns)
    shares = _from_end(uses.shares[which])[after]
    return np.maximum((amounts * size).sum(axis=1), 0.0), (shares * size).sum(axis=1)
