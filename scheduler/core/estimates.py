"""How long a run will take, from how long earlier ones took: same owner and name, owner and template, then the queue.

Durations are taken as logarithms, where run times scatter evenly. A name's own median counts as much as its history is worth:
with n runs and the share r of the queue's variance that names explain, Z = n r / (1 + (n - 1) r) (Bühlmann's credibility; r is
estimated from the ratios of repeats, half of whose mean square is the variance within names). Names that say nothing about
duration have r near 0, and everybody gets the queue's prior.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, fsum, log, pi
from statistics import median
from typing import Final
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.model import Job, Prediction, RunHistory

RUNS_KEPT: Final = 12
QUEUE_RUNS_KEPT: Final = 400
KEYS_KEPT: Final = 20_000
PRIOR_S: Final = 1200.0
"""Before anything is known: the middle run of a well-known GPU cluster's trace."""
PRIOR_SPREAD: Final = 6.0
FEWEST_REPEATS: Final = 12
"""Repeats in a queue before names are believed as measured; below, `TRUST_AT_FIRST` stands in for the measure."""
TRUST_AT_FIRST: Final = 0.5
SHORTEST_S: Final = 1.0
MOST_SKEW: Final = 4.0
"""A mean is taken to be at most e^4, some fifty times, the middle: more would come from a few runs that scatter by chance."""
LEAST_SCATTER: Final = 0.01
"""Of the logarithm of a run time that is known exactly: an end is then certain to within a hundredth."""
CORRECTIONS_S: Final = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 18000.0, 36000.0, 72000.0, 180000.0, 360000.0)
UNKNOWN: Final = Prediction(PRIOR_S, PRIOR_SPREAD, "no run is known yet")

TEMPLATE_LABEL: Final = "template"


def keys_of(job: Job) -> tuple[str, ...]:
    """The keys under which a job's run is remembered, most telling first; the queue's is last."""
    own = f"name/{job.queue}/{job.owner}/{job.name}"
    template = job.labels.get(TEMPLATE_LABEL)
    queue = f"queue/{job.queue}"
    return (own, f"template/{job.queue}/{job.owner}/{template}", queue) if template else (own, queue)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Guess:
    """What is predicted for all runs of one queue, owner, name, template and limit."""

    keys: tuple[str, ...]
    timeout_s: float | None
    prediction: Prediction | None = None
    """None until somebody asks, and again when a run of the queue has ended."""


@dataclass(frozen=True, slots=True)
class _Prior:
    """What a queue says of a run of which nothing else is known."""

    middle: float
    """Of the logarithms."""
    variance: float
    trust: float
    """The share of the variance that names explain."""
    told: tuple[float, float, str]


@dataclass(slots=True)
class History:
    """Every key's `RunHistory`, bounded; `changed` are the rows that differ from the stored ones."""

    rows: dict[str, RunHistory] = field(default_factory=dict)
    changed: dict[str, None] = field(default_factory=dict)
    dropped: dict[str, None] = field(default_factory=dict)
    _guesses: dict[str, WeakValueDictionary[Hashable, Guess]] = field(default_factory=dict)
    """By queue: a run that ends changes what its own queue says, and no other's."""
    _queues: dict[str, _Prior] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[RunHistory]) -> History:
        return cls({row.key: row for row in rows})

    def learn(self, job: Job, duration_s: float) -> None:
        """A run that ended by itself took so long."""
        took = max(duration_s, SHORTEST_S)
        *own, queue = keys_of(job)
        before = self.rows.get(own[0])
        scatter = self.rows.get(queue, RunHistory(queue)).scatter
        if before is not None and before.runs:
            scatter = (*scatter, log(took / before.runs[-1]) ** 2)[-QUEUE_RUNS_KEPT:]
        for key in own:
            runs = self.rows.pop(key, RunHistory(key)).runs
            self._put(RunHistory(key, (*runs, took)[-RUNS_KEPT:]))
        runs = self.rows.pop(queue, RunHistory(queue)).runs
        self._put(RunHistory(queue, (*runs, took)[-QUEUE_RUNS_KEPT:], scatter))
        while len(self.rows) > KEYS_KEPT:
            oldest = next(iter(self.rows))
            del self.rows[oldest]
            self.changed.pop(oldest, None)
            self.dropped[oldest] = None
            self._forget(oldest.split("/", 2)[1])
        self._forget(job.queue)

    def _forget(self, queue: str) -> None:
        for guess in self._guesses.get(queue, {}).values():
            guess.prediction = None
        self._queues.pop(f"queue/{queue}", None)

    def _put(self, row: RunHistory) -> None:
        self.rows[row.key] = row
        self.changed[row.key] = None
        self.dropped.pop(row.key, None)

    def take_changes(self) -> tuple[tuple[RunHistory, ...], tuple[str, ...]]:
        """Rows to write, and keys whose rows are to be deleted."""
        changed = tuple(self.rows[key] for key in self.changed)
        dropped = tuple(self.dropped)
        self.changed.clear()
        self.dropped.clear()
        return changed, dropped

    def guess(self, job: Job) -> Guess:
        """One for all jobs of which the same is known, for those that ask for the prediction (`tell`) again and again."""
        own = self._guesses.setdefault(job.queue, WeakValueDictionary())
        who = (job.owner, job.name, job.labels.get(TEMPLATE_LABEL) if job.labels else None, job.timeout_s)
        guess = own.get(who)
        if guess is None:
            guess = own[who] = Guess(keys_of(job), job.timeout_s)
        return guess

    def predict(self, job: Job) -> Prediction:
        """The middle of what history says, never above the job's own limit."""
        return self.tell(self.guess(job))

    def tell(self, guess: Guess) -> Prediction:
        if guess.prediction is None:
            seconds, spread, basis = self._estimate(guess.keys)
            if guess.timeout_s is not None and seconds > guess.timeout_s:
                seconds, basis = guess.timeout_s, "its own limit"
            guess.prediction = Prediction(seconds, spread, basis)
        return guess.prediction

    def _prior(self, queue: str) -> _Prior:
        known = self._queues.get(queue)
        if known is not None:
            return known
        row = self.rows.get(queue, RunHistory(queue))
        logs = [log(run) for run in row.runs]
        variance = _variance(logs) if len(logs) > 1 else log(PRIOR_SPREAD) ** 2
        middle = median(logs) if logs else log(PRIOR_S)
        trust = TRUST_AT_FIRST
        if len(row.scatter) >= FEWEST_REPEATS and variance > 0:
            trust = min(max(1 - (sum(row.scatter) / len(row.scatter) / 2) / variance, 0.0), 0.99)
        basis = f"the last {len(logs)} runs in the queue" if logs else "no run is known yet"
        prior = self._queues[queue] = _Prior(middle, variance, trust, (exp(middle), exp(variance**0.5), basis))
        return prior

    def _estimate(self, keys: tuple[str, ...]) -> tuple[float, float, str]:
        prior = self._prior(keys[-1])
        for key in keys[:-1]:
            row = self.rows.get(key)
            if row is not None and row.runs:
                count = len(row.runs)
                weight = count * prior.trust / (1 + (count - 1) * prior.trust)
                if weight < 0.05:
                    break
                seconds = exp(prior.middle + weight * (median(log(run) for run in row.runs) - prior.middle))
                spread = exp(max(prior.variance * (1 - weight * prior.trust), 0.0) ** 0.5)
                what = "this name" if key.startswith("name/") else "this template"
                return seconds, spread, f"{count} earlier {'run' if count == 1 else 'runs'} of {what}"
        return prior.told


def _variance(values: Sequence[float]) -> float:
    mean = fsum(values) / len(values)
    return fsum((value - mean) ** 2 for value in values) / len(values)


def predicted_end(started_at: float, prediction: Prediction, timeout_s: float | None, now: float) -> float:
    """When a running gang will probably end. One past its prediction is expected to take as long again as it took so far.

    Run times have heavy tails, where what is left grows with what has passed (Harchol-Balter, Downey, SIGMETRICS 1996).
    """
    end = started_at + prediction.seconds
    if end <= now:
        end = now + (now - started_at)
    return end if timeout_s is None else min(end, max(started_at + timeout_s, now))


def corrected_end(started_at: float, prediction: Prediction, timeout_s: float | None, now: float) -> float:
    """When a running gang ends for a scheduler that moves a prediction on by growing steps whenever it proved too short.

    The steps are those of Tsafrir, Etsion, Feitelson, Backfilling using system-generated predictions, TPDS 2007.
    """
    end = started_at + prediction.seconds
    for step in CORRECTIONS_S:
        if end > now:
            break
        end += step
    while end <= now:
        end += CORRECTIONS_S[-1]
    return end if timeout_s is None else min(end, max(started_at + timeout_s, now))


def expected_s(seconds: npt.NDArray[np.float64], spreads: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The means of predictions, of run times whose logarithms are normal: above the middles, the more the less is known."""
    return seconds * np.exp(np.minimum(np.log(spreads) ** 2 / 2, MOST_SKEW))


def log_logistic(spreads: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Shapes of the log-logistic laws of run times whose logarithms have the standard deviations ln ``spreads``.

    It stands for the log-normal one because it has a closed form and, like run times, a tail in which what is left grows with what
    has passed (shape x standard deviation = pi / sqrt 3).
    """
    return pi / 3**0.5 / np.maximum(np.log(spreads), LEAST_SCATTER)
