"""Parameters of the decision rule that a site may set: which there are, which values they may have, and which are in force.

A parameter is a field of `Rules` or, for every queue that keeps the built-in value, one of `OF_QUEUES`. A new number, choice or
switch in `Rules` is one at once; what would take a guarantee away, or decides nothing, is in `NEVER`. What is set is kept in the
rows of the queues without a parent, so that it is in the journal and in every copy of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Final

from tuttilab.scheduler.core.rules import Rules
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import ParameterValue, Queue, Tuning

NEVER: Final = (
    *("reservation", "protects", "preempts", "protected_at", "overdue_at", "strict_at", "longest_deferral_s"),
    *("idle_notebook_s", "back_off_s", "explains_all"),
)
"""Fields of `Rules` that nobody tunes: the first line's are what the promise of the overtaking account stands on."""

OF_QUEUES: Final = ("overtaking", "overtaking_s")
"""Keys of a queue that are parameters too. A queue whose configuration says another value than the built-in one keeps it."""

WIDEST: Final = 4.0
"""A number is tried at most so many times as large, or as small, as the built-in one, if no bounds say otherwise."""

Values = tuple[tuple[str, ParameterValue], ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """``choices``: all values that it may have, empty for a number, which may have any from ``least`` to ``most``."""

    name: str
    built_in: ParameterValue
    choices: tuple[ParameterValue, ...] = ()
    least: float = 0.0
    most: float = 0.0
    is_whole: bool = False

    def check(self, value: object, where: str) -> ParameterValue:
        """The value as it is kept. Raises BadInput with what is expected."""
        if self.choices:
            if value not in self.choices or isinstance(value, bool) is not isinstance(self.built_in, bool):
                raise BadInput(f"{where}: {show(value)} is not a value of {self.name}; expected {_one_of(self.choices)}.")
            return str(value) if isinstance(value, str) else bool(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
            raise BadInput(
                f"{where}: {show(value)} is not a value of {self.name}; expected a number from 0, as {show(self.built_in)}."
            )
        if self.is_whole and value != int(value):
            raise BadInput(f"{where}: {show(value)} is not whole; expected a number such as {show(self.built_in)}.")
        return float(value)

    def in_rules(self, value: ParameterValue) -> object:
        """The value as the field of `Rules` has it."""
        if isinstance(self.built_in, StrEnum):
            return type(self.built_in)(str(value))
        return int(value) if self.is_whole else value


def _one_of(choices: Sequence[object]) -> str:
    return " or ".join(show(one) for one in choices)


def show(value: object) -> str:
    """As in the configuration file."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@cache
def parameters() -> Mapping[str, Parameter]:
    """All that there are, by name."""
    own = {field.name: field.default for field in fields(Rules) if field.name not in NEVER and field.default is not MISSING}
    of_queues = {field.name: field.default for field in fields(Queue) if field.name in OF_QUEUES}
    found = (_parameter(name, default) for name, default in (own | of_queues).items())
    return {parameter.name: parameter for parameter in found if parameter is not None}


def _parameter(name: str, default: object) -> Parameter | None:
    if isinstance(default, bool):
        return Parameter(name, default, (False, True))
    if isinstance(default, StrEnum):
        return Parameter(name, default, tuple(str(one.value) for one in type(default)))
    if isinstance(default, int | float):
        return Parameter(name, float(default), (), default / WIDEST, default * WIDEST, is_whole=isinstance(default, int))
    return None


def parameter(name: str, where: str) -> Parameter:
    """Raises BadInput naming those that there are."""
    found = parameters().get(name)
    if found is None:
        raise BadInput(f"{where}: there is no parameter {name!r} of the decision rule; expected one of {', '.join(parameters())}.")
    return found


def checked(values: Mapping[str, object], where: str) -> Values:
    """By name. Raises BadInput for an unknown parameter and a value that it cannot have."""
    return tuple((name, parameter(name, where).check(values[name], f"{where}.{name}")) for name in sorted(values))


def tuning_of(queues: Iterable[Queue]) -> Tuning | None:
    """What is set for the site; None while all is built in."""
    return next((queue.tuning for queue in queues if queue.tuning is not None), None)


def values_of(tuning: Tuning | None) -> dict[str, ParameterValue]:
    """What differs from the built-in values, by name. One that this version no longer has is left out."""
    found = {} if tuning is None else {**dict(tuning.tuned), **dict(tuning.fixed)}
    return {name: value for name, value in found.items() if name in parameters() and _is_known(name, value)}


def _is_known(name: str, value: ParameterValue) -> bool:
    choices = parameters()[name].choices
    return not choices or value in choices


def rules_in_force(rules: Rules, queues: Iterable[Queue]) -> Rules:
    """The rules of a cycle: ``rules`` with what is set for the site."""
    tuning = tuning_of(queues)
    return rules if tuning is None else with_values(rules, values_of(tuning))


def with_values(rules: Rules, values: Mapping[str, ParameterValue]) -> Rules:
    """``rules`` with those values that are fields of it."""
    own = {name: parameters()[name].in_rules(value) for name, value in values.items() if name not in OF_QUEUES}
    # mypy: the fields have different types, and each value was checked against its own.
    return replace(rules, **own) if own else rules  # type: ignore[arg-type]


def with_tuning(queues: Sequence[Queue], tuning: Tuning | None) -> tuple[Queue, ...]:
    """The queues with this in force in place of what was. A queue that said its own share keeps it."""
    before, after = values_of(tuning_of(queues)), values_of(tuning)
    changed = []
    for queue in queues:
        keys: dict[str, float] = {}
        for key in OF_QUEUES:
            built_in = parameters()[key].built_in
            if getattr(queue, key) == before.get(key, built_in):
                keys[key] = float(after.get(key, built_in))
        own = replace(queue, tuning=None if queue.parent is not None else tuning)
        # mypy takes the keys for any field of a queue.
        changed.append(replace(own, **keys) if keys else own)  # type: ignore[arg-type]
    return tuple(changed)


def tuned_queues(queues: Sequence[Queue], values: Values, at: float, by: str, why: str) -> tuple[Queue, ...]:
    """The queues once ``values`` are set; what the configuration fixes stays, and without any values all is as it says."""
    before = tuning_of(queues)
    fixed = before.fixed if before else ()
    tuned = tuple((name, value) for name, value in values if name not in dict(fixed))
    if not fixed and not tuned and before is None:
        return tuple(queues)
    return with_tuning(queues, Tuning(fixed, tuned, at, by, why))


def configured_queues(wanted: Sequence[Queue], known: Iterable[Queue], at: float, by: str = "") -> tuple[Queue, ...]:
    """The queues of a configuration with what was tuned before, which holds on but for what the configuration now fixes."""
    before, says = tuning_of(known), tuning_of(wanted)
    if before is None and says is None:
        return tuple(wanted)
    fixed = says.fixed if says else ()
    if before is not None and before.fixed == fixed:
        return with_tuning(wanted, before)
    tuned = tuple((name, value) for name, value in (before.tuned if before else ()) if name not in dict(fixed))
    return with_tuning(wanted, Tuning(fixed, tuned, at, by or "the configuration", "the configuration says so"))


def describe(tuning: Tuning | None) -> str:
    """What differs from the built-in rule, as ``overtaking 0.3 (built in 0.15), …``; empty when nothing does."""
    known = parameters()
    return ", ".join(
        f"{name} {show(value)} (built in {show(known[name].built_in)})"
        for name, value in sorted(values_of(tuning).items())
        if value != known[name].built_in
    )
