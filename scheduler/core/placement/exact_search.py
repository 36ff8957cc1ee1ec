"""Exact search for a placement of a few unlike pods. Equivalent nodes count once, and dead ends are cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

MAX_WORK: Final = 2_500
"""Node classes looked at before the search gives up, after some milliseconds."""

Amount = tuple[int, ...]
NodeClass = tuple[Amount, tuple[bool, ...]]
"""Class of equivalent nodes: free amounts, capped at what the gang could use, and for each part whether the node takes it."""


@dataclass(slots=True)
class Bins:
    """State of the search: what a pod of each part costs, how many there are, and the rows of the nodes by class."""

    costs: list[Amount]
    counts: list[int]
    node_classes: dict[NodeClass, list[int]]
    found: list[list[int]] = field(default_factory=list)
    work: int = 0
    _dead_ends: set[tuple[int, int, tuple[tuple[NodeClass, int], ...]]] = field(default_factory=set)

    @classmethod
    def of(
        cls, costs: npt.NDArray[np.int64], counts: Sequence[int], free: npt.NDArray[np.int64], takes: npt.NDArray[np.bool_]
    ) -> Bins:
        """``costs``: one row per part; ``free``: one row per node; ``takes``: by part and node, whether the node takes its pods."""
        asked = (costs > 0).any(axis=0)
        costs = costs[:, asked]
        rows = np.nonzero(takes.any(axis=0))[0]
        # Free amounts are capped at the demand of all pods together, so that nodes with more than that are equivalent.
        amounts = np.minimum(np.maximum(free[rows][:, asked], 0), (costs * np.array(counts)[:, None]).sum(axis=0))
        node_classes: dict[NodeClass, list[int]] = {}
        for row, amount, may in zip(rows.tolist(), amounts.tolist(), takes[:, rows].T.tolist(), strict=True):
            node_classes.setdefault((tuple(amount), tuple(may)), []).append(row)
        return cls([tuple(cost) for cost in costs.tolist()], list(counts), node_classes, [[] for _ in counts])

    def move(self, row: int, old: NodeClass, new: NodeClass) -> None:
        left = self.node_classes[old]
        left.remove(row)
        if not left:
            del self.node_classes[old]
        self.node_classes.setdefault(new, []).append(row)

    def place(self, part: int, left: int) -> bool:
        """Place ``left`` more pods of the part and all later parts. False, and nothing changed, if there is no way or no time."""
        while not left:
            part += 1
            if part == len(self.costs):
                return True
            left = self.counts[part]
        self.work += len(self.node_classes)
        if self.work > MAX_WORK:
            return False
        state = (part, left, tuple(sorted((group, len(rows)) for group, rows in self.node_classes.items())))
        if state in self._dead_ends:
            return False
        cost = self.costs[part]
        if self._has_room_for_each(part, left):
            # Best fit: the class with least left over first.
            for group in sorted(group for group in self.node_classes if group[1][part] and _times_fitting(group[0], cost)):
                row = self.node_classes[group][0]
                rest = tuple(have - need for have, need in zip(group[0], cost, strict=True))
                self.move(row, group, (rest, group[1]))
                self.found[part].append(row)
                if self.place(part, left - 1):
                    return True
                self.found[part].pop()
                self.move(row, (rest, group[1]), group)
                if self.work > MAX_WORK:
                    return False
        self._dead_ends.add(state)
        return False

    def _has_room_for_each(self, part: int, left: int) -> bool:
        """Whether each part alone still has room for its pods."""
        for number in range(part, len(self.costs)):
            need, cost = left if number == part else self.counts[number], self.costs[number]
            for (amount, may), rows in self.node_classes.items():
                if need <= 0:
                    break
                if may[number]:
                    need -= _times_fitting(amount, cost, need) * len(rows)
            if need > 0:
                return False
        return True


def _times_fitting(amount: Amount, cost: Amount, most: int = 1) -> int:
    """How often the cost fits, up to ``most``."""
    return min((have // need for have, need in zip(amount, cost, strict=True) if need), default=most)


def pack(bins: Bins) -> tuple[list[list[int]] | None, bool]:
    """By part, the node row of each pod, or None; and whether the answer is certain, that is, the search did not give up."""
    # With more than this, even the first way takes too much work to find.
    is_small = len(bins.node_classes) * sum(bins.counts) <= MAX_WORK
    if is_small and bins.place(0, bins.counts[0]):
        return bins.found, True
    return None, is_small and bins.work <= MAX_WORK
