"""A measured figure beside the limit that the project states for it, as one line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``note`` says what was measured and how often. Seconds, or what ``unit`` says."""

    name: str
    value: float
    limit: float
    note: str
    unit: str = "s"

    @property
    def is_within(self) -> bool:
        return self.value <= self.limit

    def line(self) -> str:
        mark = "ok  " if self.is_within else "OVER"
        against = f"{self._shown(self.value):>9} of {self._shown(self.limit):>8} ({self.value / self.limit:.0%})"
        return f"{mark} {self.name:<48} {against}  {self.note}"

    def _shown(self, value: float) -> str:
        return shown(value) if self.unit == "s" else f"{value:.3g} {self.unit}"


def shown(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
