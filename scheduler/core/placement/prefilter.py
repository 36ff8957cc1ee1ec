"""Prefilter: refuses many unlike gangs at once, in vectorized checks, without placing each of them.

A gang is refused when there is too little room for its first part, the one that fewest nodes take. Placing the gang would fail at
the same part with the same misfit. Room only shrinks while gangs are served, so a refusal stays valid. The closest node of each
refused gang is found for all of them together, before the room changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.placement.fit import Counts, Misfit, Part, misfit_of
from tuttilab.scheduler.core.placement.node_arrays import Amounts, NodeArrays, Terms
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.domain.resources import NOTHING, Resources

MIN_SHAPES: Final = 64
"""With fewer shapes in a cycle, each is tried without the prefilter."""
FIRST_BATCH: Final = 8
MAX_BATCH: Final = 512
"""How many gangs of a line are checked at once: few after one has started, as the next ones may start too, then more."""
CHUNK: Final = 128
"""Bounds the memory: gangs compared with all nodes at once, and nodes compared with all gangs in `_closest`."""

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


@dataclass(slots=True)
class Prefilter:
    """The prefilter of one cluster; valid as long as the cluster's room only shrinks."""

    arrays: NodeArrays
    _most: dict[Shape, int] = field(default_factory=dict)
    """For how many pods of its first part there was room at the last evaluation, at most its count."""
    _unexplained: list[tuple[Misfit, Part, bool]] = field(default_factory=list)
    """Misfits whose closest node is not recorded yet, with the part and whether some of its pods may fit."""
    _shorts: dict[tuple[int, ...], Resources] = field(default_factory=dict)

    def evaluate(self, shapes: Iterable[Shape], free: Amounts) -> None:
        """Record for how many pods of the first part of each shape there is room."""
        asked: dict[Terms, list[tuple[Shape, Part]]] = {}
        for shape in shapes:
            if self._most.get(shape) != 0:
                part = shape.demand(self.arrays).parts[0]
                if part.cost is None or not self.arrays.nodes:
                    self._most[shape] = 0
                else:
                    asked.setdefault(part.terms, []).append((shape, part))
        for terms, parts in asked.items():
            costs = np.array([part.cost for _, part in parts])
            counts = np.array([part.pod_set.count for _, part in parts])
            room = _room(costs, counts, np.maximum(free[self.arrays.takes(terms)], 0))
            self._most.update(zip((shape for shape, _ in parts), room.tolist(), strict=True))

    def is_refused(self, shape: Shape) -> bool:
        """Whether there is no room for a single pod of the first part."""
        return self._most.get(shape) == 0

    def misfit(self, shape: Shape, counts: Counts | None, free: Amounts, explains: bool) -> Misfit | None:
        """The misfit that placing the gang would give; None if it may fit or was not evaluated.

        With ``explains``, `record_closest_nodes` fills in the closest node.
        """
        most = self._most.get(shape)
        if most is None:
            return None
        part = shape.demand(self.arrays).parts[0]
        pod_set = part.pod_set
        if most >= (pod_set.count if counts is None else counts.get(pod_set.role, pod_set.count)):
            return None
        if explains and (part.cost is None or not self.arrays.nodes):
            return misfit_of(part, self.arrays, free, 0)
        misfit = Misfit(pod_set, 0, None, NOTHING)
        if explains:
            self._unexplained.append((misfit, part, most > 0))
        return misfit

    def record_closest_nodes(self, free: Amounts) -> None:
        """Fill in the closest node of the misfits returned since the last call. The room must not have changed since then."""
        asked: dict[tuple[Terms, bool], list[tuple[Misfit, Part]]] = {}
        for misfit, part, may_fit in self._unexplained:
            asked.setdefault((part.terms, may_fit), []).append((misfit, part))
        self._unexplained.clear()
        totals = np.maximum(self.arrays.allocatable.sum(axis=0), 1)
        for (terms, may_fit), parts in asked.items():
            rows = np.nonzero(self.arrays.takes(terms))[0]
            rows = rows if len(rows) else np.arange(len(self.arrays.nodes))
            for begin in range(0, len(parts), CHUNK):
                some = parts[begin : begin + CHUNK]
                costs = np.array([part.cost for _, part in some])
                placed, best, lack = (_closest_with_some if may_fit else _closest)(costs, free[rows], totals)
                found = zip(placed.tolist(), rows[best].tolist(), map(tuple, lack.tolist()), strict=True)
                for (misfit, _), (misfit.placed, row, short) in zip(some, found, strict=True):
                    misfit.closest, misfit.short = self.arrays.nodes[row].name, self._short(short)

    def _short(self, amounts: tuple[int, ...]) -> Resources:
        if amounts not in self._shorts:
            self._shorts[amounts] = Resources.of(zip(self.arrays.keys, amounts, strict=True))
        return self._shorts[amounts]


def _room(costs: Amounts, counts: Amounts, free: Amounts) -> Amounts:
    """For how many pods of each cost (one per row) all nodes together have room, up to its count."""
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
        room[several] = np.minimum(_times_fitting(costs[several], free, each).sum(axis=1), counts[several])
    return room


def _times_fitting(costs: Amounts, free: Amounts, most: Amounts) -> Amounts:
    """How often each cost (rows) fits on each node (columns), up to ``most``, which is modified in place."""
    for column in range(costs.shape[1]):
        cost = costs[:, column]
        if cost.any():
            times = np.maximum(free[None, :, column], 0) // np.maximum(cost, 1)[:, None]
            np.minimum(most, np.where(cost[:, None] > 0, times, most), out=most)
    return most


def _closest(costs: Amounts, free: Amounts, totals: Amounts) -> tuple[Amounts, Rows, Amounts]:
    """For each cost that fits on no node: 0 pods, the closest node and what it lacks.

    The closest node is the first one whose largest lack, as a share of the resource's total, is smallest.
    """
    # Lower bound: the lack on an imaginary node with the largest free amount of every resource.
    floor = (np.maximum(costs - free.max(axis=0), 0) / totals).max(axis=1)
    least, best, left = np.full(len(costs), np.inf), np.zeros(len(costs), dtype=np.intp), np.arange(len(costs))
    for begin in range(0, len(free), CHUNK):
        lack = _lack(costs[left], free[None, begin : begin + CHUNK], totals)
        first = lack.argmin(axis=1)
        value = lack[np.arange(len(left)), first]
        is_less = value < least[left]
        least[left[is_less]], best[left[is_less]] = value[is_less], begin + first[is_less]
        left = left[least[left] > floor[left]]
        if not len(left):
            break
    return np.zeros(len(costs), dtype=np.int64), best, np.maximum(costs - free[best], 0)


def _closest_with_some(costs: Amounts, free: Amounts, totals: Amounts) -> tuple[Amounts, Rows, Amounts]:
    """As `_closest`, for costs that some nodes have room for: the number of pods that fit, and the closest node after them."""
    times = _times_fitting(costs, free, np.full((len(costs), len(free)), np.iinfo(np.int64).max))
    left = free[None] - times[:, :, None] * costs[:, None, :]
    best = _lack(costs, left, totals).argmin(axis=1)
    return times.sum(axis=1), best, np.maximum(costs - left[np.arange(len(costs)), best], 0)


def _lack(costs: Amounts, free: Amounts, totals: Amounts) -> Floats:
    """The largest lack of any one resource, as a share of its total, by cost (rows) and node (columns)."""
    lack = np.zeros((len(costs), free.shape[1]))
    for column in range(costs.shape[1]):
        np.maximum(lack, np.maximum(costs[:, column, None] - free[:, :, column], 0) / totals[column], out=lack)
    return lack
