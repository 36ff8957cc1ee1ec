"""Times of day in the five fields of cron: minute, hour, day of month, month, day of week."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo

from tuttilab.scheduler.domain.errors import BadInput

FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
DAYS_AHEAD: Final = 366 * 4 + 1
"""How far the next time is looked for: a 29th of February may be four years away."""


@dataclass(frozen=True, slots=True)
class Cron:
    """``text`` in the time zone ``zone``. An hour that a change of clocks leaves out is none; a repeated one counts once."""

    text: str
    zone: str
    allowed: tuple[frozenset[int], ...]

    @classmethod
    def parse(cls, text: str, zone: str, where: str) -> Self:
        """Raises BadInput naming ``where`` and the field."""
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, KeyError):
            raise BadInput(f"{where}.zone: {zone[:60]!r} is no time zone; expected one such as Europe/Zurich.") from None
        parts = text.split()
        if len(parts) != len(FIELDS):
            raise BadInput(f"{where}.every: {text[:60]!r} has {len(parts)} fields; expected five, such as '0 3 * * *'.")
        allowed = tuple(
            frozenset(_numbers(part, least, most, f"{where}.every, {name}"))
            for part, (name, least, most) in zip(parts, FIELDS, strict=True)
        )
        found = cls(" ".join(parts), zone, allowed)
        try:
            found.next_after(0.0)
        except LookupError:
            raise BadInput(f"{where}.every: {text[:60]!r} never comes; expected a day that there is.") from None
        return found

    def next_after(self, at: float) -> float:
        """The first such time after ``at``, both in seconds since 1970. Raises LookupError when there is none in four years."""
        zone = ZoneInfo(self.zone)
        local = datetime.fromtimestamp(at, zone)
        minutes, hours, _, _, _ = self.allowed
        for ahead in range(DAYS_AHEAD):
            day = (local + timedelta(days=ahead)).date()
            if not self._is_day(day.day, day.month, day.isoweekday() % 7):
                continue
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    found = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                    when = found.timestamp()
                    back = datetime.fromtimestamp(when, zone)
                    if when > at and (back.hour, back.minute) == (hour, minute):
                        return when
        raise LookupError(self.text)

    def _is_day(self, day: int, month: int, weekday: int) -> bool:
        _, _, days, months, weekdays = self.allowed
        by_day, by_weekday = day in days, weekday in weekdays or (weekday == 0 and 7 in weekdays)
        # As cron has it: where both are restricted, either is enough.
        if len(days) < 31 and not weekdays >= set(range(7)):
            return month in months and (by_day or by_weekday)
        return month in months and by_day and by_weekday


def _numbers(text: str, least: int, most: int, where: str) -> Iterator[int]:
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        low, high = (str(least), str(most)) if span == "*" else (first, last if dash else (str(most) if slash else first))
        numbers = (low, high, step if slash else "1")
        if not all(number.isdecimal() and len(number) < 4 for number in numbers):
            raise BadInput(f"{where}: {part[:20]!r} is no number, range or step; expected {least} to {most}, *, 1-5 or */15.")
        begin, end, by = map(int, numbers)
        if not least <= begin <= end <= most or by < 1:
            raise BadInput(f"{where}: {part[:20]!r} is out of range; expected {least} to {most}.")
        yield from range(begin, end + 1, by)
