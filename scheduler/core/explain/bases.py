"""On what the told start of a gang is based: past run times or time limits, and of how many jobs ahead; or why none is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.backfill import Floats
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.explain.names import HeldBy, Holders, count

TOO_WIDE: Final = "no start is told: the run times of the jobs ahead differ too much to say"
NOBODY_KNOWS: Final = "no start is told: nothing is known of when what holds it ends"


class StartBasis(NamedTuple):
    """``past run times of 3 jobs ahead``, as `str`."""

    is_known: bool
    is_limited: bool
    ahead: int

    def __str__(self) -> str:
        what = " and ".join(
            part
            for part, is_one in (("past run times", self.is_known or not self.is_limited), ("time limits", self.is_limited))
            if is_one
        )
        return f"{what} of {count(self.ahead, 'job')} ahead" if self.ahead > 0 else f"{what} of what runs"


@dataclass(frozen=True, slots=True)
class Bases:
    """One element per waiting gang."""

    is_known: list[bool]
    """Whether a gang ahead in line, or one that holds its room, has past runs ..."""
    is_limited: list[bool]
    """... or only a limit, ..."""
    is_unknown: list[bool]
    """... or, in line, nothing."""
    ahead: list[int]

    @classmethod
    def of(cls, waiting: Sequence[Candidate], spreads: Floats, limits: Floats, held: npt.NDArray[np.intp]) -> Bases:
        """``waiting``: queue by queue, by place. ``spreads``: `told_spread` of each; ``held``: `facts` of the holders of each."""
        queues = [candidate.job.queue for candidate in waiting]
        places = np.array([candidate.place for candidate in waiting], dtype=np.intp)
        has_past = np.isfinite(spreads)
        has_limit = ~has_past & np.isfinite(limits)
        begins = [0, *[n for n in range(1, len(queues)) if queues[n] != queues[n - 1]], len(queues)]
        known, limited, unknown = (_is_ahead(which, begins) for which in (has_past, has_limit, ~has_past & ~has_limit))
        return cls(
            (known | (held[:, 0] > 0)).tolist(),
            (limited | (held[:, 1] > 0)).tolist(),
            unknown.tolist(),
            (places - 1 + held[:, 2]).tolist(),
        )

    def of_start(self, number: int) -> StartBasis:
        return StartBasis(self.is_known[number], self.is_limited[number], self.ahead[number])

    def of_none(self, number: int, held: HeldBy | None) -> str:
        """Why no start is told: what is known of what runs or is ahead."""
        if held is not None and held.first_unknown:
            return f"no start is told: {held.first_unknown} has no time limit and no past run to go by"
        if self.is_unknown[number]:
            return "no start is told: a job ahead has no time limit and no past run to go by"
        return NOBODY_KNOWS


def facts(holders: Holders | None) -> tuple[bool, bool, int]:
    """Whether past runs tell the end of any, whether only a limit does, and how many they are."""
    return (False, False, 0) if holders is None else (holders.is_any_known, holders.is_any_limited, len(holders.running))


def _is_ahead(which: npt.NDArray[np.bool_], begins: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Whether one of ``which`` stands before, in the same queue."""
    found = np.zeros(len(which), dtype=np.bool_)
    for begin, end in pairwise(begins):
        found[begin + 1 : end] = np.logical_or.accumulate(which[begin:end])[:-1]
    return found
