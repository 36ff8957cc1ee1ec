"""When each waiting gang will probably start: the room-time that becomes free, compared with what the gangs before it will use.

By a time ``t`` from now, the room offers the integral of what is free (now, and as running gangs end), and each gang before in line
uses the expected part of its run time that falls within ``t``. A gang starts when the offer reaches the use. This is computed for
two orders: the line of the cycle, in which gangs submitted later may still go first, and the order of submission, which protection
enforces for gangs that were overtaken enough. The first is right for a gang near the head, the second for one far from it: the
later the first estimate, the more gangs will still go first. So the two are weighted by the square root of their quotient. Where a
queue is short of one of its limits, the same is computed for that limit, and the gang starts at the later of the two times.

Room that is free in parts of nodes is of no use to a gang whose pods want whole ones, and others start beside it while a node
empties: so in both orders gangs that are not wide (`are_wide`) come first, and the errors of the two are learnt apart
(`StartKind.WIDE`).

Offer and use are sums of many run times, so both have a variance. The earliest and the latest start are where the offer reaches the
use if both are off by `DEVIATIONS`. For the latest, a run of which nothing is known ends at its limit only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.backfill import EndDistribution, Floats
from tuttilab.scheduler.core.candidates import Candidate, CandidateArrays
from tuttilab.scheduler.core.ordering.run_times import log_logistic
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.quota import JOBS, PODS, counts_of
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.resources import Resources

TIMES: Final = np.concatenate([[0.0], np.geomspace(10.0, 90 * 86400.0, 27)])
"""Seconds from now at which offer and use are summed up; linear in between."""
SOONEST_S: Final = 1.0
AT_ONCE: Final = 4096
"""Gangs whose use is summed up in one array, which bounds the memory."""
WIDE: Final = 0.5
"""The part of a node that a pod asks for from which on free room that is scattered over nodes is of no use to it."""
DEVIATIONS: Final = 1.5
"""Standard deviations from the expected offer and use to those of the earliest and the latest start."""


def predicted_starts(working_set: WorkingSet, waiting: Sequence[Candidate], arrays: CandidateArrays, spreads: Floats) -> Floats:
    """Seconds from now until each waiting gang starts, in rows: expected, at the earliest, at the latest; infinite beyond `TIMES`.

    ``arrays``: of these gangs; ``spreads``: `told_spread` of each.
    """
    offers = _offers_of_room(working_set)
    needs = _Needs.of(arrays, spreads)
    wide = are_wide(arrays)
    by_line = needs.starts(offers, np.lexsort((np.array([c.place for c in waiting]), wide)))
    exempt_last = np.array([not c.is_class_exempt for c in waiting])
    by_submission = needs.starts(offers, np.lexsort((np.array([c.job.order for c in waiting]), wide, exempt_last)))
    overtaking = max(queue.overtaking for queue in working_set.snapshot.queues.values())
    latest = by_submission / max(1 - overtaking, 0.1)
    after = _between(np.maximum(by_line, SOONEST_S), np.maximum(latest, SOONEST_S))
    for rows, later in _by_limits(working_set, waiting, arrays, spreads):
        after[:, rows] = np.maximum(after[:, rows], later)
    return after


def are_wide(arrays: CandidateArrays) -> npt.NDArray[np.bool_]:
    """Whether a pod of the gang wants so much of a node that others start beside it while one empties."""
    wide: npt.NDArray[np.bool_] = arrays.widest >= WIDE
    return wide


def _by_limits(
    working_set: WorkingSet, waiting: Sequence[Candidate], arrays: CandidateArrays, spreads: Floats
) -> Iterator[tuple[npt.NDArray[np.intp], Floats]]:
    """For each limit that is short: indexes of the gangs below its queue, and when the limit lets each of them start (3 rows)."""
    for step in working_set.snapshot.queues.values():
        limits = {key: most for key, most in step.max if most}
        limits |= {key: most for key, most in ((JOBS, step.max_jobs), (PODS, step.max_pods)) if most}
        if not limits:
            continue
        below = working_set.queues_below(step.name)
        numbers = [number for number, candidate in enumerate(waiting) if candidate.job.queue in below]
        running = [runner for runner in working_set.running if runner.queue in below]
        asked = {id(waiting[number].shape): _asked(waiting[number].shape) for number in numbers}
        for key, most in limits.items():
            wanting = np.array([n for n in numbers if 0 < asked[id(waiting[n].shape)][key] <= most], dtype=np.intp)
            shares = np.array([asked[id(waiting[number].shape)][key] / most for number in wanting])
            used = np.array([(runner.charge + counts_of(runner.pods))[key] / most for runner in running])
            if shares.sum() + used.sum() <= 1:
                continue
            these = [waiting[number] for number in wanting]
            needs = _Needs.of(replace(arrays.rows(wanting), share=shares), spreads[wanting])
            ends = EndDistribution.of(running, working_set.now)
            offers = _Offers.of(max(1 - float(used.sum()), 0.0), running, used, ends)
            order = np.argsort([candidate.place for candidate in these], kind="stable")
            yield wanting, needs.starts(offers, order)


def _asked(shape: Shape) -> Resources:
    """What a limit would count of a gang of this shape."""
    charge = shape.charges[shape.clusters[0].name] if shape.clusters else shape.job.gang.resources
    return charge + counts_of(shape.pods)


def _between(line: Floats, latest: Floats) -> Floats:
    """The estimate by line for gangs near the head; the later that is, the nearer to the other estimate."""
    with np.errstate(invalid="ignore"):
        weight = np.sqrt(line / latest)
        blend = np.exp((1 - weight) * np.log(line) + weight * np.log(latest))
    return np.where(np.isfinite(line) & np.isfinite(latest) & (line < latest), blend, np.minimum(line, latest))


def _offers_of_room(working_set: WorkingSet) -> _Offers:
    """What the running gangs of all clusters will free, as shares of the site."""
    node_arrays = working_set.room.node_arrays
    parts = {name: arrays.total.dominant_share(working_set.site) for name, arrays in node_arrays.items()}
    used = dict.fromkeys(node_arrays, 0.0)
    running = [runner for runner in working_set.running if runner.cluster in parts]
    for runner in running:
        used[runner.cluster] += runner.share
    free = sum(parts[name] * max(1 - share, 0.0) for name, share in used.items())
    shares = np.array([runner.share * parts[runner.cluster] for runner in running])
    ends = working_set.ends() if len(running) == len(working_set.running) else EndDistribution.of(running, working_set.now)
    return _Offers.of(free, running, shares, ends)


def _cumulative(rate: Floats) -> Floats:
    steps = np.diff(TIMES) * (rate[..., 1:] + rate[..., :-1]) / 2
    return np.concatenate([np.zeros((*rate.shape[:-1], 1)), np.cumsum(steps, axis=-1)], axis=-1)


@dataclass(frozen=True, slots=True)
class _Offers:
    """What becomes free, by `TIMES`, in rows: as expected, at the earliest, at the latest."""

    free: Floats
    offered: Floats
    """Integral of the expected free room; in the last row, runs of which nothing is known end at their limits."""
    variance: Floats
    """Of the integral; one row."""

    @classmethod
    def of(cls, free: float, running: Sequence[Running], shares: Floats, ends: EndDistribution) -> _Offers:
        """``shares``: what each running gang frees when it ends, of the whole that is offered."""
        if not running:
            rows = np.full((3, len(TIMES)), free)
            return cls(rows, _cumulative(rows), np.zeros(len(TIMES)))
        ended, late = ends.both_ended_by(running, TIMES)
        means = free + np.stack([ended @ shares, ended @ shares, late @ shares])
        scatter = DEVIATIONS * np.sqrt((late * (1 - late)) @ shares**2)
        most = free + float(shares.sum())
        curves = np.clip(np.stack([means[0], means[1] + scatter, means[2] - scatter]), 0.0, most)
        # By a time t, a gang has freed its share for t - (its end) seconds.
        first = _cumulative(late.T)
        second = 2 * (TIMES * first - _cumulative(late.T * TIMES))
        variance = np.maximum((shares**2) @ (second - first**2), 0.0)
        return cls(np.maximum.accumulate(curves, axis=1), _cumulative(means), variance)


@dataclass(frozen=True, slots=True)
class _Needs:
    """What waiting gangs would use, by kind: gangs of equal share, prediction and limit are of one kind."""

    kinds: npt.NDArray[np.intp]
    share: Floats
    used: Floats
    """A row per kind: room-seconds that a gang started now is expected to have used by each of `TIMES`."""
    most: Floats
    """The same where a run of which nothing is known goes on until its limit."""
    variance: Floats

    @classmethod
    def of(cls, arrays: CandidateArrays, spreads: Floats) -> _Needs:
        """``spreads``: `told_spread` of each."""
        columns = np.array([arrays.share, arrays.seconds, arrays.spread, arrays.limit, spreads])
        count = columns.shape[1]
        ranked = np.lexsort(columns)
        is_new = np.ones(count, dtype=np.bool_)
        is_new[1:] = (columns[:, ranked[1:]] != columns[:, ranked[:-1]]).any(axis=0)
        kinds = np.empty(count, dtype=np.intp)
        kinds[ranked] = np.cumsum(is_new) - 1
        share, middle, spread, limit, told = columns[:, ranked[is_new]]
        runs = _survival(middle, spread, limit)
        is_known = np.isfinite(told)
        known = _survival(middle, np.where(is_known, told, spread), limit)
        late = np.where(is_known[:, None], known, TIMES[None, :] < limit[:, None])
        first = _cumulative(late)
        second = 2 * _cumulative(late * TIMES)
        return cls(
            kinds,
            share,
            share[:, None] * _cumulative(runs),
            share[:, None] * first,
            share[:, None] ** 2 * np.maximum(second - first**2, 0.0),
        )

    def starts(self, offers: _Offers, order: npt.NDArray[np.intp]) -> Floats:
        """Seconds from now at which each gang starts: when all before it in ``order`` are served, or earlier beside all of them.

        Three rows: expected, earliest, latest. Infinite beyond `TIMES`.
        """
        found = np.empty((3, len(order)))
        before = np.zeros((3, len(TIMES)))
        for begin in range(0, len(order), AT_ONCE):
            part = order[begin : begin + AT_ONCE]
            kinds = self.kinds[part]
            # One row per gang: what the gangs before it use; the last row: what all of this part use.
            expected, most, variance = (
                _running_sums(each, kinds, start) for each, start in zip((self.used, self.most, self.variance), before, strict=True)
            )
            before = np.array([expected[-1], most[-1], variance[-1]])
            scatter = DEVIATIONS * np.sqrt(variance[:-1] + offers.variance)
            # The room that the gang itself needs has to become free as well.
            own = self.share[kinds][:, None] * np.minimum(TIMES, 1.0)
            missing = expected[:-1] - offers.offered[0] + own
            found[0, part] = _first_crossing(missing)
            # What is offered at the earliest is what is expected, before its scatter.
            missing -= scatter
            found[1, part] = _first_crossing(missing)
            np.subtract(most[:-1], offers.offered[2], out=missing)
            missing += own
            missing += scatter
            found[2, part] = _first_crossing(missing)
        needed = np.cumsum(self.share[self.kinds[order]])
        beside = np.empty((3, len(order)))
        for row in range(3):
            beside[row, order] = np.interp(needed, offers.free[row], TIMES, right=inf)
        return np.minimum(found, beside)


def _survival(middle: Floats, spread: Floats, limit: Floats) -> Floats:
    """The probability, by `TIMES`, that a run started now goes on: a row per run."""
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.exp(np.minimum(log_logistic(spread)[:, None] * np.log(TIMES[None, :] / middle[:, None]), 600.0))
    return np.where(TIMES[None, :] < limit[:, None], 1 / (1 + odds), 0.0)


def _running_sums(rows: Floats, kinds: npt.NDArray[np.intp], start: Floats) -> Floats:
    """The sum of ``start`` and the rows of the kinds before each, and of all of them in the last."""
    sums = np.empty((len(kinds) + 1, len(TIMES)))
    sums[0] = start
    np.cumsum(np.take(rows, kinds, axis=0), axis=0, out=sums[1:])
    sums[1:] += start
    return sums


def _first_crossing(missing: Floats) -> Floats:
    """The time at which each row first falls to zero or below, linear between `TIMES`.

    The first column does not count: it is zero in all rows, as nothing was used or offered yet.
    """
    is_served = missing <= 0
    is_served[:, 0] = False
    column = is_served.argmax(axis=1)
    rows = np.arange(len(missing))
    after, at = missing[rows, column], TIMES[column]
    earlier = np.maximum(column - 1, 0)
    previous = missing[rows, earlier]
    gap = np.maximum(previous - after, 1e-12)
    crossing = np.where(column > 0, TIMES[earlier] + (at - TIMES[earlier]) * np.clip(previous / gap, 0, 1), at)
    return np.where(is_served.any(axis=1), crossing, np.inf)
