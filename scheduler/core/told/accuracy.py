"""How well starts were forecast lately: the next ranges are widened or narrowed by what the last ones lacked.

Nobody knows which run times a site will see, nor what will be submitted before a gang starts, so no fixed width of a range
holds everywhere. Each forecast of a gang that has started has a score: by which factor its earliest start was too late, and its
latest too early. The next ranges get the factor that would have been enough for a part of the last ones on either side
(conformalized quantile regression: Romano, Patterson, Candès, NeurIPS 2019). That part begins at `LEVEL` and follows how often
what was told has held (adaptive conformal inference: Gibbs, Candès, NeurIPS 2021), because a site's load changes, and because
who still waits after a while is not like all that were told at first. For the same reason scores are kept apart by how long the
gang has waited: a gang is asked again each time it has waited twice as long. One that waits past its latest start counts already
with what it has missed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import product
from math import ceil, exp, log
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.told.ranges import Floats, Told, ToldRanges
from tuttilab.scheduler.domain.model import StartForecast, StartKind

LEVEL: Final = 0.9
LEVELS: Final = (0.5, 0.99)
"""Between which the level of a side stays."""
STEP: Final = 0.02
"""By how much a range that did not hold moves the level of its side."""
MOST_SCORES: Final = 200
FEW_SCORES: Final = 10
"""With fewer, the missing ones are taken to be `EXPECTED`."""
EXPECTED: Final = {StartKind.FIRST: log(1.25), StartKind.HELD: log(1.6), StartKind.LINE: log(1.6), StartKind.WIDE: log(1.6)}
"""Score before anything is known: where only what runs decides, the error is small."""
LARGEST: Final = 4.0
SMALLEST: Final = -1.0
GRACE_S: Final = 60.0
"""Added to all times: an error of seconds is none."""
STAGES_S: Final = (900.0, 4 * 3600.0)
"""Waits so far from which on scores are kept apart."""
AGAIN_S: Final = STAGES_S[0]
"""After how long a gang that waits is asked for the second time."""
KINDS: Final = tuple(StartKind)


class Class(NamedTuple):
    """Of forecasts whose errors are alike: what a start depends on, and how long the gang has waited."""

    kind: StartKind
    stage: int

    @classmethod
    def of(cls, forecast: StartForecast) -> Class:
        return cls(forecast.kind, bisect_right(STAGES_S, forecast.waited_s))


CLASSES: Final = tuple(Class(*one) for one in product(KINDS, range(len(STAGES_S) + 1)))
Factors = dict[Class, tuple[float, float]]
"""Logarithms of the factors for the earliest and the latest start."""
NO_FACTORS: Final[Factors] = {one: (EXPECTED[one.kind], EXPECTED[one.kind]) for one in CLASSES}


def widened(
    earliest_s: Floats, latest_s: Floats, kinds: npt.NDArray[np.intp], waited_s: Floats, factors: Factors
) -> tuple[Floats, Floats]:
    """Seconds until the earliest and the latest start that are told. ``kinds``: indexes in `KINDS`."""
    by = np.array([(exp(-sooner), exp(later)) for sooner, later in map(factors.__getitem__, CLASSES)]).reshape(len(KINDS), -1, 2)
    sooner, later = by[kinds, np.searchsorted(STAGES_S, waited_s, side="right")].T
    one, other = (earliest_s + GRACE_S) * sooner - GRACE_S, (latest_s + GRACE_S) * later - GRACE_S
    return np.maximum(np.minimum(one, other), 0.0), np.maximum(np.maximum(one, other), 0.0)


class _Asked(NamedTuple):
    """A forecast, and what was told of it."""

    at: float
    forecast: StartForecast
    told: Told | None


@dataclass(slots=True)
class Accuracy:
    """Only in memory: after a restart it learns anew, which changes no decision."""

    _open: dict[str, list[_Asked]] = field(default_factory=dict)
    """By job that waits."""
    _again: list[tuple[float, str]] = field(default_factory=list)
    """Heap: when to ask which job again."""
    _expiring: list[tuple[float, str, int]] = field(default_factory=list)
    """Heap: when the latest start of which forecast of a job has passed."""
    _overdue: dict[str, list[_Asked]] = field(default_factory=dict)
    _at: float = 0.0
    """When the last forecasts were made."""
    _scores: dict[Class, deque[tuple[float, float]]] = field(
        default_factory=lambda: {one: deque(maxlen=MOST_SCORES) for one in CLASSES}
    )
    _levels: dict[Class, tuple[float, float]] = field(default_factory=lambda: dict.fromkeys(CLASSES, (LEVEL, LEVEL)))
    """The part of the scores that the factors are to cover, at the earliest and at the latest start."""

    def record(
        self, job_ids: Iterable[str], forecast_of: Callable[[str], StartForecast | None], ranges: ToldRanges, at: float
    ) -> None:
        """Record forecasts of waiting gangs, at the cycle that made them: the first of each, and when it is to be asked again.

        ``job_ids``: the waiting gangs that have one.
        """
        self._at = at
        due: list[str] = []
        while self._again and self._again[0][0] <= at:
            due.append(heappop(self._again)[1])
        for job_id in (*(one for one in job_ids if one not in self._open), *(one for one in due if one in self._open)):
            forecast = forecast_of(job_id)
            asked = self._open.get(job_id, [])
            if forecast is not None:
                self._open[job_id] = asked
                asked.append(_Asked(at, forecast, ranges.get(job_id)))
                heappush(self._expiring, (at + forecast.latest_s, job_id, len(asked) - 1))
            if asked:
                heappush(self._again, (at + max(at - asked[0].at, AGAIN_S), job_id))
        while self._expiring and self._expiring[0][0] < at:
            _, job_id, number = heappop(self._expiring)
            asked = self._open.get(job_id, [])
            if number < len(asked) and asked[number].at + asked[number].forecast.latest_s < at:
                self._overdue.setdefault(job_id, []).append(asked[number])

    def started(self, job_id: str, at: float) -> None:
        for asked in self._open.get(job_id, ()):
            one, forecast, told = Class.of(asked.forecast), asked.forecast, asked.told
            real = log(max(at - asked.at, 0.0) + GRACE_S)
            self._scores[one].append((log(forecast.earliest_s + GRACE_S) - real, real - log(forecast.latest_s + GRACE_S)))
            if told is not None:
                sooner, later = self._levels[one]
                self._levels[one] = (_moved(sooner, at < told.earliest - 1), _moved(later, at > told.latest + 1))
        self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """The gang left its queue."""
        self._open.pop(job_id, None)
        self._overdue.pop(job_id, None)

    def factors(self) -> Factors:
        missed: dict[Class, list[float]] = {one: [] for one in CLASSES}
        for overdue in self._overdue.values():
            for at, forecast, _ in overdue:
                missed[Class.of(forecast)].append(log((self._at - at + GRACE_S) / (forecast.latest_s + GRACE_S)))
        found: Factors = {}
        for one, scores in self._scores.items():
            sooner, later = self._levels[one]
            found[one] = (
                _enough([early for early, _ in scores], one.kind, sooner),
                _enough([late for _, late in scores] + missed[one], one.kind, later),
            )
        return found


def _moved(level: float, is_missed: bool) -> float:
    return min(max(level + STEP * (is_missed - (1 - LEVEL)), LEVELS[0]), LEVELS[1])


def _enough(scores: list[float], kind: StartKind, level: float) -> float:
    """The score that ``level`` of all do not exceed, one more counted for the next."""
    ranked = sorted(scores + [EXPECTED[kind]] * (FEW_SCORES - len(scores)))
    place = min(ceil(level * (len(ranked) + 1)), len(ranked)) - 1
    return min(max(ranked[place], SMALLEST), LARGEST)
