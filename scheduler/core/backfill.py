"""The hold: when a gang that may start but does not fit will start, and whether another gang would delay it (EASY).

EASY backfill: Lifka, The ANL/IBM SP scheduling system, JSSPP 1995; with predicted ends: Tsafrir, Etsion, Feitelson, TPDS 2007.
The more a gang was overtaken, the less its hold trusts predictions of those that want to pass it: at face value first, then with
a margin of one spread, and in the end not at all: then only run-time limits count.

When room for a large gang will be free hangs on many uncertain ends, of which some come early and some late. Adding up the middles
of all of them misjudges their sum, so the start is the time by which as much room as is missing may be *expected* to be free
(`Releases.expected_by`): each running gang counts with the probability that it has ended, given how long it ran already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.estimates import corrected_end, log_logistic, predicted_end
from tuttilab.scheduler.core.layout import Amounts, Layout
from tuttilab.scheduler.core.placement import Counts, Demand, Fit, place_demand
from tuttilab.scheduler.core.quota import counts_of
from tuttilab.scheduler.core.rules import Expect
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.model import Job, Prediction
from tuttilab.scheduler.resources import Resources

Floats = npt.NDArray[np.float64]
EXACT: Final = 1e-3
"""A start is found to within this part of itself."""


def end_of(runner: Running, now: float, expect: Expect = Expect.LIKELY) -> float:
    """When a running gang is expected to end: one that is stopping by the end of its grace, others as history says."""
    if runner.is_stopping:
        return now + runner.job.work.grace_s
    predicted = predicted_end if expect is Expect.LIKELY else corrected_end
    return predicted(runner.started_at, runner.prediction, runner.job.timeout_s, now)


@dataclass(frozen=True, slots=True)
class Likely:
    """How probably each of some running gangs has ended by a time: log-logistic run times, given how long each ran already."""

    log_middle: Floats
    """Of seconds, as logarithms."""
    shape: Floats
    age_s: Floats
    odds: Floats
    """Of having ended at this age, had it not."""
    sure_s: Floats
    """Seconds from now after which its limit or its grace has ended it in any case."""
    ends: Floats
    """What `end_of` says of each: service time."""

    @classmethod
    def of(cls, running: Sequence[Running], now: float) -> Likely:
        guesses = [runner.prediction for runner in running]
        started = np.array([runner.started_at for runner in running])
        limits = np.array([inf if runner.job.timeout_s is None else runner.job.timeout_s for runner in running])
        seconds = np.array([guess.seconds for guess in guesses])
        sure, ends = np.maximum(started + limits - now, 0.0), started + seconds
        ends = np.minimum(np.where(ends <= now, now + (now - started), ends), np.maximum(started + limits, now))
        for number, runner in enumerate(running):
            if runner.is_stopping:
                sure[number], ends[number] = runner.job.work.grace_s, now + runner.job.work.grace_s
        shape = log_logistic(np.array([guess.spread for guess in guesses]))
        middle, age = np.log(seconds), np.maximum(now - started, 1e-6)
        return cls(middle, shape, age, _odds(shape, middle, age), sure, ends)

    def take(self, numbers: Sequence[int]) -> Likely:
        """Those of these numbers, each as often as it is named."""
        chosen = np.array(numbers, dtype=np.intp)
        columns = (self.log_middle, self.shape, self.age_s, self.odds, self.sure_s, self.ends)
        return Likely(*(column[chosen] for column in columns))

    def ended_in(self, seconds: float) -> Floats:
        """The probability of each to have ended ``seconds`` from now."""
        survives = (1 + self.odds) / (1 + _odds(self.shape, self.log_middle, self.age_s + seconds))
        return np.where(seconds >= self.sure_s, 1.0, 1 - survives)


def _odds(shape: Floats, log_middle: Floats, after_s: Floats) -> Floats:
    return np.exp(np.minimum(shape * (np.log(after_s) - log_middle), 600.0))


@dataclass(slots=True)
class _Kinds:
    """Pods are of few sizes: each once as a row of a table."""

    layout: Layout
    numbers: dict[object, int] = field(default_factory=dict)
    rows: list[Amounts] = field(default_factory=list)

    def number(self, size: Resources) -> int:
        """Its row; negative for one of which no node has anything."""
        number = self.numbers.get(size.amounts)
        if number is None:
            row = self.layout.vector(size)
            number = self.numbers[size.amounts] = -1 if row is None else len(self.rows)
            self.rows += [] if row is None else [row]
        return number

    def table(self) -> Amounts:
        return np.array(self.rows, dtype=np.int64).reshape(len(self.rows), len(self.layout.keys))


@dataclass(frozen=True, slots=True)
class Releases:
    """What the running gangs of one cluster give back and when, first to end first: one row a pod."""

    ends: Floats
    rows: npt.NDArray[np.intp]
    amounts: Amounts
    now: float
    likely: Likely | None = None
    """Of each pod; None where ends are taken as predicted."""

    @classmethod
    def of(cls, layout: Layout, running: Iterable[Running], now: float, how: Expect = Expect.LIKELY) -> Releases:
        here = [runner for runner in running if runner.cluster == layout.cluster.name]
        likely = Likely.of(here, now) if how is Expect.LIKELY else None
        ends = likely.ends.tolist() if likely is not None else [end_of(runner, now, how) for runner in here]
        row_of, kinds = layout.index.get, _Kinds(layout)
        pods = [
            (end, number, row_of(key[1], -1), kinds.number(amount))
            for end, _, number in sorted(zip(ends, [runner.job.id for runner in here], range(len(here)), strict=True))
            for key, amount in here[number].holds
        ]
        known = [pod for pod in pods if pod[2] >= 0 and pod[3] >= 0]
        when, numbers, rows, sizes = zip(*known, strict=True) if known else ((), (), (), ())
        amounts = kinds.table()[np.array(sizes, dtype=np.intp)]
        return cls(
            np.array(when), np.array(rows, dtype=np.intp), amounts, now, likely.take(numbers) if likely is not None else None
        )

    def expected_by(self, count: int) -> float:
        """When as much room may be expected to be free as the first ``count`` pods hold, each by the larger part of all.

        Half of the last one is enough: a single pod is expected to have ended at the middle of its run time, not when it surely is.
        """
        if not count:
            return self.now
        if self.likely is None:
            return float(self.ends[count - 1])
        shares = (self.amounts / np.maximum(self.amounts.sum(axis=0), 1)).max(axis=1)
        missing = float(shares[:count].sum()) - float(shares[count - 1]) / 2
        low, high = 0.0, max(float(self.ends[count - 1]) - self.now, 1.0)
        while float(self.likely.ended_in(high) @ shares) < missing and high < 1e12:
            low, high = high, high * 2
        while high - low > EXACT * high:
            middle = (low + high) / 2
            if float(self.likely.ended_in(middle) @ shares) < missing:
                low = middle
            else:
                high = middle
        return self.now + high

    def room_at(self, free: Amounts, count: int) -> Amounts:
        """Free room after the first ``count`` pods ended."""
        future = free.copy()
        np.add.at(future, self.rows[:count], self.amounts[:count])
        return future


@dataclass(slots=True)
class Hold:
    """The room kept for ``job`` on ``cluster``: from ``start`` on it runs on what ``after`` has left without it."""

    job: Job
    cluster: str
    start: float
    after: Amounts
    """Free room at ``start`` once the held gang has taken its places: what others may still use by then."""
    is_protected: bool = False
    is_entitled: bool = False
    """Whether its gang asks for no more than its queue is guaranteed."""
    margin: float | None = 0.0
    """How far predictions of those that want to pass are trusted (`latest_end`)."""
    holder_rank: tuple[bool, int, int] = (True, 0, 0)
    """The holder's place among the protected gangs (`desk.Candidate.protected_rank`)."""
    shuts: bool = False
    """Whether nobody at all may pass (strict order)."""

    def allows(self, used: Amounts, ends_at: float, is_trial: bool = False) -> bool:
        """Whether a start now that takes ``used`` leaves the held gang's start where it is; notes what it uses beyond it."""
        if self.shuts:
            return False
        if ends_at <= self.start:
            return True
        left = self.after - used
        if bool(((left < 0) & (used > 0)).any()):
            return False
        if not is_trial:
            self.after = left
        return True


def latest_end(job: Job, prediction: Prediction, now: float, margin: float | None) -> float:
    """When the job is taken to end if it starts now.

    By prediction times its spread to the power of ``margin``; without a margin by its own limit alone (never, without one).
    """
    if margin is not None:
        return now + prediction.seconds * float(prediction.spread**margin)
    return now + job.timeout_s if job.timeout_s is not None else inf


def hold_for(job: Job, demand: Demand, layout: Layout, free: Amounts, releases: Releases, counts: Counts | None) -> Hold | None:
    """The earliest start of ``job`` as running gangs end; None when it does not fit even after all of them.

    Found by halving: room only grows as gangs end. Where ends are uncertain, others may use only what is free now and the gang does
    not need: a gang that ends unexpectedly late would make the held one wait for what was promised from its room.
    """
    low, high = 0, len(releases.ends)
    best = releases.room_at(free, high)
    if not isinstance(place_demand(demand, layout, best, counts, False), Fit):
        return None
    while low < high:
        middle = (low + high) // 2
        trial = releases.room_at(free, middle)
        if isinstance(place_demand(demand, layout, trial, counts, False), Fit):
            high, best = middle, trial
        else:
            low = middle + 1
    if releases.likely is not None:
        taken = releases.room_at(free, high) - best
        best = np.maximum(free - taken, 0)
    return Hold(job, layout.cluster.name, releases.expected_by(high), best)


@dataclass(slots=True)
class QuotaHold:
    """A queue's limits are kept for ``job`` from ``start`` on: later gangs may take only ``spare`` past that time."""

    job: Job
    start: float
    spare: dict[str, int]
    """By resource or count that is short: what is left at ``start`` when the gang has its own."""
    margin: float | None

    def allows(self, charge: Resources, ends_at: float, is_trial: bool = False) -> bool:
        """``charge``: resources and counts of a gang that wants to start now."""
        if ends_at <= self.start:
            return True
        if any(charge[key] > left for key, left in self.spare.items() if charge[key]):
            return False
        if not is_trial:
            for key in self.spare:
                self.spare[key] -= charge[key]
        return True


def quota_hold(
    job: Job, over: Resources, running: Iterable[Running], now: float, margin: float | None, expect: Expect = Expect.LIKELY
) -> QuotaHold | None:
    """When the running gangs that use up a limit will have given back ``over``; None when they never do."""
    freed = dict.fromkeys([key for key, _ in over], 0)
    for end, _, runner in sorted((end_of(r, now, expect), r.job_id, r) for r in running):
        gives = runner.charge + counts_of(runner.pods)
        for key in freed:
            freed[key] += gives[key]
        if all(freed[key] >= amount for key, amount in over):
            return QuotaHold(job, end, {key: freed[key] - amount for key, amount in over}, margin)
    return None


def quota_beside(
    hold: Hold, left: Mapping[str, int], needs: Resources, running: Iterable[Running], now: float, expect: Expect = Expect.LIKELY
) -> QuotaHold:
    """What others may take of a queue's limits past a held gang's start: ``left`` now and given back until then, less its own."""
    gives = [runner.charge + counts_of(runner.pods) for runner in running if end_of(runner, now, expect) <= hold.start]
    spare = {key: amount - needs[key] + sum(each[key] for each in gives) for key, amount in left.items()}
    return QuotaHold(hold.job, hold.start, spare, hold.margin)
