"""On what the told start of a gang is based: past run times or time limits, and of how many jobs ahead; or why none is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.explain.names import HeldBy, Holders, count

TOO_WIDE: Final = "no start is told: the run times of the jobs ahead differ too much to say"
NOBODY_KNOWS: Final = "no start is told: nothing is known of when what holds it ends"


@dataclass(slots=True)
class _Line:
    """The waiting gangs of one queue: places from which on some of them have past runs, only a limit, or nothing."""

    first_known: float = inf
    first_limited: float = inf
    first_unknown: float = inf


@dataclass(slots=True)
class Bases:
    _lines: dict[str, _Line] = field(default_factory=dict)

    @classmethod
    def of(cls, waiting: Sequence[Candidate], spreads: Sequence[float]) -> Bases:
        """``spreads``: `told_spread` of each."""
        lines: dict[str, _Line] = {}
        for candidate, spread in zip(waiting, spreads, strict=True):
            job, place = candidate.job, candidate.place
            line = lines.get(job.queue)
            if line is None:
                line = lines[job.queue] = _Line()
            if spread < inf:
                line.first_known = min(line.first_known, place)
            elif job.timeout_s is not None:
                line.first_limited = min(line.first_limited, place)
            elif place < line.first_unknown:
                line.first_unknown = place
        return cls(lines)

    def of_start(self, candidate: Candidate, holders: Holders | None) -> str:
        """``past run times of 3 jobs ahead``."""
        line = self._lines[candidate.job.queue]
        is_known = line.first_known < candidate.place or (holders is not None and holders.is_any_known)
        is_limited = line.first_limited < candidate.place or (holders is not None and holders.is_any_limited)
        ahead = candidate.place - 1 + (len(holders.running) if holders is not None else 0)
        what = " and ".join(
            part for part, is_one in (("past run times", is_known or not is_limited), ("time limits", is_limited)) if is_one
        )
        return f"{what} of {count(ahead, 'job')} ahead" if ahead > 0 else f"{what} of what runs"

    def of_none(self, candidate: Candidate, held: HeldBy | None) -> str:
        """Why no start is told: what is known of what runs or is ahead."""
        if held is not None and held.first_unknown:
            return f"no start is told: {held.first_unknown} has no time limit and no past run to go by"
        if self._lines[candidate.job.queue].first_unknown < candidate.place:
            return "no start is told: a job ahead has no time limit and no past run to go by"
        return NOBODY_KNOWS
