"""How well starts were forecast lately: the next ranges are widened or narrowed by what the last ones lacked.

Nobody knows which run times a site will see, so no fixed width of a range holds everywhere. Each forecast of a gang that has
started has a score: by which factor its earliest start was too late, and its latest too early. The next ranges get the factor that
would have been enough for `LEVEL` of the last ones on either side (conformalized quantile regression: Romano, Patterson, Candès,
NeurIPS 2019). A gang that still waits past its latest start counts already with what it has missed by now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import ceil, exp, log
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.told.ranges import Floats
from tuttilab.scheduler.domain.model import StartForecast, StartKind

LEVEL: Final = 0.9
MOST_SCORES: Final = 200
FEW_SCORES: Final = 10
"""With fewer, the missing ones are taken to be `EXPECTED`."""
EXPECTED: Final = {StartKind.FIRST: log(1.25), StartKind.HELD: log(1.6), StartKind.LINE: log(1.6), StartKind.WIDE: log(1.6)}
"""Score before anything is known: where only what runs decides, the error is small."""
LARGEST: Final = 4.0
SMALLEST: Final = -1.0
GRACE_S: Final = 60.0
"""Added to all times: an error of seconds is none."""
KINDS: Final = tuple(StartKind)

Factors = dict[StartKind, tuple[float, float]]
"""Logarithms of the factors for the earliest and the latest start."""
NO_FACTORS: Final[Factors] = {kind: (score, score) for kind, score in EXPECTED.items()}


def widened(earliest_s: Floats, latest_s: Floats, kinds: npt.NDArray[np.intp], factors: Factors) -> tuple[Floats, Floats]:
    """Seconds until the earliest and the latest start that are told. ``kinds``: indexes in `KINDS`."""
    sooner, later = np.array([(exp(-factors[kind][0]), exp(factors[kind][1])) for kind in KINDS])[kinds].T
    one, other = (earliest_s + GRACE_S) * sooner - GRACE_S, (latest_s + GRACE_S) * later - GRACE_S
    return np.maximum(np.minimum(one, other), 0.0), np.maximum(np.maximum(one, other), 0.0)


@dataclass(slots=True)
class Accuracy:
    """Only in memory: after a restart it learns anew, which changes no decision."""

    _open: dict[str, tuple[float, StartForecast]] = field(default_factory=dict)
    """By job: when its start was forecast first, and the forecast."""
    _at: float = 0.0
    """When the last forecasts were made."""
    _scores: dict[StartKind, deque[tuple[float, float]]] = field(
        default_factory=lambda: {kind: deque(maxlen=MOST_SCORES) for kind in EXPECTED}
    )

    def record(self, job_ids: Iterable[str], forecast_of: Callable[[str], StartForecast | None], at: float) -> None:
        """Record the first forecast of each waiting gang, at the cycle that made it. ``job_ids``: those that have one."""
        self._at = at
        for job_id in job_ids:
            if job_id not in self._open and (forecast := forecast_of(job_id)) is not None:
                self._open[job_id] = (at, forecast)

    def started(self, job_id: str, at: float) -> None:
        known = self._open.pop(job_id, None)
        if known is not None:
            told_at, forecast = known
            real = log(max(at - told_at, 0.0) + GRACE_S)
            early, late = log(forecast.earliest_s + GRACE_S), log(forecast.latest_s + GRACE_S)
            self._scores[forecast.kind].append((early - real, real - late))

    def forget(self, job_id: str) -> None:
        """The gang left its queue without a start."""
        self._open.pop(job_id, None)

    def factors(self) -> Factors:
        now = self._at
        missed: dict[StartKind, list[float]] = {kind: [] for kind in EXPECTED}
        for told_at, forecast in self._open.values():
            if now - told_at > forecast.latest_s:
                missed[forecast.kind].append(log((now - told_at + GRACE_S) / (forecast.latest_s + GRACE_S)))
        return {
            kind: (
                _enough([early for early, _ in scores], kind),
                _enough([late for _, late in scores] + missed[kind], kind),
            )
            for kind, scores in self._scores.items()
        }


def _enough(scores: list[float], kind: StartKind) -> float:
    """The score that `LEVEL` of all do not exceed, one more counted for the next."""
    ranked = sorted(scores + [EXPECTED[kind]] * (FEW_SCORES - len(scores)))
    place = min(ceil(LEVEL * (len(ranked) + 1)), len(ranked)) - 1
    return min(max(ranked[place], SMALLEST), LARGEST)
