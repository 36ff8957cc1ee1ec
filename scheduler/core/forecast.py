"""When each waiting gang will probably start: the room-time that becomes free, against what those before it will use of it.

By a time ``t`` from now the room gives the integral of what is free (now, and as running gangs end), and a gang before in line uses
the expected part of its run time that falls within ``t``. A gang starts when the first has caught up with the second. Two lines are
asked: that of the cycle, which gangs submitted later may still join, and that of submission, in which protection serves whoever was
overtaken enough. The first is right for a gang that is soon at its head, the second for one that is not: the longer the first says,
the more will come before the gang, so the two are weighted by the root of their quotient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from tuttilab.scheduler.core.backfill import Floats, Likely
from tuttilab.scheduler.core.desk import Candidate, Desk
from tuttilab.scheduler.core.estimates import log_logistic

TIMES: Final = np.concatenate([[0.0], np.geomspace(10.0, 90 * 86400.0, 47)])
"""Seconds from now at which both sides are added up; between them they are taken as straight."""
SOONEST_S: Final = 1.0
AT_ONCE: Final = 4096
"""Gangs whose use is added up together, which bounds the memory."""


def line_starts(desk: Desk) -> dict[str, float]:
    """Service time at which each waiting gang may be expected to start; those beyond `TIMES` are left out."""
    waiting = [c for line in desk.lines_.values() for c in line if c.cause is not None]
    if not waiting:
        return {}
    given = _given(desk)
    waiting.sort(key=lambda candidate: candidate.place)
    by_line = _catches_up(given, waiting)
    order = sorted(range(len(waiting)), key=lambda number: (not waiting[number].is_lifted, waiting[number].job.order))
    by_submission = np.empty(len(waiting))
    by_submission[order] = _catches_up(given, [waiting[number] for number in order])
    overtaking = max(queue.overtaking for queue in desk.snapshot.queues.values())
    latest = by_submission / max(1 - overtaking, 0.1)
    after = _between(np.maximum(by_line, SOONEST_S), np.maximum(latest, SOONEST_S))
    return {c.job.id: desk.now + float(one) for c, one in zip(waiting, after, strict=True) if np.isfinite(one)}


def _between(line: Floats, latest: Floats) -> Floats:
    """The earlier one for gangs that are soon at the head, and nearer the later one the longer that takes."""
    with np.errstate(invalid="ignore"):
        weight = np.sqrt(line / latest)
        blend = np.exp((1 - weight) * np.log(line) + weight * np.log(latest))
    return np.where(np.isfinite(line) & np.isfinite(latest) & (line < latest), blend, np.minimum(line, latest))


def _given(desk: Desk) -> Floats:
    """Room-seconds that become free by each of `TIMES`, as shares of the site."""
    layouts = desk.room.layouts
    parts = {name: layout.total.dominant_share(desk.site) for name, layout in layouts.items()}
    used = dict.fromkeys(layouts, 0.0)
    running = [runner for runner in desk.running if runner.cluster in parts]
    for runner in running:
        used[runner.cluster] += runner.share
    free = sum(parts[name] * max(1 - share, 0.0) for name, share in used.items())
    shares = np.array([runner.share * parts[runner.cluster] for runner in running])
    likely = Likely.of(running, desk.now)
    rate = np.array([free + (float(likely.ended_in(after) @ shares) if running else 0.0) for after in TIMES])
    return _added_up(rate)


def _added_up(rate: Floats) -> Floats:
    steps = np.diff(TIMES) * (rate[..., 1:] + rate[..., :-1]) / 2
    return np.concatenate([np.zeros((*rate.shape[:-1], 1)), np.cumsum(steps, axis=-1)], axis=-1)


def _catches_up(given: Floats, line: Sequence[Candidate]) -> Floats:
    """Seconds from now at which each of ``line`` finds all before it served; inf where `TIMES` do not reach that far."""
    before = np.zeros(len(TIMES))
    found: list[Floats] = []
    for begin in range(0, len(line), AT_ONCE):
        part = line[begin : begin + AT_ONCE]
        use = before + np.cumsum(_use(part), axis=0)
        ahead = np.vstack([before[None, :], use[:-1]])
        own = np.array([candidate.shape.share for candidate in part])
        # The room that it needs itself has to come free as well.
        missing = ahead + own[:, None] * np.minimum(TIMES, 1.0) - given[None, :]
        found.append(_first_crossing(missing))
        before = use[-1]
    return np.concatenate(found)


def _use(part: Sequence[Candidate]) -> Floats:
    """Room-seconds that each gang is expected to have used by each of `TIMES`, had it started now: a row a gang."""
    kinds: dict[tuple[float, float, float, float | None], int] = {}
    rows = [kinds.setdefault((c.shape.share, c.prediction.seconds, c.prediction.spread, c.job.timeout_s), len(kinds)) for c in part]
    share, middle, spread = (np.array([kind[column] for kind in kinds]) for column in range(3))
    limit = np.array([np.inf if kind[3] is None else kind[3] for kind in kinds])
    shape = np.array([log_logistic(float(one)) for one in spread])
    with np.errstate(divide="ignore"):
        odds = np.exp(np.minimum(shape[:, None] * np.log(TIMES[None, :] / middle[:, None]), 600.0))
    runs = np.where(TIMES[None, :] < limit[:, None], 1 / (1 + odds), 0.0)
    return np.asarray((share[:, None] * _added_up(runs))[rows])


def _first_crossing(missing: Floats) -> Floats:
    """Where each row falls to zero or below, by straight lines between `TIMES`.

    At the beginning, when nobody has used or been given anything, all of them are zero, which does not count.
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
