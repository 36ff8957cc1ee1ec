"""Run-time estimates from earlier runs: of the same owner and name, else owner and template, else the queue.

Estimates use logarithms of durations, which scatter evenly. The median of a name's runs is weighted by Bühlmann's credibility:
with n runs and the share r of the queue's variance that names explain, Z = n r / (1 + (n - 1) r). r is estimated from the ratios
of repeated runs; half of their mean square is the variance within names. If names do not predict durations, r is near 0 and every
job gets the queue's prior.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, fsum, inf, log, pi
from statistics import median
from typing import Final
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.domain.model import Job, JobKind, Prediction, RunHistory

MAX_RUNS: Final = 12
MAX_QUEUE_RUNS: Final = 400
MAX_KEYS: Final = 20_000
MAX_JUDGED: Final = 200
MIN_JUDGED: Final = 30
"""Ended runs of a queue that are compared with their predictions; with fewer than the least, predictions have no trust."""
PRIOR_S: Final = 1200.0
"""Estimate without any history: the median of a well-known GPU cluster's trace."""
PRIOR_SPREAD: Final = 6.0
MIN_REPEATS: Final = 12
"""Repeated runs in a queue from which on r is measured; with fewer, `INITIAL_TRUST` is used."""
INITIAL_TRUST: Final = 0.5
MIN_RUN_S: Final = 1.0
MAX_SKEW: Final = 4.0
"""Limits a mean to e^4, about fifty times, the median: a higher one would come from a few runs that scatter by chance."""
MIN_SCATTER: Final = 0.01
"""Standard deviation of the logarithm of a run time that is known exactly, so that its end is certain to about 1 %."""
CORRECTIONS_S: Final = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 18000.0, 36000.0, 72000.0, 180000.0, 360000.0)
NOT_KNOWN: Final = "no run is known yet"
UNKNOWN: Final = Prediction(PRIOR_S, PRIOR_SPREAD, NOT_KNOWN)
QUEUE_BASIS: Final = "runs in the queue"
LIMIT_BASIS: Final = "its own limit"
MIN_QUEUE_RUNS: Final = 30
"""Runs in a queue from which on their run times say something about a job that never ran."""
MIN_QUEUE_SPREAD: Final = 4.0
"""Spread, at least, of what the queue's runs say about a job that never ran: it may be unlike all of them."""

TEMPLATE_LABEL: Final = "template"
ENDED_BY_USERS: Final = (JobKind.SPARK, JobKind.NOTEBOOK, JobKind.SERVICE)


def keys_of(job: Job) -> tuple[str, ...]:
    """The keys under which a job's run is recorded, most specific first; the queue's is last."""
    own = f"name/{job.queue}/{job.owner}/{job.name}"
    template = job.labels.get(TEMPLATE_LABEL)
    queue = f"queue/{job.queue}"
    return (own, f"template/{job.queue}/{job.owner}/{template}", queue) if template else (own, queue)


@dataclass(slots=True, eq=False, weakref_slot=True)
class PredictionEntry:
    """Cached prediction for all jobs of one queue, owner, name, template and run-time limit."""

    keys: tuple[str, ...]
    timeout_s: float | None
    prediction: Prediction | None = None
    """None until it is first needed, and after a run of the queue has ended."""


@dataclass(frozen=True, slots=True)
class _Prior:
    """Statistics of a queue's recent runs."""

    middle: float
    """Median of the logarithms."""
    variance: float
    """Variance of the logarithms."""
    trust: float
    """r: the share of the variance that names explain."""
    estimate: tuple[float, float, str]
    """Seconds, spread and basis for a run without history of its own."""


@dataclass(slots=True)
class History:
    """Every key's `RunHistory`, bounded; `changed` are the rows that differ from the stored ones."""

    rows: dict[str, RunHistory] = field(default_factory=dict)
    changed: dict[str, None] = field(default_factory=dict)
    dropped: dict[str, None] = field(default_factory=dict)
    _entries: dict[str, WeakValueDictionary[Hashable, PredictionEntry]] = field(default_factory=dict)
    """By queue: an ended run changes only the predictions of its own queue."""
    _priors: dict[str, _Prior] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[RunHistory]) -> History:
        return cls({row.key: row for row in rows})

    def record_run(self, job: Job, duration_s: float, predicted: Prediction | None = None) -> None:
        """Record the duration of a run that ended by itself. ``predicted``: what was, when it was admitted."""
        took = max(duration_s, MIN_RUN_S)
        *own, queue = keys_of(job)
        before, pooled = self.rows.get(own[0]), self.rows.get(queue, RunHistory(queue))
        scatter, missed, plain = pooled.scatter, pooled.missed, pooled.plain
        if predicted is not None:
            missed = (*missed, log(took / max(predicted.seconds, MIN_RUN_S)) ** 2)[-MAX_JUDGED:]
            plain = (*plain, (log(took) - self._prior(queue).middle) ** 2)[-MAX_JUDGED:]
        if before is not None and before.runs:
            scatter = (*scatter, log(took / before.runs[-1]) ** 2)[-MAX_QUEUE_RUNS:]
        for key in own:
            runs = self.rows.pop(key, RunHistory(key)).runs
            self._put(RunHistory(key, (*runs, took)[-MAX_RUNS:]))
        runs = self.rows.pop(queue, RunHistory(queue)).runs
        self._put(RunHistory(queue, (*runs, took)[-MAX_QUEUE_RUNS:], scatter, missed, plain))
        while len(self.rows) > MAX_KEYS:
            oldest = next(iter(self.rows))
            del self.rows[oldest]
            self.changed.pop(oldest, None)
            self.dropped[oldest] = None
            self._invalidate(oldest.split("/", 2)[1])
        self._invalidate(job.queue)

    def trust(self, queue: str) -> float:
        """The part of the variance of a queue's latest run times that their predictions explained; 0 before enough have ended.

        It is measured on predictions made before the runs, so names that say nothing earn no trust, whatever earlier runs suggest.
        """
        row = self.rows.get(f"queue/{queue}")
        if row is None or len(row.missed) < MIN_JUDGED:
            return 0.0
        total = fsum(row.plain)
        return max(1 - fsum(row.missed) / total, 0.0) if total > 0 else 0.0

    def _invalidate(self, queue: str) -> None:
        for entry in self._entries.get(queue, {}).values():
            entry.prediction = None
        self._priors.pop(f"queue/{queue}", None)

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

    def entry(self, job: Job) -> PredictionEntry:
        """The cache entry that the job shares with similar jobs; keep it to call `prediction_of` repeatedly."""
        entries = self._entries.setdefault(job.queue, WeakValueDictionary())
        key = (job.owner, job.name, job.labels.get(TEMPLATE_LABEL) if job.labels else None, job.timeout_s)
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = PredictionEntry(keys_of(job), job.timeout_s)
        return entry

    def predict(self, job: Job) -> Prediction:
        """The estimate from history, never above the job's own run-time limit."""
        return self.prediction_of(self.entry(job))

    def prediction_of(self, entry: PredictionEntry) -> Prediction:
        if entry.prediction is None:
            seconds, spread, basis = self._estimate(entry.keys)
            if entry.timeout_s is not None and seconds > entry.timeout_s:
                seconds, basis = entry.timeout_s, LIMIT_BASIS
            entry.prediction = Prediction(seconds, spread, basis)
        return entry.prediction

    def _prior(self, queue: str) -> _Prior:
        known = self._priors.get(queue)
        if known is not None:
            return known
        row = self.rows.get(queue, RunHistory(queue))
        logs = [log(run) for run in row.runs]
        variance = _variance(logs) if len(logs) > 1 else log(PRIOR_SPREAD) ** 2
        middle = median(logs) if logs else log(PRIOR_S)
        trust = INITIAL_TRUST
        if len(row.scatter) >= MIN_REPEATS and variance > 0:
            trust = min(max(1 - (sum(row.scatter) / len(row.scatter) / 2) / variance, 0.0), 0.99)
        basis = f"the last {len(logs)} {QUEUE_BASIS}" if logs else NOT_KNOWN
        prior = self._priors[queue] = _Prior(middle, variance, trust, (exp(middle), exp(variance**0.5), basis))
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
        return prior.estimate


def _variance(values: Sequence[float]) -> float:
    mean = fsum(values) / len(values)
    return fsum((value - mean) ** 2 for value in values) / len(values)


def told_spread(prediction: Prediction, job: Job) -> float:
    """The spread of a run time that may be told to users; infinite where no past run says when this one ends.

    Sessions and notebooks end when their user wants, whatever earlier ones did.
    """
    return inf if job.kind in ENDED_BY_USERS else max(prediction.spread, _least_told(prediction.basis))


def told_spreads(whose: Iterable[tuple[Prediction, Job]]) -> npt.NDArray[np.float64]:
    """`told_spread` of many."""
    known: dict[str, float] = {}
    found: list[float] = []
    for prediction, job in whose:
        basis = prediction.basis
        least = known.get(basis)
        if least is None:
            least = known[basis] = _least_told(basis)
        found.append(inf if least == inf or job.kind in ENDED_BY_USERS else max(prediction.spread, least))
    return np.array(found, dtype=np.float64)


def _least_told(basis: str) -> float:
    """The least spread that a prediction on this basis is told with."""
    if basis in (NOT_KNOWN, LIMIT_BASIS):
        return inf
    if not basis.endswith(QUEUE_BASIS):
        return 0.0
    return MIN_QUEUE_SPREAD if int(basis.split()[2]) >= MIN_QUEUE_RUNS else inf


def predicted_end(started_at: float, prediction: Prediction, timeout_s: float | None, now: float) -> float:
    """When a running gang will probably end. One past its prediction is expected to run as long again as it ran so far.

    Run times have heavy tails: the expected remaining time grows with age (Harchol-Balter, Downey, SIGMETRICS 1996).
    """
    end = started_at + prediction.seconds
    if end <= now:
        end = now + (now - started_at)
    return end if timeout_s is None else min(end, max(started_at + timeout_s, now))


def corrected_end(started_at: float, prediction: Prediction, timeout_s: float | None, now: float) -> float:
    """The predicted end, extended by growing steps for as long as it has passed.

    Steps of Tsafrir, Etsion, Feitelson, Backfilling using system-generated predictions, TPDS 2007.
    """
    end = started_at + prediction.seconds
    for step in CORRECTIONS_S:
        if end > now:
            break
        end += step
    while end <= now:
        end += CORRECTIONS_S[-1]
    return end if timeout_s is None else min(end, max(started_at + timeout_s, now))


def corrected_ends(
    started: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64], limits: npt.NDArray[np.float64], now: float
) -> npt.NDArray[np.float64]:
    """`corrected_end` of many; ``limits``: infinite where there is none."""
    ends = started + seconds
    for step in CORRECTIONS_S:
        ends = np.where(ends > now, ends, ends + step)
    while (ends <= now).any():
        ends = np.where(ends > now, ends, ends + CORRECTIONS_S[-1])
    return np.where(np.isfinite(limits), np.minimum(ends, np.maximum(started + limits, now)), ends)


def expected_s(seconds: npt.NDArray[np.float64], spreads: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean run times of predictions, for log-normal run times: the larger the spread, the further above the median."""
    return seconds * np.exp(np.minimum(np.log(spreads) ** 2 / 2, MAX_SKEW))


def log_logistic(spreads: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Shapes of log-logistic run times whose logarithms have the standard deviations ln ``spreads``.

    Shape x standard deviation = pi / sqrt 3. It replaces the log-normal law because it has a closed form and, like run times, a
    tail in which the expected remaining time grows with age.
    """
    return pi / 3**0.5 / np.maximum(np.log(spreads), MIN_SCATTER)
