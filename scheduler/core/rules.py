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
    end_estimate: EndEstimate = EndEstimate.CORRECTED
    patience: float = 5.6
    """Seconds by which a gang that fills a node is deferred for each second of its expected run time; 0: order of submission.

    While room is short, a gang stands in line as if it had been submitted later: by ``patience`` x its expected run time x (how
    many nodes it fills) ^ ``size_power``, and by ``longest_deferral_s`` at most.
    """
    size_power: float = 0.5
    """0: deferred by run time alone; 1: by work."""
    longest_deferral_s: float = 24 * 3600.0
    least_trust: float = 0.3
    """Below this part of the variance of run times that predictions explained lately, order is submission (`History.trust`)."""
    protected_at: float = 2.0
    """Multiples of the allowance at which an overtaken gang is protected, ..."""
    overdue_at: float = 8.0
    """... at which its hold adds a margin of one spread to predictions, ..."""
    strict_at: float = 8.0
    """... and from which on it trusts none."""
    idle_notebook_s: float = 60.0
    """A notebook without a running cell for this long is not busy."""
    back_off_s: float = 10.0
    """Before the first further attempt of a job that was lost or could not be launched; it doubles with each."""
    explains_all: bool = True
    """Whether every waiting gang gets its reason; off in simulations that only need the starts."""


SERVICE_RULES: Final = Rules()
