"""Holds and EASY backfill: when a gang that does not fit will start, and whether another gang would delay it.

EASY backfill: Lifka, The ANL/IBM SP scheduling system, JSSPP 1995; with predicted ends: Tsafrir, Etsion, Feitelson, TPDS 2007.
The more a gang was overtaken, the less its hold trusts the predictions of gangs that want to backfill: first at face value, then
with a margin of one spread, in the end not at all, so that only run-time limits count.

The start of a large gang depends on many uncertain ends, some early and some late. Taking the median end of each misjudges their
sum. So the start is the time by which the *expected* free room is what is missing (`Releases.expected_by`): each running gang
counts with the probability that it has ended, given its age.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.ordering.run_times import corrected_end, corrected_ends, log_logistic, predicted_end, told_spreads
from tuttilab.scheduler.core.placement.fit import Counts, Demand, Fit, place_demand
from tuttilab.scheduler.core.placement.node_arrays import Amounts, NodeArrays
from tuttilab.scheduler.core.quota import counts_of
from tuttilab.scheduler.core.rules import EndEstimate
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.domain.model import Job, Prediction, Promise
from tuttilab.scheduler.domain.resources import Resources

Floats = npt.NDArray[np.float64]
NEVER: Final = 1e3
"""Logarithm of the predicted seconds of a run that has no known end."""
START_PRECISION: Final = 1e-3
"""Relative precision of a computed start."""


def end_of(runner: Running, now: float, end_estimate: EndEstimate = EndEstimate.PROBABILISTIC) -> float:
    """When a running gang is expected to end: at the end of its grace period if it is stopping, else by its prediction."""
    if runner.is_stopping:
        return now + runner.job.work.grace_s
    predicted = predicted_end if end_estimate is EndEstimate.PROBABILISTIC else corrected_end
    return predicted(runner.started_at, runner.prediction, runner.job.timeout_s, now)


@dataclass(frozen=True, slots=True)
class EndDistribution:
    """Distribution of the ends of running gangs, one element per gang: log-logistic run times, given the age of each."""

    log_middle: Floats
    """Logarithm of the predicted seconds."""
    shape: Floats
    age_s: Floats
    odds: Floats
    """Odds, by the prediction alone, of having ended by this age."""
    certain_s: Floats
    """Seconds from now after which its run-time limit or grace period has ended it in any case."""
    ends: Floats
    """`end_of` of each gang, as service time."""

    @classmethod
    def of(cls, running: Sequence[Running], now: float) -> EndDistribution:
        predictions = [runner.prediction for runner in running]
        started = np.array([runner.started_at for runner in running])
        limits = np.array([inf if runner.job.timeout_s is None else runner.job.timeout_s for runner in running])
        seconds = np.array([prediction.seconds for prediction in predictions])
        certain, ends = np.maximum(started + limits - now, 0.0), started + seconds
        ends = np.minimum(np.where(ends <= now, now + (now - started), ends), np.maximum(started + limits, now))
        for number, runner in enumerate(running):
            if runner.is_stopping:
                certain[number], ends[number] = runner.job.work.grace_s, now + runner.job.work.grace_s
        shape = log_logistic(np.array([prediction.spread for prediction in predictions]))
        middle, age = np.log(seconds), np.maximum(now - started, 1e-6)
        return cls(middle, shape, age, _odds(shape, middle, age), certain, ends)

    def told(self, running: Sequence[Running]) -> EndDistribution:
        """The same for what users are told: a run of which nothing is known ends at its limit only (`told_spread`)."""
        spreads = told_spreads((runner.prediction, runner.job) for runner in running)
        is_known = np.isfinite(spreads)
        middle = np.where(is_known, self.log_middle, NEVER)
        shape = log_logistic(np.where(is_known, spreads, 1.0))
        return replace(self, log_middle=middle, shape=shape, odds=_odds(shape, middle, self.age_s))

    def take(self, numbers: Sequence[int] | npt.NDArray[np.intp]) -> EndDistribution:
        """The elements at these indexes, repeated as often as given."""
        chosen = np.array(numbers, dtype=np.intp)
        columns = (self.log_middle, self.shape, self.age_s, self.odds, self.certain_s, self.ends)
        return EndDistribution(*(column[chosen] for column in columns))

    def ended_probability(self, seconds: float) -> Floats:
        """The probability that each gang has ended ``seconds`` from now."""
        survives = (1 + self.odds) / (1 + _odds(self.shape, self.log_middle, self.age_s + seconds))
        return np.where(seconds >= self.certain_s, 1.0, 1 - survives)

    def ended_by(self, seconds: Floats) -> Floats:
        """`ended_probability` at several times: a row per time, a column per gang."""
        later = seconds[:, None]
        known = np.nonzero(self.log_middle < NEVER)[0]  # the others end at their limits only
        if len(known) == len(self.shape):
            found = self._ended_before_limits(later)
        else:
            found = np.zeros((len(seconds), len(self.shape)))
            if len(known):
                found[:, known] = self.take(known)._ended_before_limits(later)
        found[later >= self.certain_s] = 1.0
        return found

    def _ended_before_limits(self, later: Floats) -> Floats:
        """As `ended_probability`. In place, because the table of a large site has a million elements."""
        table: Floats = self.age_s + later
        np.log(table, out=table)
        table -= self.log_middle
        table *= self.shape
        np.minimum(table, 600.0, out=table)
        np.exp(table, out=table)
        table += 1
        np.divide(1 + self.odds, table, out=table)
        return np.subtract(1, table, out=table)

    def both_ended_by(self, running: Sequence[Running], seconds: Floats) -> tuple[Floats, Floats]:
        """`ended_by` of these gangs, and the same for what users are `told`."""
        ended, told = self.ended_by(seconds), self.told(running)
        late = ended.copy()
        differ = np.nonzero((told.log_middle != self.log_middle) | (told.shape != self.shape))[0]
        if len(differ):
            late[:, differ] = told.take(differ).ended_by(seconds)
        return ended, late


def _odds(shape: Floats, log_middle: Floats, after_s: Floats) -> Floats:
    return np.exp(np.minimum(shape * (np.log(after_s) - log_middle), 600.0))


def _corrected_ends(running: Sequence[Running], now: float) -> list[float]:
    """`end_of` of each by corrected predictions."""
    started = np.array([runner.started_at for runner in running])
    limits = np.array([inf if runner.job.timeout_s is None else runner.job.timeout_s for runner in running])
    seconds = np.array([runner.prediction.seconds for runner in running])
    ends: list[float] = corrected_ends(started, seconds, limits, now).tolist()
    for number, runner in enumerate(running):
        if runner.is_stopping:
            ends[number] = now + runner.job.work.grace_s
    return ends


@dataclass(slots=True)
class _PodSizes:
    """Table of the distinct pod sizes: there are few, so each is converted to a row once."""

    arrays: NodeArrays
    numbers: dict[object, int] = field(default_factory=dict)
    rows: list[Amounts] = field(default_factory=list)

    def number(self, size: Resources) -> int:
        """The row of the size; -1 if no node has one of its resources."""
        number = self.numbers.get(size.amounts)
        if number is None:
            row = self.arrays.vector(size)
            number = self.numbers[size.amounts] = -1 if row is None else len(self.rows)
            self.rows += [] if row is None else [row]
        return number

    def table(self) -> Amounts:
        return np.array(self.rows, dtype=np.int64).reshape(len(self.rows), len(self.arrays.keys))


@dataclass(frozen=True, slots=True)
class Releases:
    """What the running gangs of one cluster release and when: one row per pod, first to end first."""

    ends: Floats
    rows: npt.NDArray[np.intp]
    amounts: Amounts
    now: float
    distribution: EndDistribution | None = None
    """One element per pod; None if ends are taken as predicted."""
    jobs: tuple[str, ...] = ()
    """Of each pod."""

    @classmethod
    def of(
        cls, arrays: NodeArrays, running: Iterable[Running], now: float, end_estimate: EndEstimate = EndEstimate.PROBABILISTIC
    ) -> Releases:
        here = [runner for runner in running if runner.cluster == arrays.cluster.name]
        distribution = EndDistribution.of(here, now) if end_estimate is EndEstimate.PROBABILISTIC else None
        ends = distribution.ends.tolist() if distribution is not None else _corrected_ends(here, now)
        row_of, kinds = arrays.index.get, _PodSizes(arrays)
        pods = [
            (end, number, row_of(key[1], -1), kinds.number(amount))
            for end, _, number in sorted(zip(ends, [runner.job.id for runner in here], range(len(here)), strict=True))
            for key, amount in here[number].allocations
        ]
        known = [pod for pod in pods if pod[2] >= 0 and pod[3] >= 0]
        when, numbers, rows, sizes = zip(*known, strict=True) if known else ((), (), (), ())
        amounts = kinds.table()[np.array(sizes, dtype=np.intp)]
        return cls(
            np.array(when),
            np.array(rows, dtype=np.intp),
            amounts,
            now,
            distribution.take(numbers) if distribution is not None else None,
            tuple(here[number].job.id for number in numbers),
        )

    def shares(self) -> Floats:
        """Dominant share of each pod in what all of them hold."""
        found: Floats = (self.amounts / np.maximum(self.amounts.sum(axis=0), 1)).max(axis=1)
        return found

    def expected_by(self, count: int) -> float:
        """When the expected free room reaches what the first ``count`` pods hold, each counted by its dominant share of all rows.

        Of the last pod half is enough: a single pod is then expected to end at its median, not when its end is certain.
        """
        if not count:
            return self.now
        if self.distribution is None:
            return float(self.ends[count - 1])
        shares = self.shares()
        missing = float(shares[:count].sum()) - float(shares[count - 1]) / 2
        low, high = 0.0, max(float(self.ends[count - 1]) - self.now, 1.0)
        while float(self.distribution.ended_probability(high) @ shares) < missing and high < 1e12:
            low, high = high, high * 2
        while high - low > START_PRECISION * high:
            middle = (low + high) / 2
            if float(self.distribution.ended_probability(middle) @ shares) < missing:
                low = middle
            else:
                high = middle
        return self.now + high

    def free_after(self, free: Amounts, count: int) -> Amounts:
        """Free room after the first ``count`` pods have ended."""
        future = free.copy()
        np.add.at(future, self.rows[:count], self.amounts[:count])
        return future


@dataclass(slots=True)
class Hold:
    """Room kept on ``cluster`` for ``job``, which is expected to start at ``start``."""

    job: Job
    cluster: str
    start: float
    after: Amounts
    """Free room at ``start`` once the held gang has been placed: what other gangs may still use then."""
    is_protected: bool = False
    is_entitled: bool = False
    """Whether its gang asks for no more than its queue is guaranteed."""
    margin: float | None = 0.0
    """How far the predictions of backfilling gangs are trusted (`latest_end`)."""
    holder_rank: tuple[bool, int, int] = (True, 0, 0)
    """The holder's `candidates.Candidate.protected_rank`."""
    blocks_all: bool = False
    """Whether no gang may backfill (strict order)."""
    pods_to_end: int = 0
    """How many pods of running gangs, first to end first, have to end before it starts."""
    releases: Releases | None = None
    """Those pods."""

    def allows(self, used: Amounts, ends_at: float, is_trial: bool = False) -> bool:
        """Whether a gang that takes ``used`` until ``ends_at`` leaves the held gang's start as it is.

        Unless ``is_trial``, room that it takes past ``start`` is subtracted from ``after``.
        """
        if self.blocks_all:
            return False
        if ends_at <= self.start:
            return True
        left = self.after - used
        if bool(((left < 0) & (used > 0)).any()):
            return False
        if not is_trial:
            self.after = left
        return True

    def promise_of(self, job: Job, prediction: Prediction, now: float) -> Promise:
        """Why another gang that starts now does not delay the held one."""
        if latest_end(job, prediction, now, self.margin) > self.start:
            return Promise.SPARE
        return Promise.LIMIT if self.margin is None else Promise.SPREAD if self.margin else Promise.PREDICTION


def latest_end(job: Job, prediction: Prediction, now: float, margin: float | None) -> float:
    """The end that a hold assumes for the job if it starts now: after prediction x spread ^ ``margin``, or its run-time limit.

    With ``margin`` None only its run-time limit counts; without a limit the end is infinite.
    """
    limit_s = job.timeout_s if job.timeout_s is not None else inf
    return now + (limit_s if margin is None else min(prediction.seconds * float(prediction.spread**margin), limit_s))


def hold_for(job: Job, demand: Demand, arrays: NodeArrays, free: Amounts, releases: Releases, counts: Counts | None) -> Hold | None:
    """The hold with the earliest start of ``job`` as running gangs end; None if it does not fit even after all of them.

    Found by bisection, as room only grows when gangs end. With uncertain ends, other gangs may use only room that is free now and
    not needed by ``job``: room that is still to come may come late, and using it would delay the held gang.
    """
    low, high = 0, len(releases.ends)
    best = releases.free_after(free, high)
    if not isinstance(place_demand(demand, arrays, best, counts, False), Fit):
        return None
    while low < high:
        middle = (low + high) // 2
        trial = releases.free_after(free, middle)
        if isinstance(place_demand(demand, arrays, trial, counts, False), Fit):
            high, best = middle, trial
        else:
            low = middle + 1
    if releases.distribution is not None:
        taken = releases.free_after(free, high) - best
        best = np.maximum(free - taken, 0)
    return Hold(job, arrays.cluster.name, releases.expected_by(high), best, pods_to_end=high, releases=releases)


@dataclass(slots=True)
class QuotaHold:
    """Quota of a queue kept for ``job`` from ``start`` on: past that time other gangs may use only ``spare``."""

    job: Job
    start: float
    spare: dict[str, int]
    """By short resource or count: what is left at ``start`` after the held gang."""
    margin: float | None

    def allows(self, charge: Resources, ends_at: float, is_trial: bool = False) -> bool:
        """As `Hold.allows`, for quota. ``charge``: resources and counts of the gang that would start now."""
        if ends_at <= self.start:
            return True
        if any(charge[key] > left for key, left in self.spare.items() if charge[key]):
            return False
        if not is_trial:
            for key in self.spare:
                self.spare[key] -= charge[key]
        return True


def quota_hold(
    job: Job,
    over: Resources,
    running: Iterable[Running],
    now: float,
    margin: float | None,
    end_estimate: EndEstimate = EndEstimate.PROBABILISTIC,
) -> QuotaHold | None:
    """The hold from the time when the running gangs of a full queue will have released ``over``; None if they never will."""
    freed = dict.fromkeys([key for key, _ in over], 0)
    for end, _, runner in sorted((end_of(r, now, end_estimate), r.job_id, r) for r in running):
        released = runner.charge + counts_of(runner.pods)
        for key in freed:
            freed[key] += released[key]
        if all(freed[key] >= amount for key, amount in over):
            return QuotaHold(job, end, {key: freed[key] - amount for key, amount in over}, margin)
    return None


def quota_hold_beside(
    hold: Hold,
    left: Mapping[str, int],
    needs: Resources,
    running: Iterable[Running],
    now: float,
    end_estimate: EndEstimate = EndEstimate.PROBABILISTIC,
) -> QuotaHold:
    """The quota hold that goes with a hold on room, for one queue on the gang's path.

    Its spare quota is ``left`` now, plus what running gangs release until the start, minus the ``needs`` of the held gang.
    """
    released = [runner.charge + counts_of(runner.pods) for runner in running if end_of(runner, now, end_estimate) <= hold.start]
    spare = {key: amount - needs[key] + sum(each[key] for each in released) for key, amount in left.items()}
    return QuotaHold(hold.job, hold.start, spare, hold.margin)
