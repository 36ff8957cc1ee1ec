"""Checks `policy` and `tune` of `tuttilab.yaml`: parameters of the decision rule, and when they are tuned within which bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tuttilab.scheduler.config.cron import Cron
from tuttilab.scheduler.config.file import TuneFile
from tuttilab.scheduler.config.model import TuneConfig
from tuttilab.scheduler.core.rows.tuning import checked, parameter, show, with_tuning
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import ParameterValue, Queue, Tuning
from tuttilab.scheduler.domain.resources import parse_duration

LONGEST_DAYS: Final = 366
LONGEST_RUN_S: Final = 12 * 3600.0
MOST_JOBS: Final = 1_000_000


def with_policy(queues: Sequence[Queue], policy: Mapping[str, object]) -> tuple[Queue, ...]:
    """The queues with the parameters that the file fixes. Raises BadInput naming the key."""
    return with_tuning(queues, Tuning(fixed=checked(policy, "policy"))) if policy else tuple(queues)


def tune_of(file: TuneFile, policy: Mapping[str, object]) -> TuneConfig:
    """Raises BadInput naming the key."""
    bounds = {name: _bound(name, given, f"tune.bounds.{name}") for name, given in file.bounds.items()}
    fixed = sorted(name for name in bounds if name in policy)
    if fixed:
        raise BadInput(f"tune.bounds.{fixed[0]}: policy.{fixed[0]} fixes it, so nothing can tune it; expected one of the two.")
    every = Cron.parse(file.every, file.zone, "tune") if file.every is not None else None
    if every is not None and not bounds:
        raise BadInput(
            "tune.bounds: a nightly run may change nothing without bounds; expected some, such as {overtaking: [0.1, 0.3]}."
        )
    for key, number, most in (("days", file.days, LONGEST_DAYS), ("least_jobs", file.least_jobs, MOST_JOBS)):
        if not 1 <= number <= most:
            raise BadInput(f"tune.{key}: {number} is out of range; expected 1 to {most}.")
    limit_s = parse_duration(file.limit, "tune.limit")
    if limit_s > LONGEST_RUN_S:
        raise BadInput(f"tune.limit: {file.limit} is too long for a run; expected 12h at most.")
    return TuneConfig(every, file.days, limit_s, file.least_jobs, bounds)


def _bound(name: str, given: Sequence[ParameterValue | int], where: str) -> tuple[ParameterValue, ...]:
    one = parameter(name, where)
    found = tuple(one.check(value, f"{where}[{index}]") for index, value in enumerate(given))
    if one.choices and not found:
        raise BadInput(f"{where}: an empty list allows nothing; expected values such as [{show(one.built_in)}].")
    if not one.choices and (len(found) != 2 or float(found[0]) > float(found[1])):
        raise BadInput(f"{where}: it is no range; expected the least and the largest value, such as [0.1, 0.3].")
    return found
