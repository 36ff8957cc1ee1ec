"""Side-cars of the site: containers that its platform team offers beside the user's, with what a job may set of each.

The words of a parameter are those of JSON Schema. A parameter is a variable of the side-car's container, to which ``$(name)`` in
its command and its other variables refers. What a job has of a side-car is kept with the job: a change of the configuration is
for jobs that come later.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import SideCar
from tuttilab.scheduler.domain.requests import SideCarRequest
from tuttilab.scheduler.domain.resources import Resources

Value = str | int | float | bool
TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
LONGEST: Final = 1000
"""Characters of a value."""
_NUMBERS: Final = {"integer": re.compile(r"-?[0-9]{1,18}"), "number": re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?(e-?[0-9]{1,3})?")}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """``default`` None: every job has to give it."""

    type: str = "string"
    default: Value | None = None
    enum: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    """Of the whole value."""

    def read(self, value: Value, where: str) -> Value:
        """The value in its type. Raises BadInput with what is expected."""
        found = _converted(self.type, value)
        if found is None or (isinstance(found, str) and (len(found) > LONGEST or _CONTROL.search(found))):
            shown = f"a line of up to {LONGEST} characters" if self.type == "string" else self.type
            raise BadInput(f"{where}: {_shown(value)} was given; expected {shown}{self._expected()}.")
        is_small = self.minimum is not None and not isinstance(found, str) and found < self.minimum
        is_large = self.maximum is not None and not isinstance(found, str) and found > self.maximum
        is_other = self.pattern is not None and re.fullmatch(self.pattern, str(found)) is None
        if is_small or is_large or is_other or (self.enum and found not in self.enum):
            raise BadInput(f"{where}: {_shown(value)} was given; expected {self.type}{self._expected()}.")
        return found

    def _expected(self) -> str:
        parts = [f"one of {', '.join(map(_text, self.enum))}"] if self.enum else []
        parts += [f"at least {self.minimum:g}"] if self.minimum is not None else []
        parts += [f"at most {self.maximum:g}"] if self.maximum is not None else []
        parts += [f"like {self.pattern}"] if self.pattern is not None else []
        return f", {', '.join(parts)}" if parts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideCarOffer:
    name: str
    image: str
    resources: Resources
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    shares_folder: bool = False
    params: Mapping[str, Param] = field(default_factory=dict)


def chosen(requests: Sequence[SideCarRequest], offers: Sequence[SideCarOffer]) -> tuple[SideCar, ...]:
    """The side-cars of a job. Raises BadInput with the path of what the site does not offer, or not so."""
    known = {offer.name: offer for offer in offers}
    found: list[SideCar] = []
    for index, request in enumerate(requests):
        where = f"sidecars[{index}]"
        offer = known.get(request.name)
        if offer is None:
            expected = _near(request.name, known) or f"expected {', '.join(known) or 'none, as tuttilab.yaml has no sidecars'}."
            raise BadInput(f"{where}.name: there is no side-car {request.name[:80]!r}; {expected}")
        if any(other.name == request.name for other in found):
            raise BadInput(f"{where}.name: {request.name!r} stands there twice; expected each once.")
        found.append(_with_params(offer, request.params, f"{where}.params"))
    return tuple(found)


def _with_params(offer: SideCarOffer, given: Mapping[str, Value], where: str) -> SideCar:
    for name in given:
        if name not in offer.params:
            listed = ", ".join(offer.params) or "none"
            expected = _near(name, offer.params) or f"expected {listed}."
            raise BadInput(f"{where}.{name[:80]}: side-car {offer.name!r} has no such parameter; {expected}")
    values: dict[str, str] = {}
    for name, param in offer.params.items():
        value = given.get(name, param.default)
        if value is None:
            raise BadInput(f"{where}.{name}: side-car {offer.name!r} needs it, and it has no default; give it a value.")
        values[name] = _text(param.read(value, f"{where}.{name}"))
    return SideCar(
        name=offer.name,
        image=offer.image,
        resources=offer.resources,
        command=offer.command,
        env=dict(offer.env),
        params=values,
        port=offer.port,
        shares_folder=offer.shares_folder,
    )


def _converted(kind: str, value: Value) -> Value | None:
    """The value in that type, also of a text that says it, as a command line gives it. None where it is another."""
    if isinstance(value, str) and kind != "string":
        if kind == "boolean":
            return {"true": True, "false": False}.get(value)
        if not _NUMBERS[kind].fullmatch(value):
            return None
        value = int(value) if kind == "integer" else float(value)
    is_of_it = isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
    return value if is_of_it and (isinstance(value, str) or isfinite(value)) else None


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _near(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name[:80], list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""
