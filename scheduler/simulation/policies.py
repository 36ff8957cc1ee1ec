"""The policies that can be compared: each is a set of rules for the cycle, and a source of durations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from tuttilab.scheduler.core.ordering.run_times import UNKNOWN, History, PredictionEntry
from tuttilab.scheduler.core.rules import EndEstimate, Order, Reservation, Rules
from tuttilab.scheduler.domain.model import Job, Prediction


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    description: str
    rules: Rules
    knows_durations: bool = False
    """Whether it gets the trace's true durations; else it predicts them from history, as the service does."""


_FIRST = Rules(order=Order.SUBMISSION, protects=False, end_estimate=EndEstimate.CORRECTED, explains_all=False)
_OURS = Rules(explains_all=False)

POLICIES: Final[Mapping[str, Policy]] = {
    policy.name: policy
    for policy in (
        Policy(
            "fifo", "strict order of submission", Rules(Order.SUBMISSION, Reservation.EVERYTHING, False, explains_all=False), True
        ),
        Policy(
            "besteffort",
            "order of submission, whoever fits starts",
            Rules(Order.SUBMISSION, Reservation.NOTHING, False, explains_all=False),
        ),
        Policy("easy", "order of submission + EASY backfill, told the true durations", _FIRST, True),
        Policy("easy-predicted", "the same with durations predicted from history, corrected as they prove too short", _FIRST),
        Policy(
            "sjf-oracle",
            "least work first, told the true durations, no hold",
            replace(
                _FIRST,
                order=Order.SMALL_FIRST,
                reservation=Reservation.NOTHING,
                patience=1e6,
                size_power=1.0,
                longest_deferral_s=inf,
            ),
            True,
        ),
        Policy(
            "ours",
            "submission, deferred by predicted run time where that is trusted, with the overtaking account and a hold",
            _OURS,
        ),
    )
}


@dataclass(slots=True)
class Oracle(History):
    """Returns the durations of the trace instead of predictions from history."""

    durations: Mapping[str, float] = field(default_factory=dict)

    def record_run(self, job: Job, duration_s: float, predicted: Prediction | None = None) -> None:
        """Does nothing: all durations are known."""

    def trust(self, queue: str) -> float:
        """All of it."""
        return 1.0

    def entry(self, job: Job) -> PredictionEntry:
        """The job's true duration."""
        known = self.durations.get(job.id)
        return PredictionEntry((), None, UNKNOWN if known is None else Prediction(known, 1.0, "the trace"))
