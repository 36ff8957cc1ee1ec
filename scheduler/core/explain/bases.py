"""On what the told start of a gang is based: past run times or time limits, and of how many jobs ahead; or why none is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.explain.names import Holders, count, named
from tuttilab.scheduler.core.ordering.run_times import told_spread
from tuttilab.scheduler.domain.model import Job, StartForecast

TOO_WIDE: Final = "no start is told: the run times of the jobs ahead differ too much to say"
NOBODY_KNOWS: Final = "no start is told: nothing is known of when what holds it ends"


@dataclass(slots=True)
class _Line:
    """The waiting gangs of one queue: places from which on some of them have past runs, or only a limit."""

    first_known: float = inf
    first_limited: float = inf
    first_unknown: tuple[int, Job] | None = None


@dataclass(slots=True)
class Bases:
    _lines: dict[str, _Line] = field(default_factory=dict)

    @classmethod
    def of(cls, waiting: Sequence[Candidate]) -> Bases:
        bases = cls()
        for candidate in waiting:
            line = bases._lines.setdefault(candidate.job.queue, _Line())
            if told_spread(candidate.prediction, candidate.job) < inf:
                line.first_known = min(line.first_known, candidate.place)
            elif candidate.job.timeout_s is not None:
                line.first_limited = min(line.first_limited, candidate.place)
            elif line.first_unknown is None or candidate.place < line.first_unknown[0]:
                line.first_unknown = (candidate.place, candidate.job)
        return bases

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

    def of_none(self, candidate: Candidate, holders: Holders | None, made_of: StartForecast | None) -> str:
        """Why no start is told."""
        line = self._lines[candidate.job.queue]
        if made_of is not None:
            return TOO_WIDE
        unknown = holders.shown_to(candidate.job).first_unknown if holders is not None else None
        if unknown is not None:
            what = named(unknown.job, candidate.job.owner, with_remedy=False)
            return f"no start is told: {what} has no time limit and no past run to go by"
        if line.first_unknown is not None and line.first_unknown[0] < candidate.place:
            return "no start is told: a job ahead has no time limit and no past run to go by"
        return NOBODY_KNOWS
