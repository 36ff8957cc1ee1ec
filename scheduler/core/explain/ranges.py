"""The range in which a gang's start is told, and what was told before: that stays told until something moved it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.backfill import EndDistribution, Floats, Hold, Releases
from tuttilab.scheduler.core.explain.forecast import DEVIATIONS
from tuttilab.scheduler.core.quota import Shortage, counts_of
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.working_set import WorkingSet

FINE_TIMES: Final = np.concatenate([[0.0], np.geomspace(1.0, 90 * 86400.0, 120)])
"""Seconds from now at which the ends of running gangs are summed up for the one gang with the hold."""
CLEARLY_SOONER: Final = 0.5
"""A range is told anew if the time until its end is at most this part of what was told."""
WIDEST: Final = 30.0
"""The latest start that is told is at most so many times as far as the earliest."""
LEAST_CHANGE_S: Final = 60.0
"""Sooner by less than this is not told anew."""


@dataclass(frozen=True, slots=True)
class FreedRoom:
    """What some running gangs free. ``shares``: of each of their pods; ``most`` and ``least``: of all, by `FINE_TIMES`."""

    shares: Floats
    most: Floats
    least: Floats


@dataclass(slots=True)
class EndTable:
    """By `FINE_TIMES` and gang, the probability that it has ended; and the same as far as something is known of it.

    Computed once for all ``running`` gangs of a cycle, because many a reason is about some of them.
    """

    running: Sequence[Running]
    ends: EndDistribution
    _tables: tuple[Floats, Floats] | None = None
    _columns: dict[str, int] = field(default_factory=dict)
    _freed: dict[int, tuple[Releases, FreedRoom]] = field(default_factory=dict)
    """By identity of what is released, which is kept for that: many holds wait for the same."""

    def freed_by(self, releases: Releases) -> FreedRoom:
        """What gangs that run free of what ``releases`` names."""
        known = self._freed.get(id(releases))
        if known is None:
            shares = releases.shares()
            column = self._column_of()
            columns = np.array([column[job_id] for job_id in releases.jobs], dtype=np.intp)
            chosen = np.unique(columns)
            amounts = np.bincount(columns, shares)[chosen].astype(np.float64)
            room = FreedRoom(shares, *_sums(self._take(chosen), amounts))
            known = self._freed[id(releases)] = releases, room
        return known[1]

    def of(self, running: Sequence[Running]) -> tuple[Floats, Floats]:
        """The columns of these gangs, which are some of those of the table."""
        column = self._column_of()
        return self._take(np.array([column[runner.job_id] for runner in running], dtype=np.intp))

    def _column_of(self) -> dict[str, int]:
        if not self._columns:
            self._columns = {runner.job_id: column for column, runner in enumerate(self.running)}
        return self._columns

    def _take(self, chosen: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        if self._tables is None:
            self._tables = self.ends.both_ended_by(self.running, FINE_TIMES)
        early, late = self._tables
        if len(chosen) == early.shape[1] and np.array_equal(chosen, np.arange(len(chosen))):
            return early, late
        return np.take(early, chosen, axis=1), np.take(late, chosen, axis=1)


def first_end(running: Sequence[Running], ends: EndTable) -> tuple[float, float]:
    """Seconds until the first of the running gangs ends, at the earliest and at the latest; infinite if nobody knows."""
    if not running:
        return inf, inf
    early, late = ends.of(running)
    is_none_ended = np.prod(1 - early, axis=1), np.prod(1 - late, axis=1)
    return _crossing(0.9 - is_none_ended[0]), _crossing(0.1 - is_none_ended[1])


def hold_range(working_set: WorkingSet, hold: Hold, ends: EndTable) -> tuple[float, float]:
    """Seconds until the room of the hold is free, at the earliest and at the latest; infinite if nobody knows."""
    now, releases = working_set.now, hold.releases
    if releases is None or not hold.pods_to_end:
        return max(hold.start - now, 0.0), max(hold.start - now, 0.0)
    room = ends.freed_by(releases)
    missing = float(room.shares[: hold.pods_to_end].sum()) - float(room.shares[hold.pods_to_end - 1]) / 2
    return _when_freed(room.most, room.least, missing)


def quota_range(running: Sequence[Running], shortage: Shortage, predicted: Sequence[float], ends: EndTable) -> tuple[float, float]:
    """The same for quota: seconds until the gangs that use it have released what is short. ``predicted``: the end of each."""
    ranges = [(0.0, 0.0)]
    for key, over in shortage.over + shortage.counted:
        amounts = np.array([float((runner.charge + counts_of(runner.pods))[key]) for runner in running])
        released = 0.0
        for number in np.argsort(predicted, kind="stable"):
            released += amounts[number]
            if released >= over:
                ranges.append(_when_freed(*_sums(ends.of(running), amounts), released - amounts[number] / 2))
                break
        else:
            return inf, inf
    return max(early for early, _ in ranges), max(late for _, late in ranges)


def _sums(ended: tuple[Floats, Floats], amounts: Floats) -> tuple[Floats, Floats]:
    """What the running gangs have freed by `FINE_TIMES`, at the most and at the least."""
    early, late = ended
    scatter = DEVIATIONS * np.sqrt((late * (1 - late)) @ amounts**2)
    return early @ amounts + scatter, late @ amounts - scatter


def _when_freed(most: Floats, least: Floats, missing: float) -> tuple[float, float]:
    """When ``missing`` is freed, at the earliest and at the latest."""
    return _crossing(most - missing), _crossing(least - missing)


def _crossing(reached: Floats) -> float:
    """The time from which on the value is not negative; infinite if it is at the end."""
    below = np.nonzero(reached < 0)[0]
    if not len(below):
        return 0.0
    last = int(below[-1])
    if last + 1 >= len(reached):
        return inf
    part = -reached[last] / max(reached[last + 1] - reached[last], 1e-12)
    return float(FINE_TIMES[last] + part * (FINE_TIMES[last + 1] - FINE_TIMES[last]))
