"""The start that is told to each waiting gang: its forecast and what has to end first, widened, and what was told before.

For all gangs at once, in arrays with one element per gang: there may be ten thousand, in every cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.backfill import Floats
from tuttilab.scheduler.core.explain.bases import Bases
from tuttilab.scheduler.core.explain.ranges import CLEARLY_SOONER, LEAST_CHANGE_S, WIDEST
from tuttilab.scheduler.core.told.accuracy import GRACE_S, KINDS, Factors, widened
from tuttilab.scheduler.core.told.ranges import NO_RANGES, ToldRanges
from tuttilab.scheduler.domain.model import StartForecast, StartKind

Flags = npt.NDArray[np.bool_]
FIRST, LINE, HELD, WIDE = map(KINDS.index, (StartKind.FIRST, StartKind.LINE, StartKind.HELD, StartKind.WIDE))


@dataclass(frozen=True, slots=True)
class Reasons:
    """Of what stops each gang: when that ends."""

    start: Floats
    """Expected start of the gang with the hold; for the others, the earliest; not a number where there is none."""
    earliest: Floats
    latest: Floats
    """Seconds until that start."""
    is_first: Flags
    """Whether the gang has the hold: it starts then, whatever the line."""
    is_by_line: Flags
    """Whether the forecast by line gives the start."""
    is_behind: Flags
    """Whether room or quota is held for another gang."""


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What each told start is made of; ``is_made``: whether anything tells it."""

    is_made: Flags
    start: Floats
    earliest: Floats
    latest: Floats
    """Seconds from the cycle on, before they are widened."""
    kind: npt.NDArray[np.intp]
    """Index in `told.accuracy.KINDS`."""

    @classmethod
    def of(cls, is_wide: Flags, forecast: Floats, reasons: Reasons, now: float) -> Forecasts:
        """``forecast``: `forecast.predicted_starts`."""
        expected, earliest, latest = forecast
        is_first = reasons.is_first
        is_known = is_first | ((latest < np.inf) & (reasons.latest < np.inf))
        is_lined = is_known & ~is_first & reasons.is_by_line & (expected < np.inf)
        by_line = np.fmax(now + expected, reasons.start)
        low = np.where(reasons.is_behind, 0.0, np.maximum(earliest, reasons.earliest))
        high = np.where(is_first, reasons.latest, np.maximum(latest, reasons.latest))
        kind = np.where(is_first, FIRST, np.where(reasons.is_behind, HELD, LINE))
        kind[~is_first & is_wide] = WIDE
        return cls(
            (is_first | is_lined) & (high < np.inf),
            np.where(is_first, reasons.start, by_line),
            np.where(is_first, reasons.earliest, low),
            high,
            kind,
        )

    def of_gang(self, number: int) -> StartForecast | None:
        if not self.is_made[number]:
            return None
        return StartForecast(float(self.earliest[number]), float(self.latest[number]), KINDS[self.kind[number]])


def told(
    waiting: Sequence[str], forecasts: Forecasts, bases: Bases, factors: Factors, before: ToldRanges, now: float
) -> ToldRanges:
    """The ranges that are told to ``waiting``, by job id.

    What was told ``before`` is told again where it still holds beside the new range.

    A range that is too wide says nothing, and is not told: a start somewhere between a minute and a day from now is none.
    """
    low, high = widened(forecasts.earliest, forecasts.latest, forecasts.kind, factors)
    is_narrow = forecasts.is_made & (high < np.inf) & (high + GRACE_S <= WIDEST * (low + GRACE_S))
    numbers = np.nonzero(is_narrow)[0]
    if not len(numbers):
        return NO_RANGES
    earliest, latest = now + low[numbers], now + high[numbers]
    starts = forecasts.start[numbers]
    found = np.minimum(np.maximum(starts, earliest), latest)
    job_ids = [waiting[number] for number in numbers.tolist()]
    rows = before.rows_of(job_ids)
    was = np.nonzero(rows >= 0)[0]
    old = rows[was]
    left, left_before = latest[was] - now, before.latest[old] - now
    is_missed = (now > before.latest[old]) | (found[was] < before.earliest[old]) | (found[was] > before.latest[old])
    is_clearly_sooner = (left <= CLEARLY_SOONER * left_before) & (left_before - left >= LEAST_CHANGE_S)
    holds = ~(is_missed | is_clearly_sooner)
    same, as_before = was[holds], old[holds]
    found[same], earliest[same], latest[same] = before.starts[as_before], before.earliest[as_before], before.latest[as_before]
    kept = np.full(len(numbers), -1)
    kept[same] = as_before
    texts: list[object] = [
        before.bases[row] if row >= 0 else bases.of_start(number)
        for row, number in zip(kept.tolist(), numbers.tolist(), strict=True)
    ]
    return ToldRanges({job_id: row for row, job_id in enumerate(job_ids)}, found, earliest, latest, texts)
