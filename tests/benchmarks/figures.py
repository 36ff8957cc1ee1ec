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
    is_least: bool = False
    """The limit is the least that is wanted."""

    @property
    def is_within(self) -> bool:
        return self.value >= self.limit if self.is_least else self.value <= self.limit

    def line(self) -> str:
        mark = "ok  " if self.is_within else "OVER"
        share = f" ({self.value / self.limit:.0%})" if self.limit else ""
        word = "at least" if self.is_least else "of"
        return f"{mark} {self.name:<52} {self._shown(self.value):>9} {word} {self._shown(self.limit):>8}{share}  {self.note}"

    def _shown(self, value: float) -> str:
        return shown(value) if self.unit == "s" else f"{value:.4g} {self.unit}".rstrip()


def shown(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
