"""The numbers and switches of a cycle. The defaults are the service's; the simulator also runs the classical policies with them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Order(StrEnum):
    SMALL_FIRST = "small-first"
    """Least predicted work first while the cluster is short, with protection of who was overtaken enough."""
    SUBMISSION = "submission"


class Keep(StrEnum):
    """What is kept for the first gang that does not fit."""

    NOTHING = "nothing"
    """Whoever fits starts (skipping)."""
    EVERYTHING = "everything"
    """Nobody passes it (strict order)."""
    HOLD = "hold"
    """Whoever does not delay it may pass it (EASY)."""


class Expect(StrEnum):
    """What is made of the predicted ends of running gangs when a hold's start is looked for."""

    LIKELY = "likely"
    """Each end has a probability at each time; the start is when as much room as is missing may be expected to be free."""
    CORRECTED = "corrected"
    """Each gang ends when it is predicted to, moved on in steps when it did not (EASY as published)."""


@dataclass(frozen=True, slots=True)
class Rules:
    order: Order = Order.SMALL_FIRST
    keep: Keep = Keep.HOLD
    protects: bool = True
    """Whether the overtaking account protects; off for the policies that have no such promise."""
    preempts: bool = True
    expects: Expect = Expect.LIKELY
    idle_notebook_s: float = 60.0
    """A notebook without a running cell for so long is not busy."""
    tells_all: bool = True
    """Whether every waiting gang gets its reason. A simulation that only asks what starts leaves it out."""


THE_SERVICES: Final = Rules()
