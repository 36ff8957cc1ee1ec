"""Whether a few unlike pods can be put on nodes at all: a search through all ways, which alike nodes and dead ends cut short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

MOST_WORK: Final = 2_500
"""Nodes looked at, alike ones counted once: some milliseconds, after which the search gives up."""

Amount = tuple[int, ...]
Kind = tuple[Amount, tuple[bool, ...]]
"""What is free of a node, as far as the gang could ever use it, and which of the parts may go there."""


@dataclass(slots=True)
class Bins:
    """The pods of each part, what one costs, and the nodes by kind, each with its rows."""

    costs: list[Amount]
    counts: list[int]
    kinds: dict[Kind, list[int]]
    found: list[list[int]] = field(default_factory=list)
    work: int = 0
    _dead: set[tuple[int, int, tuple[tuple[Kind, int], ...]]] = field(default_factory=set)

    @classmethod
    def of(
        cls, costs: npt.NDArray[np.int64], counts: Sequence[int], free: npt.NDArray[np.int64], takes: npt.NDArray[np.bool_]
    ) -> Bins:
        """``costs``: a row a part; ``free``: a row a node; ``takes``: which node takes a pod of which part."""
        asked = (costs > 0).any(axis=0)
        costs = costs[:, asked]
        rows = np.nonzero(takes.any(axis=0))[0]
        # Nodes with more than all pods together could use are alike.
        amounts = np.minimum(np.maximum(free[rows][:, asked], 0), (costs * np.array(counts)[:, None]).sum(axis=0))
        kinds: dict[Kind, list[int]] = {}
        for row, amount, may in zip(rows.tolist(), amounts.tolist(), takes[:, rows].T.tolist(), strict=True):
            kinds.setdefault((tuple(amount), tuple(may)), []).append(row)
        return cls([tuple(cost) for cost in costs.tolist()], list(counts), kinds, [[] for _ in counts])

    def move(self, row: int, old: Kind, new: Kind) -> None:
        left = self.kinds[old]
        left.remove(row)
        if not left:
            del self.kinds[old]
        self.kinds.setdefault(new, []).append(row)

    def place(self, part: int, left: int) -> bool:
        """Put ``left`` more pods of the part, and all of those after it; as it was when there is no way or no time left for one."""
        while not left:
            part += 1
            if part == len(self.costs):
                return True
            left = self.counts[part]
        self.work += len(self.kinds)
        if self.work > MOST_WORK:
            return False
        state = (part, left, tuple(sorted((kind, len(rows)) for kind, rows in self.kinds.items())))
        if state in self._dead:
            return False
        cost = self.costs[part]
        if self._is_hopeful(part, left):
            # Least left over first.
            for kind in sorted(kind for kind in self.kinds if kind[1][part] and _times(kind[0], cost)):
                row, rest = self.kinds[kind][0], tuple(have - need for have, need in zip(kind[0], cost, strict=True))
                self.move(row, kind, (rest, kind[1]))
                self.found[part].append(row)
                if self.place(part, left - 1):
                    return True
                self.found[part].pop()
                self.move(row, (rest, kind[1]), kind)
                if self.work > MOST_WORK:
                    return False
        self._dead.add(state)
        return False

    def _is_hopeful(self, part: int, left: int) -> bool:
        """Whether each part alone still has room for its pods."""
        for number in range(part, len(self.costs)):
            need, cost = left if number == part else self.counts[number], self.costs[number]
            for (amount, may), rows in self.kinds.items():
                if need <= 0:
                    break
                if may[number]:
                    need -= _times(amount, cost, need) * len(rows)
            if need > 0:
                return False
        return True


def _times(amount: Amount, cost: Amount, most: int = 1) -> int:
    """How often the cost fits, up to ``most``."""
    return min((have // need for have, need in zip(amount, cost, strict=True) if need), default=most)


def pack(bins: Bins) -> tuple[list[list[int]] | None, bool]:
    """A node's row for each pod of each part; and, without them, whether that is certain: False when the search gave up."""
    # Else not even the first way would be found in time.
    is_small = len(bins.kinds) * sum(bins.counts) <= MOST_WORK
    if is_small and bins.place(0, bins.counts[0]):
        return bins.found, True
    return None, is_small and bins.work <= MOST_WORK
