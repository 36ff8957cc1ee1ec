"""Parameters of a cycle. The defaults are the service's; the simulator also runs classical policies with other values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Order(StrEnum):
    SMALL_FIRST = "small-first"
    """Least expected work first while room is short."""
    SUBMISSION = "submission"


class Reservation(StrEnum):
    """What is reserved for the first gang that does not fit."""

    NOTHING = "nothing"
    """Any later gang that fits starts (best effort)."""
    EVERYTHING = "everything"
    """No later gang starts (strict order)."""
    HOLD = "hold"
    """A later gang starts if it does not delay the first one (EASY backfill)."""


class EndEstimate(StrEnum):
    """How the start of a hold is computed from the predicted ends of running gangs."""

    PROBABILISTIC = "probabilistic"
    """Each end is a distribution; the start is when the expected free room is enough."""
    CORRECTED = "corrected"
    """Each gang ends as predicted, and a prediction that has passed is extended in steps (EASY as published)."""


@dataclass(frozen=True, slots=True)
class Rules:
    order: Order = Order.SMALL_FIRST
    reservation: Reservation = Reservation.HOLD
    protects: bool = True
    """Whether overtaking accounts protect gangs; off for policies without this guarantee."""
    preempts: bool = True
    end_estimate: EndEstimate = EndEstimate.PROBABILISTIC
    idle_notebook_s: float = 60.0
    """A notebook without a running cell for this long is not busy."""
    back_off_s: float = 10.0
    """Before the first further attempt of a job that was lost or could not be launched; it doubles with each."""
    explains_all: bool = True
    """Whether every waiting gang gets its reason; off in simulations that only need the starts."""


SERVICE_RULES: Final = Rules()
