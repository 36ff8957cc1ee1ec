"""The ranges in which starts were told, as a table: the next cycle compares all of them with what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.domain.model import Wait

Floats = npt.NDArray[np.float64]


class Told(NamedTuple):
    """When a gang starts, in service time, and on what basis."""

    start: float
    earliest: float
    latest: float
    basis: str


@dataclass(frozen=True, slots=True, eq=False)
class ToldRanges:
    """The starts that were told, with the range around each in service time, and the basis."""

    rows: Mapping[str, int]
    """By job id, the row of each gang that was told when it starts."""
    starts: Floats
    earliest: Floats
    latest: Floats
    bases: Sequence[object]
    """Their `str` is the text: one that nobody reads is not made."""

    @classmethod
    def of(cls, waits: Iterable[Wait]) -> ToldRanges:
        told = [wait for wait in waits if not (wait.earliest is None or wait.latest is None or wait.estimated_start is None)]
        columns = np.array([(wait.estimated_start, wait.earliest, wait.latest) for wait in told], dtype=np.float64).reshape(-1, 3)
        starts, earliest, latest = columns.T
        return cls({wait.job_id: row for row, wait in enumerate(told)}, starts, earliest, latest, [wait.basis for wait in told])

    def rows_of(self, job_ids: Iterable[str]) -> npt.NDArray[np.intp]:
        """The row of each; -1 for one that was told nothing."""
        get = self.rows.get
        return np.array([get(job_id, -1) for job_id in job_ids], dtype=np.intp)

    def get(self, job_id: str) -> Told | None:
        row = self.rows.get(job_id)
        if row is None:
            return None
        return Told(float(self.starts[row]), float(self.earliest[row]), float(self.latest[row]), str(self.bases[row]))


NO_RANGES: Final = ToldRanges.of(())
