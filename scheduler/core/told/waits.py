"""Why each gang waits. Each cycle has a reason for thousands, of which few are read, so each is put into words when it is."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final, overload

from tuttilab.scheduler.core.told.ranges import ToldRanges
from tuttilab.scheduler.domain.model import StartForecast, Wait, Why


@dataclass(frozen=True, slots=True, eq=False)
class Waits(Sequence[Wait]):
    """What a cycle says of the gangs that do not start, in order of submission."""

    job_ids: Sequence[str]
    make: Callable[[str], Wait]
    """By job id; KeyError for a gang that does not wait."""
    why_of: Callable[[str], Why]
    foreseen: Sequence[str]
    """The gangs whose start was forecast."""
    forecast_of: Callable[[str], StartForecast | None]
    """None also for a gang that does not wait."""
    ranges: ToldRanges
    _made: dict[str, Wait] = field(default_factory=dict)

    @classmethod
    def of_all(cls, waits: Iterable[Wait]) -> Waits:
        """From waits that are there already."""
        made = {wait.job_id: wait for wait in waits}

        def forecast_of(job_id: str) -> StartForecast | None:
            return made[job_id].forecast if job_id in made else None

        foreseen = [wait.job_id for wait in made.values() if wait.forecast is not None]
        ranges = ToldRanges.of(made.values())
        return cls(tuple(made), made.__getitem__, lambda one: made[one].why, foreseen, forecast_of, ranges, made)

    def of(self, job_id: str) -> Wait:
        made = self._made.get(job_id)
        if made is None:
            made = self._made[job_id] = self.make(job_id)
        return made

    def __len__(self) -> int:
        return len(self.job_ids)

    @overload
    def __getitem__(self, place: int) -> Wait: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Wait, ...]: ...
    def __getitem__(self, place: int | slice) -> Wait | tuple[Wait, ...]:
        if isinstance(place, slice):
            return tuple(map(self.of, self.job_ids[place]))
        return self.of(self.job_ids[place])

    def __iter__(self) -> Iterator[Wait]:
        return map(self.of, self.job_ids)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.job_ids))


NO_WAITS: Final = Waits.of_all(())


class WaitsByJob(MutableMapping[str, Wait]):
    """The waits of the last cycle by job id; jobs that no longer wait are taken out."""

    __slots__ = ("_left", "_put", "waits")

    def __init__(self, waits: Waits = NO_WAITS, still: Container[str] | None = None) -> None:
        """``still``: the jobs that wait still; without it, all."""
        self.waits = waits
        self._left = dict.fromkeys(waits.job_ids if still is None else (one for one in waits.job_ids if one in still))
        self._put: dict[str, Wait] = {}

    def why_of(self, job_id: str) -> Why:
        return self[job_id].why if job_id in self._put else self.waits.why_of(job_id)

    def only(self, still: Container[str]) -> WaitsByJob:
        """Those of the jobs in ``still``."""
        found = WaitsByJob(self.waits, {one for one in self._left if one in still})
        found._put = {one: wait for one, wait in self._put.items() if one in still}
        return found

    def told(self) -> ToldRanges:
        return ToldRanges.of(self.values()) if self._put else self.waits.ranges

    def __getitem__(self, job_id: str) -> Wait:
        if job_id not in self._left:
            raise KeyError(job_id)
        return self._put.get(job_id) or self.waits.of(job_id)

    def __setitem__(self, job_id: str, wait: Wait) -> None:
        self._left[job_id] = None
        self._put[job_id] = wait

    def __delitem__(self, job_id: str) -> None:
        del self._left[job_id]
        self._put.pop(job_id, None)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._left

    def __iter__(self) -> Iterator[str]:
        return iter(self._left)

    def __len__(self) -> int:
        return len(self._left)
