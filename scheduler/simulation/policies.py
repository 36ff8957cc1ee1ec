"""The policies that can be compared: rules of the one cycle, and where durations come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.estimates import UNKNOWN, Guess, History
from tuttilab.scheduler.core.rules import Expect, Keep, Order, Rules
from tuttilab.scheduler.model import Job, Prediction


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    says: str
    rules: Rules
    knows_durations: bool = False
    """Whether it is told the trace's true durations; else it predicts from history, as the service does."""


_FIRST = Rules(order=Order.SUBMISSION, protects=False, expects=Expect.CORRECTED, tells_all=False)
_OURS = Rules(tells_all=False)

POLICIES: Final[Mapping[str, Policy]] = {
    policy.name: policy
    for policy in (
        Policy("fifo", "strict order of submission", Rules(Order.SUBMISSION, Keep.EVERYTHING, False, tells_all=False), True),
        Policy(
            "besteffort", "order of submission, whoever fits starts", Rules(Order.SUBMISSION, Keep.NOTHING, False, tells_all=False)
        ),
        Policy("easy", "order of submission + EASY backfill, told the true durations", _FIRST, True),
        Policy("easy-predicted", "the same with durations predicted from history, corrected as they prove too short", _FIRST),
        Policy(
            "sjf-oracle",
            "least work first, told the true durations, no hold",
            Rules(keep=Keep.NOTHING, protects=False, expects=Expect.CORRECTED, tells_all=False),
            True,
        ),
        Policy("ours", "least predicted work first with the overtaking account and a hold", _OURS),
    )
}


@dataclass(slots=True)
class Oracle(History):
    """Instead of history: the durations of the trace."""

    durations: Mapping[str, float] = field(default_factory=dict)

    def learn(self, job: Job, duration_s: float) -> None:
        """It knows already."""

    def guess(self, job: Job) -> Guess:
        """One for each job, which nobody forgets."""
        known = self.durations.get(job.id)
        return Guess((), None, UNKNOWN if known is None else Prediction(known, 1.0, "the trace"))
