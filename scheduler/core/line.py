"""The gangs that wait in a queue, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.causes import Cause
from tuttilab.scheduler.core.estimates import expected_s
from tuttilab.scheduler.core.shapes import Shape
from tuttilab.scheduler.model import Job, Prediction

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Candidate:
    """A gang that waits and may be considered, with what decides its place."""

    job: Job
    shape: Shape
    prediction: Prediction
    is_protected: bool
    is_lifted: bool
    place: int = 0
    cause: Cause | None = None
    size: float = 0.0
    """Smallest first, in its class: see `put_in_order`."""
    number: int = 0
    """Its row in `Known`."""

    @property
    def protected_rank(self) -> tuple[bool, int, int]:
        return (not self.is_lifted, -self.job.priority, self.job.order)


@dataclass(slots=True)
class Line:
    """Of one queue."""

    candidates: list[Candidate] = field(default_factory=list)
    shapes: dict[int | None, Shape] = field(default_factory=dict)
    """By the number of the shape, of those that were met."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of gangs, a column each: dominant share, predicted middle and spread, run-time limit (infinite without)."""

    share: Floats
    seconds: Floats
    spread: Floats
    limit: Floats

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Known:
        for number, candidate in enumerate(candidates):
            candidate.number = number
        return cls(
            np.array([c.shape.share for c in candidates]),
            np.array([c.prediction.seconds for c in candidates]),
            np.array([c.prediction.spread for c in candidates]),
            np.array([inf if c.job.timeout_s is None else c.job.timeout_s for c in candidates]),
        )

    def take(self, candidates: Iterable[Candidate]) -> Known:
        """The rows of these."""
        rows = np.array([c.number for c in candidates], dtype=np.intp)
        return Known(self.share[rows], self.seconds[rows], self.spread[rows], self.limit[rows])

    def work(self) -> Floats:
        """Room-seconds that each may be expected to use: the order of least expected work has the least mean (Rothkopf 1966).

        The expectation, not the middle: of two runs with the same middle, the one less known is more often very long.
        """
        return self.share * np.minimum(expected_s(self.seconds, self.spread), self.limit)


def put_in_order(lines: Mapping[str, list[Candidate]], known: Known | None) -> None:
    """Priority class, then protected gangs, then least expected work (all alike without ``known``); ties by submission.

    Of the protected, those of several pods go first, largest first: the room that one of them leaves serves the next without
    draining the cluster again. They wait their turn by submission for the hold (`Desk.hold_for_protected`).
    """
    works: list[float] | None = None if known is None else known.work().tolist()
    for line in lines.values():
        has_protected = False
        for candidate in line:
            if candidate.is_protected:
                has_protected = True
                candidate.size = -candidate.shape.share if candidate.job.gang.size > 1 else 0.0
            elif works is not None:
                candidate.size = works[candidate.number]
        # Each sort keeps the order of the one before it among equals.
        line.sort(key=attrgetter("job.order"))
        line.sort(key=attrgetter("size"))
        if has_protected:
            line.sort(key=lambda candidate: not candidate.is_protected)
        line.sort(key=attrgetter("job.priority"), reverse=True)
        for place, candidate in enumerate(line, start=1):
            candidate.place = place
