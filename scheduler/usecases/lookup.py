"""Finds what a person means: by id, by the beginning of an id, by name, or as `LAST`. One answer, or the candidates to choose from.

For jobs and runs alike. Names and `LAST` are those of the caller, also for an admin, who finds others' jobs by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.resources import show_duration

SHORTEST_PREFIX: Final = 4
"""Letters of an id that are enough to look a job or run up."""
LAST: Final = "last"
"""The newest job or run of the caller."""
MOST_NAMED: Final = 1000
"""Newest jobs of which a name is looked for."""
_MOST_SHOWN: Final = 5
_SHORT_ID: Final = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """One job or run that a text may stand for. ``at``: when it was submitted, in seconds since the epoch."""

    id: str
    name: str
    phase: str
    at: float
    is_live: bool


def the_one(text: str, kind: str, candidates: Sequence[Candidate], now: float) -> str | None:
    """The id that is meant, None without candidates. Of several the only live one. Raises NotFound listing them, newest first."""
    live = [one for one in candidates if one.is_live]
    for chosen in (candidates, live):
        if len(chosen) == 1:
            return chosen[0].id
    if not candidates:
        return None
    listed = sorted(candidates, key=lambda one: -one.at)
    shown = ", ".join(
        f"{one.id[:_SHORT_ID]} {one.name} ({one.phase}, {show_duration(max(0.0, now - one.at))} ago)"
        for one in listed[:_MOST_SHOWN]
    )
    more = f" and {len(listed) - _MOST_SHOWN} more" if len(listed) > _MOST_SHOWN else ""
    raise NotFound(f"{text[:80]!r} stands for {len(listed)} {kind}s: {shown}{more}; give the id of one.")
