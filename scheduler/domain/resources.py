"""Resource amounts as exact integers, durations in seconds, and the parsing and formatting of both.

Units: ``cpu`` in milli-cores, ``memory`` and ``ephemeral-storage`` in bytes, extended resources such as ``nvidia.com/gpu`` in
whole units. People write Kubernetes quantities (``1500m``, ``8Gi``); exponents, NaN, negative amounts and fractions of a device
are refused with the field's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput

CPU: Final = "cpu"
MEMORY: Final = "memory"
GPU: Final = "nvidia.com/gpu"
PODS: Final = "pods"
"""How many pods a node takes at most, whatever they ask for. Nobody asks for it by name: each pod takes one."""

BYTE_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
_SPARKS_UNITS: Final = re.compile(r"(\d{1,12})\s*([kmgt])b?", re.IGNORECASE)
LEAST_BARE_BYTES: Final = 2**20
"""Fewer bytes of memory than this, written without a unit, are meant as GiB or MiB."""
MAX_AMOUNT: Final = 2**62
"""Largest amount, so that sums over a site stay exact in a 64-bit database column."""

_NUMBER = re.compile(r"(\d{1,19})(?:\.(\d{1,9}))?([A-Za-z]*)", re.ASCII)
_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _split(value: object, field: str, expected: str) -> tuple[Decimal, str]:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadInput(f"{field}: {_shown(value)} is not an amount; expected {expected}.")
    text = repr(value) if isinstance(value, float) else str(value).strip()
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadInput(f"{field}: {_shown(value)} is not an amount; expected {expected}.")
    whole, fraction, unit = match.groups()
    return Decimal(f"{whole}.{fraction or 0}"), unit


def _bounded(amount: Decimal, value: object, field: str) -> int:
    if amount > MAX_AMOUNT:
        raise BadInput(f"{field}: {_shown(value)} is too large; the largest amount is {MAX_AMOUNT}.")
    return int(amount)


def parse_cpu(value: object, field: str = "cpus") -> int:
    """Milli-cores of ``2``, ``0.5`` or ``1500m``. Raises BadInput for fractions of a milli-core."""
    expected = "cores such as 2, 0.5 or 1500m"
    number, unit = _split(value, field, expected)
    if unit not in ("", "m"):
        raise BadInput(f"{field}: {_shown(value)} has the unknown unit {unit!r}; expected {expected}.")
    milli = number if unit == "m" else number * 1000
    if milli != milli.to_integral_value():
        raise BadInput(f"{field}: {_shown(value)} is finer than a thousandth of a core; expected {expected}.")
    return _bounded(milli, value, field)


def parse_memory(value: object, field: str = "memory") -> int:
    """Bytes of ``512Mi``, ``8Gi``, ``1.5G`` or a plain number of bytes. Raises BadInput for an unknown unit.

    Also for a few bytes without a unit: whoever writes ``4`` means 4 GiB.
    """
    amount = parse_bytes(value, field)
    if 0 < amount < LEAST_BARE_BYTES and not str(value).strip()[-1].isalpha():
        raise BadInput(
            f"{field}: {_shown(value)} is {amount} {'byte' if amount == 1 else 'bytes'}; expected a unit, as in 512Mi or 8Gi."
        )
    return amount


def parse_spark_memory(value: object, field: str) -> int:
    """Bytes of ``4g`` or ``512m``, as Spark writes them (1g is 1024m), or of ``4Gi``. Raises BadInput."""
    found = _SPARKS_UNITS.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return parse_memory(value, field)
    return parse_memory(f"{found[1]}{found[2].upper()}i".replace("KI", "Ki"), field)


def parse_bytes(value: object, field: str) -> int:
    """As `parse_memory`, where a few bytes may be meant."""
    expected = "bytes such as 512Mi, 8Gi or 16G"
    number, unit = _split(value, field, expected)
    if unit not in BYTE_UNITS:
        raise BadInput(f"{field}: {_shown(value)} has the unknown unit {unit!r}; expected {expected}.")
    amount = number * BYTE_UNITS[unit]
    return _bounded(amount.to_integral_value(rounding="ROUND_CEILING"), value, field)


def parse_count(value: object, field: str) -> int:
    """A whole number of devices, pods or workers. Raises BadInput for ``1.5``, ``1e1``, ``-1`` and booleans."""
    expected = "a whole number such as 0, 1 or 4"
    number, unit = _split(value, field, expected)
    if unit or number != number.to_integral_value():
        raise BadInput(f"{field}: {_shown(value)} is not whole; expected {expected}.")
    return _bounded(number, value, field)


def parse_amount(key: str, value: object, field: str) -> int:
    """The integer amount of one resource by its Kubernetes key."""
    if key == CPU:
        return parse_cpu(value, field)
    if key in (MEMORY, "ephemeral-storage"):
        return parse_bytes(value, field)
    return parse_count(value, field)


_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,8})h)?(?:(\d{1,8})m)?(?:(\d{1,9}(?:\.\d{1,3})?)s?)?", re.ASCII)


def parse_duration(value: object, field: str = "timeout") -> float:
    """Seconds of ``90``, ``90s``, ``10m``, ``1h30m`` or ``2d``. Raises BadInput for anything else, zero included."""
    match = None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        match = _DURATION.fullmatch(str(value).strip())
    seconds = 0.0
    if match is not None:
        days, hours, minutes, rest = (float(part or 0) for part in match.groups())
        seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    if not 0 < seconds <= 10 * 366 * 86400:
        raise BadInput(f"{field}: {_shown(value)} is not a duration; expected one such as 90s, 10m, 1h30m or 2d, up to ten years.")
    return seconds


def show_duration(seconds: float) -> str:
    """``45s``, ``2m05s``, ``1h30m``: two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s" if whole % 60 else f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m" if whole % 3600 >= 60 else f"{whole // 3600}h"
    return f"{whole // 86400}d{whole % 86400 // 3600}h" if whole % 86400 >= 3600 else f"{whole // 86400}d"


def show_amount(key: str, amount: int) -> str:
    """The amount for people: ``2`` or ``1500m`` cores, ``8Gi`` of memory, ``4`` devices."""
    if key == CPU:
        return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"
    if key in (MEMORY, "ephemeral-storage"):
        for unit in ("Pi", "Ti", "Gi", "Mi", "Ki"):
            if amount >= BYTE_UNITS[unit]:
                return f"{amount / BYTE_UNITS[unit]:.4g}{unit}"
    return str(amount)


def short_name(key: str) -> str:
    """``GPU`` for ``nvidia.com/gpu``, ``CPU`` for ``cpu``, else the key itself."""
    return {CPU: "CPU", MEMORY: "memory", GPU: "GPU"}.get(key, key)


def _quantities(amounts: Mapping[str, object], field: str) -> dict[str, int]:
    for key in amounts:
        if not _KEY.fullmatch(key):
            raise BadInput(f"{field}: {key!r} is not a resource name; expected one such as cpu, memory or {GPU}.")
    return {key: _quantity(key, value, f"{field}.{key}") for key, value in amounts.items()}


def _quantity(key: str, value: object, field: str) -> int:
    return parse_memory(value, field) if key == MEMORY else parse_amount(key, value, field)


@dataclass(frozen=True, slots=True)
class Resources:
    """An immutable vector of amounts. An absent key is zero; zeros are not stored, so equal vectors compare equal.

    Vectors made by `limits` differ: an absent key is unlimited, and a stored amount may be zero.
    """

    amounts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, amounts: Mapping[str, int] | Iterable[tuple[str, int]]) -> Resources:
        pairs = dict(amounts)
        return cls(tuple(sorted((key, amount) for key, amount in pairs.items() if amount)))

    @classmethod
    def limits(cls, amounts: Mapping[str, int] | Iterable[tuple[str, int]]) -> Resources:
        """A vector of limits: an absent key is unlimited, zeros are stored."""
        return cls(tuple(sorted(dict(amounts).items())))

    @classmethod
    def parse(cls, amounts: Mapping[str, object], field: str = "resources") -> Resources:
        """From quantities by Kubernetes key. Raises BadInput naming ``field.key``."""
        return cls.of(_quantities(amounts, field))

    @classmethod
    def parse_limits(cls, amounts: Mapping[str, object], field: str = "max") -> Resources:
        """`limits` from quantities by Kubernetes key. Raises BadInput naming ``field.key``."""
        return cls.limits(_quantities(amounts, field))

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.amounts)

    def __bool__(self) -> bool:
        return bool(self.amounts)

    def __getitem__(self, key: str) -> int:
        for name, amount in self.amounts:
            if name == key:
                return amount
        return 0

    def __add__(self, other: Resources) -> Resources:
        if not other.amounts:
            return self
        total = dict(self.amounts)
        for key, amount in other.amounts:
            total[key] = total.get(key, 0) + amount
        return Resources.of(total)

    def __sub__(self, other: Resources) -> Resources:
        rest = dict(self.amounts)
        for key, amount in other.amounts:
            rest[key] = rest.get(key, 0) - amount
        return Resources.of(rest)

    def __mul__(self, count: int) -> Resources:
        return Resources.of((key, amount * count) for key, amount in self.amounts)

    def fits(self, room: Resources) -> bool:
        """Whether every amount is at most that of ``room`` (an absent key of ``room`` is zero)."""
        return all(amount <= room[key] for key, amount in self.amounts)

    def within(self, limit: Resources) -> bool:
        """Whether no amount is above its limit (an absent key of ``limit`` is unlimited)."""
        return all(self[key] <= amount for key, amount in limit.amounts)

    def over(self, limit: Resources) -> Resources:
        """By how much each amount is above its limit (an absent key of ``limit`` is unlimited)."""
        return Resources.of((key, self[key] - amount) for key, amount in limit.amounts if self[key] > amount)

    def short_of(self, room: Resources) -> Resources:
        """What ``room`` lacks to hold this vector."""
        return Resources.of((key, amount - room[key]) for key, amount in self.amounts if amount > room[key])

    def dominant_share(self, total: Resources) -> float:
        """The largest share of ``total`` over the resources (Ghodsi et al., Dominant Resource Fairness, NSDI 2011)."""
        return max((amount / total[key] if total[key] else float("inf") for key, amount in self.amounts), default=0.0)

    def is_negative(self) -> bool:
        return any(amount < 0 for _, amount in self.amounts)

    def show(self) -> dict[str, str]:
        """Quantities by Kubernetes key, for people and for JSON."""
        return {key: show_amount(key, amount) for key, amount in self.amounts}

    def as_limits(self) -> str:
        """For people, of a vector made by `limits`: ``no GPU, 8 CPU``."""
        return ", ".join(f"{show_amount(key, amount) if amount else 'no'} {short_name(key)}" for key, amount in self.amounts)

    def __str__(self) -> str:
        return _listed(self.amounts)


@lru_cache(maxsize=1 << 14)
def _listed(amounts: tuple[tuple[str, int], ...]) -> str:
    """Cached: every cycle formats the same requests of the waiting gangs again."""
    return ", ".join(f"{show_amount(key, amount)} {_name(key, amount)}" for key, amount in amounts) or "nothing"


def _name(key: str, amount: int) -> str:
    return "pod" if key == PODS and amount == 1 else short_name(key)


def total(parts: Iterable[Resources]) -> Resources:
    amounts: dict[str, int] = {}
    for part in parts:
        for key, amount in part.amounts:
            amounts[key] = amounts.get(key, 0) + amount
    return Resources.of(amounts)


NOTHING: Final = Resources()
ONE_POD: Final = Resources(((PODS, 1),))
