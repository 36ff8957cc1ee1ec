"""Many unlike gangs asked at once whether there is room for them, so that those without are not each placed in vain.

A gang is refused when its first part, the one that fewest nodes take, has room for fewer of its pods than it wants: to place the
gang would get stuck there, and would tell the same of it. Room only shrinks while gangs are served, so whoever was refused stays
refused. Which node came closest is found for all of them together too, before the room changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.layout import Amounts, Layout, Terms
from tuttilab.scheduler.core.placement import Counts, Misfit, Part, misfit_of
from tuttilab.scheduler.core.shapes import Shape
from tuttilab.scheduler.resources import NOTHING, Resources

FEW: Final = 64
"""With fewer shapes in a cycle each is tried by itself."""
FIRST_AHEAD: Final = 8
MOST_AHEAD: Final = 512
"""Gangs of a line asked at once: few after one has started, as more may, then ever more."""
AT_ONCE: Final = 128
"""Gangs compared with all nodes at once, which bounds the memory; and nodes with all gangs, until a closest one is found."""

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


@dataclass(slots=True)
class Sieve:
    """Of one cluster, as long as its room only shrinks."""

    layout: Layout
    _most: dict[Shape, int] = field(default_factory=dict)
    """For how many pods of its first part there was room when it was asked last, as far as it wants them."""
    _untold: list[tuple[Misfit, Part, bool]] = field(default_factory=list)
    """Refused, but not told yet which node came closest; and whether some of the pods may fit."""
    _shorts: dict[tuple[int, ...], Resources] = field(default_factory=dict)

    def sift(self, shapes: Iterable[Shape], free: Amounts) -> None:
        """Note for how many pods of each there is room."""
        asked: dict[Terms, list[tuple[Shape, Part]]] = {}
        for shape in shapes:
            if self._most.get(shape) != 0:
                part = shape.demand(self.layout).parts[0]
                if part.cost is None or not self.layout.nodes:
                    self._most[shape] = 0
                else:
                    asked.setdefault(part.terms, []).append((shape, part))
        for terms, parts in asked.items():
            costs = np.array([part.cost for _, part in parts])
            counts = np.array([part.pod_set.count for _, part in parts])
            room = _room(costs, counts, np.maximum(free[self.layout.takes(terms)], 0))
            self._most.update(zip((shape for shape, _ in parts), room.tolist(), strict=True))

    def is_refused(self, shape: Shape) -> bool:
        """Whether there is no room for a single pod."""
        return self._most.get(shape) == 0

    def misfit(self, shape: Shape, counts: Counts | None, free: Amounts, tells: bool) -> Misfit | None:
        """What placing the gang would say if it was asked and is known not to fit; with ``tells`` the rest follows in `tell`."""
        most = self._most.get(shape)
        if most is None:
            return None
        part = shape.demand(self.layout).parts[0]
        pod_set = part.pod_set
        if most >= (pod_set.count if counts is None else counts.get(pod_set.role, pod_set.count)):
            return None
        if tells and (part.cost is None or not self.layout.nodes):
            return misfit_of(part, self.layout, free, 0)
        misfit = Misfit(pod_set, 0, None, NOTHING)
        if tells:
            self._untold.append((misfit, part, most > 0))
        return misfit

    def tell(self, free: Amounts) -> None:
        """Fill in which node comes closest for those refused since the last time. The room is still as it was then."""
        asked: dict[tuple[Terms, bool], list[tuple[Misfit, Part]]] = {}
        for misfit, part, may_fit in self._untold:
            asked.setdefault((part.terms, may_fit), []).append((misfit, part))
        self._untold.clear()
        totals = np.maximum(self.layout.allocatable.sum(axis=0), 1)
        for (terms, may_fit), parts in asked.items():
            rows = np.nonzero(self.layout.takes(terms))[0]
            rows = rows if len(rows) else np.arange(len(self.layout.nodes))
            for begin in range(0, len(parts), AT_ONCE):
                some = parts[begin : begin + AT_ONCE]
                costs = np.array([part.cost for _, part in some])
                placed, best, lack = (_closest_with_some if may_fit else _closest)(costs, free[rows], totals)
                told = zip(placed.tolist(), rows[best].tolist(), map(tuple, lack.tolist()), strict=True)
                for (misfit, _), (misfit.placed, row, short) in zip(some, told, strict=True):
                    misfit.closest, misfit.short = self.layout.nodes[row].name, self._short(short)

    def _short(self, amounts: tuple[int, ...]) -> Resources:
        if amounts not in self._shorts:
            self._shorts[amounts] = Resources.of(zip(self.layout.keys, amounts, strict=True))
        return self._shorts[amounts]


def _room(costs: Amounts, counts: Amounts, free: Amounts) -> Amounts:
    """For how many pods of each cost, a row each, the nodes have room together, up to its count."""
    free = free[(free >= costs.min(axis=0)).all(axis=1)]
    fits = np.ones((len(costs), len(free)), dtype=np.bool_)
    for column in range(costs.shape[1]):
        if costs[:, column].any():
            fits &= costs[:, column, None] <= free[None, :, column]
    is_some = np.array(fits.any(axis=1))
    room = np.where(is_some, 1, 0)
    several = np.nonzero(is_some & (counts > 1))[0]
    if len(several):
        each = np.repeat(counts[several, None], len(free), axis=1)
        room[several] = np.minimum(_times(costs[several], free, each).sum(axis=1), counts[several])
    return room


def _times(costs: Amounts, free: Amounts, most: Amounts) -> Amounts:
    """How often each cost, a row each, fits on each node, a column each; up to ``most``, which is changed."""
    for column in range(costs.shape[1]):
        cost = costs[:, column]
        if cost.any():
            times = np.maximum(free[None, :, column], 0) // np.maximum(cost, 1)[:, None]
            np.minimum(most, np.where(cost[:, None] > 0, times, most), out=most)
    return most


def _closest(costs: Amounts, free: Amounts, totals: Amounts) -> tuple[Amounts, Rows, Amounts]:
    """For each cost that fits no node: 0, the first node that lacks the least share of any one resource, and what it lacks."""
    # No node lacks less than what the largest free amount of each resource, wherever it is, leaves missing.
    floor = (np.maximum(costs - free.max(axis=0), 0) / totals).max(axis=1)
    least, best, left = np.full(len(costs), np.inf), np.zeros(len(costs), dtype=np.intp), np.arange(len(costs))
    for begin in range(0, len(free), AT_ONCE):
        lack = _lack(costs[left], free[None, begin : begin + AT_ONCE], totals)
        first = lack.argmin(axis=1)
        value = lack[np.arange(len(left)), first]
        is_less = value < least[left]
        least[left[is_less]], best[left[is_less]] = value[is_less], begin + first[is_less]
        left = left[least[left] > floor[left]]
        if not len(left):
            break
    return np.zeros(len(costs), dtype=np.int64), best, np.maximum(costs - free[best], 0)


def _closest_with_some(costs: Amounts, free: Amounts, totals: Amounts) -> tuple[Amounts, Rows, Amounts]:
    """The same for costs that some nodes have room for: how many pods fit, and of what is free once these have taken it."""
    times = _times(costs, free, np.full((len(costs), len(free)), np.iinfo(np.int64).max))
    left = free[None] - times[:, :, None] * costs[:, None, :]
    best = _lack(costs, left, totals).argmin(axis=1)
    return times.sum(axis=1), best, np.maximum(costs - left[np.arange(len(costs)), best], 0)


def _lack(costs: Amounts, free: Amounts, totals: Amounts) -> Floats:
    """The largest share of any one resource that each node, a column each, lacks for each cost, a row each."""
    lack = np.zeros((len(costs), free.shape[1]))
    for column in range(costs.shape[1]):
        np.maximum(lack, np.maximum(costs[:, column, None] - free[:, :, column], 0) / totals[column], out=lack)
    return lack
