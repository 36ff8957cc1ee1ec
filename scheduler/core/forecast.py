"""When each waiting gang will probably start: the room-time that becomes free, against what those before it will use of it.

By a time ``t`` from now the room gives the integral of what is free (now, and as running gangs end), and a gang before in line uses
the expected part of its run time that falls within ``t``. A gang starts when the first has caught up with the second. Two lines are
asked: that of the cycle, which gangs submitted later may still join, and that of submission, in which protection serves whoever was
overtaken enough. The first is right for a gang that is soon at its head, the second for one that is not: the longer the first says,
the more will come before the gang, so the two are weighted by the root of their quotient. Where a queue is short of one of its
limits, the same sum is made of that limit, and the gang starts when both let it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.backfill import Floats, Likely
from tuttilab.scheduler.core.desk import Desk
from tuttilab.scheduler.core.estimates import log_logistic
from tuttilab.scheduler.core.line import Candidate, Known
from tuttilab.scheduler.core.quota import JOBS, PODS, counts_of
from tuttilab.scheduler.core.shapes import Shape
from tuttilab.scheduler.resources import Resources

TIMES: Final = np.concatenate([[0.0], np.geomspace(10.0, 90 * 86400.0, 27)])
"""Seconds from now at which both sides are added up; between them they are taken as straight."""
SOONEST_S: Final = 1.0
AT_ONCE: Final = 4096
"""Gangs whose use is added up together, which bounds the memory."""


def line_starts(desk: Desk, waiting: Sequence[Candidate]) -> list[float]:
    """Service time at which each of the waiting gangs may be expected to start; infinite beyond `TIMES`."""
    if not waiting:
        return []
    free = _free(desk)
    needs = _Needs.of(desk.known.take(waiting) if desk.known is not None else Known.of(waiting))
    by_line = needs.starts(free, np.argsort([c.place for c in waiting], kind="stable"))
    by_submission = needs.starts(free, np.lexsort(([c.job.order for c in waiting], [not c.is_lifted for c in waiting])))
    overtaking = max(queue.overtaking for queue in desk.snapshot.queues.values())
    latest = by_submission / max(1 - overtaking, 0.1)
    after = _between(np.maximum(by_line, SOONEST_S), np.maximum(latest, SOONEST_S))
    for rows, later in _by_limits(desk, waiting):
        after[rows] = np.maximum(after[rows], later)
    starts: list[float] = (desk.now + after).tolist()
    return starts


def _by_limits(desk: Desk, waiting: Sequence[Candidate]) -> Iterator[tuple[npt.NDArray[np.intp], Floats]]:
    """Gangs below each queue that is short of one of its limits, by number, and seconds until the limit lets each of them start."""
    for step in desk.snapshot.queues.values():
        limits = {key: most for key, most in step.max if most}
        limits |= {key: most for key, most in ((JOBS, step.max_jobs), (PODS, step.max_pods)) if most}
        if not limits:
            continue
        below = desk.queues_below(step.name)
        numbers = [number for number, candidate in enumerate(waiting) if candidate.job.queue in below]
        running = [runner for runner in desk.running if runner.queue in below]
        asked = {id(waiting[number].shape): _asked(waiting[number].shape) for number in numbers}
        for key, most in limits.items():
            wanting = [number for number in numbers if 0 < asked[id(waiting[number].shape)][key] <= most]
            shares = np.array([asked[id(waiting[number].shape)][key] / most for number in wanting])
            used = np.array([(runner.charge + counts_of(runner.pods))[key] / most for runner in running])
            if shares.sum() + used.sum() <= 1:
                continue
            these = [waiting[number] for number in wanting]
            known = desk.known.take(these) if desk.known is not None else Known.of(these)
            likely = Likely.of(running, desk.now) if running else None
            ended = [float(likely.ended_in(after) @ used) if likely is not None else 0.0 for after in TIMES]
            free = np.array([max(1 - float(used.sum()), 0.0) + part for part in ended])
            order = np.argsort([candidate.place for candidate in these], kind="stable")
            yield np.array(wanting, dtype=np.intp), _Needs.of(replace(known, share=shares)).starts(free, order)


def _asked(shape: Shape) -> Resources:
    """What a limit would count of a gang of this shape."""
    charge = shape.charges[shape.clusters[0].name] if shape.clusters else shape.job.gang.resources
    return charge + counts_of(shape.pods)


def _between(line: Floats, latest: Floats) -> Floats:
    """The earlier one for gangs that are soon at the head, and nearer the later one the longer that takes."""
    with np.errstate(invalid="ignore"):
        weight = np.sqrt(line / latest)
        blend = np.exp((1 - weight) * np.log(line) + weight * np.log(latest))
    return np.where(np.isfinite(line) & np.isfinite(latest) & (line < latest), blend, np.minimum(line, latest))


def _free(desk: Desk) -> Floats:
    """What may be expected to be free of today's running gangs at each of `TIMES`, as shares of the site."""
    layouts = desk.room.layouts
    parts = {name: layout.total.dominant_share(desk.site) for name, layout in layouts.items()}
    used = dict.fromkeys(layouts, 0.0)
    running = [runner for runner in desk.running if runner.cluster in parts]
    for runner in running:
        used[runner.cluster] += runner.share
    free = sum(parts[name] * max(1 - share, 0.0) for name, share in used.items())
    shares = np.array([runner.share * parts[runner.cluster] for runner in running])
    likely = Likely.of(running, desk.now)
    return np.array([free + (float(likely.ended_in(after) @ shares) if running else 0.0) for after in TIMES])


def _added_up(rate: Floats) -> Floats:
    steps = np.diff(TIMES) * (rate[..., 1:] + rate[..., :-1]) / 2
    return np.concatenate([np.zeros((*rate.shape[:-1], 1)), np.cumsum(steps, axis=-1)], axis=-1)


@dataclass(frozen=True, slots=True)
class _Needs:
    """What waiting gangs would use, by kind: gangs of one share, prediction and limit are alike."""

    kinds: npt.NDArray[np.intp]
    share: Floats
    used: Floats
    """Room-seconds that a gang of each kind is expected to have used by each of `TIMES`, had it started now: a row a kind."""

    @classmethod
    def of(cls, known: Known) -> _Needs:
        told = np.array([known.share, known.seconds, known.spread, known.limit])
        count = told.shape[1]
        ranked = np.lexsort(told)
        is_new = np.ones(count, dtype=np.bool_)
        is_new[1:] = (told[:, ranked[1:]] != told[:, ranked[:-1]]).any(axis=0)
        kinds = np.empty(count, dtype=np.intp)
        kinds[ranked] = np.cumsum(is_new) - 1
        share, middle, spread, limit = told[:, ranked[is_new]]
        with np.errstate(divide="ignore"):
            odds = np.exp(np.minimum(log_logistic(spread)[:, None] * np.log(TIMES[None, :] / middle[:, None]), 600.0))
        runs = np.where(TIMES[None, :] < limit[:, None], 1 / (1 + odds), 0.0)
        return cls(kinds, share, share[:, None] * _added_up(runs))

    def starts(self, free: Floats, order: npt.NDArray[np.intp]) -> Floats:
        """Seconds from now at which each gang finds all before it in ``order`` served, or earlier room beside all of them.

        Infinite where `TIMES` do not reach that far.
        """
        given = _added_up(free)
        before = np.zeros(len(TIMES))
        found = np.empty(len(order))
        for begin in range(0, len(order), AT_ONCE):
            part = order[begin : begin + AT_ONCE]
            kinds = self.kinds[part]
            # Of each, what those before it use; in the last row, of all of these.
            use = np.empty((len(part) + 1, len(TIMES)))
            use[0] = before
            np.cumsum(self.used[kinds], axis=0, out=use[1:])
            use[1:] += before
            before = use[-1].copy()
            missing = use[:-1]
            missing -= given
            # The room that it needs itself has to come free as well.
            missing += self.share[kinds][:, None] * np.minimum(TIMES, 1.0)
            found[part] = _first_crossing(missing)
        beside = np.empty(len(order))
        beside[order] = np.interp(np.cumsum(self.share[self.kinds[order]]), np.maximum.accumulate(free), TIMES, right=inf)
        return np.minimum(found, beside)


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
