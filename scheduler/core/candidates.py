"""Candidates of each queue, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.causes import Cause
from tuttilab.scheduler.core.ordering.run_times import expected_s
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.rules import Rules
from tuttilab.scheduler.domain.model import Job, Prediction

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Candidate:
    """A waiting gang that may be considered in this cycle, with what decides its place."""

    job: Job
    shape: Shape
    prediction: Prediction
    is_protected: bool
    is_class_exempt: bool
    place: int = 0
    cause: Cause | None = None
    size: float = 0.0
    """Sort key in its class, lowest first; see `sort_candidates`."""
    number: int = 0
    """Row in `CandidateArrays`."""

    @property
    def protected_rank(self) -> tuple[bool, int, int]:
        """Order among protected gangs, lowest first: class exempt ones, then by class, then by submission."""
        return (not self.is_class_exempt, -self.job.priority, self.job.order)


@dataclass(slots=True)
class Line:
    """The candidates of one queue."""

    candidates: list[Candidate] = field(default_factory=list)
    shapes: dict[int | None, Shape] = field(default_factory=dict)
    """By shape number, those of ``candidates``."""


@dataclass(frozen=True, slots=True)
class CandidateArrays:
    """Candidates as arrays: dominant share, predicted seconds and spread, run-time limit (infinite without one)."""

    share: Floats
    seconds: Floats
    spread: Floats
    limit: Floats
    nodes: Floats
    """How many nodes each fills."""
    widest: Floats
    """The largest part of a node that a pod of it asks for."""

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> CandidateArrays:
        for number, candidate in enumerate(candidates):
            candidate.number = number
        return cls(
            np.array([c.shape.share for c in candidates]),
            np.array([c.prediction.seconds for c in candidates]),
            np.array([c.prediction.spread for c in candidates]),
            np.array([inf if c.job.timeout_s is None else c.job.timeout_s for c in candidates]),
            np.array([c.shape.nodes for c in candidates]),
            np.array([c.shape.widest for c in candidates]),
        )

    def take(self, candidates: Iterable[Candidate]) -> CandidateArrays:
        """The rows of ``candidates``."""
        return self.rows(np.array([c.number for c in candidates], dtype=np.intp))

    def rows(self, rows: npt.NDArray[np.intp]) -> CandidateArrays:
        columns = (self.share, self.seconds, self.spread, self.limit, self.nodes, self.widest)
        return CandidateArrays(*(column[rows] for column in columns))

    def deferral_s(self, rules: Rules) -> Floats:
        """By how much later than its submission each stands in line (`Rules.patience`).

        Serving least expected work first minimizes the mean wait (Rothkopf 1966), and lets large gangs wait longest; adding a
        multiple of it to the time of submission keeps most of the gain and bounds how long. Expectation, not median: of two runs
        with the same median, the less certain one is more often very long.
        """
        expected = np.minimum(expected_s(self.seconds, self.spread), self.limit)
        return np.minimum(rules.patience * expected * self.nodes**rules.size_power, rules.longest_deferral_s)


def sort_candidates(lines: Mapping[str, list[Candidate]], deferrals_s: Mapping[str, Sequence[float]]) -> None:
    """Sort by class, then protected gangs first, then submission and deferral, then submission.

    ``deferrals_s``: by queue, by row of `CandidateArrays`; queues without an entry are in order of submission.

    Of the protected gangs, those of several pods go first, largest first: the room that one of them leaves serves the next without
    draining the cluster again. The hold goes by submission (`WorkingSet.hold_for_protected`).
    """
    for queue, line in lines.items():
        deferral_s = deferrals_s.get(queue)
        has_protected = False
        for candidate in line:
            if candidate.is_protected:
                has_protected = True
                candidate.size = -candidate.shape.share if candidate.job.gang.size > 1 else 0.0
            elif deferral_s is not None:
                candidate.size = candidate.job.submitted_at + deferral_s[candidate.number]
        # Stable sorts, least significant key first; without those that change nothing.
        line.sort(key=attrgetter("job.order"))
        if has_protected or deferral_s is not None:
            line.sort(key=attrgetter("size"))
        if has_protected:
            line.sort(key=lambda candidate: not candidate.is_protected)
        if len({candidate.job.priority for candidate in line}) > 1:
            line.sort(key=attrgetter("job.priority"), reverse=True)
        for place, candidate in enumerate(line, start=1):
            candidate.place = place
