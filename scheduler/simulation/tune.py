"""Which parameters of the decision rule would have been better on a site's own past.

Candidates are chosen on the first part of the past, and the chosen one is judged on the rest, against the rule in force and against
EASY backfill with the same predictions. What is below EASY there is not proposed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from statistics import fmean
from typing import Final

from tuttilab.scheduler.core.rows.tuning import Values, parameters, show, values_of, with_tuning
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.errors import Unavailable
from tuttilab.scheduler.domain.model import ParameterValue, Tuning
from tuttilab.scheduler.simulation.engine import JobOutcome, Simulation
from tuttilab.scheduler.simulation.past import Past, too_little
from tuttilab.scheduler.simulation.policies import POLICIES, Policy
from tuttilab.scheduler.simulation.report import quantile

FIRST_PART: Final = 0.6
"""Of the jobs: on these the candidates are chosen."""
LEAST_GAIN: Final = 0.01
"""By how much the cost of a candidate has to be lower, on each part; less is chance."""
EASY_NAME: Final = "easy-predicted"
P99_FLOOR: Final = (1.35, 600.0)
LONGEST_FLOOR: Final = (1.5, 3600.0)
"""No worse than EASY: so many times its wait and so many seconds more."""
NOTICED_S: Final = 60.0
"""A job that ends earlier or later by less is neither better nor worse off."""
CHOOSING: Final = 0.6
"""Part of the time limit after which no further candidate is begun."""

Bounds = Mapping[str, tuple[ParameterValue, ...]]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Waits:
    """Of some of the jobs under one rule. Times in seconds."""

    jobs: int
    mean_s: float
    p99_s: float
    longest_s: float
    done_s: float
    """Mean from submission to end."""

    @classmethod
    def of(cls, ran: Sequence[JobOutcome]) -> Waits:
        waits = [one.wait_s for one in ran if one.wait_s is not None]
        ends = [one.completion_s for one in ran if one.completion_s is not None]
        if not waits or not ends:
            return cls(len(ran), 0.0, 0.0, 0.0, 0.0)
        return cls(len(ran), fmean(waits), quantile(waits, 0.99), max(waits), fmean(ends))

    def is_above(self, easy: Waits) -> bool:
        """Whether nobody could wish for EASY instead."""
        return (
            self.done_s <= easy.done_s * 1.0005
            and self.p99_s <= easy.p99_s * P99_FLOOR[0] + P99_FLOOR[1]
            and self.longest_s <= easy.longest_s * LONGEST_FLOOR[0] + LONGEST_FLOOR[1]
        )


def cost(waits: Waits, easy: Waits) -> float:
    """What is to be low: mean completion first, then the tail, each relative to EASY; 0: as EASY."""
    mean = log((waits.done_s + 1.0) / (easy.done_s + 1.0))
    p99 = log((waits.p99_s + P99_FLOOR[1]) / (easy.p99_s + P99_FLOOR[1]))
    longest = log((waits.longest_s + LONGEST_FLOOR[1]) / (easy.longest_s + LONGEST_FLOOR[1]))
    return mean + 0.2 * p99 + 0.1 * longest


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate on the first part of the past."""

    values: Values
    waits: Waits
    cost: float
    is_above_easy: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The jobs of one queue, or of gangs of one size, on the second part: under the rule in force and under the proposed one."""

    kind: str
    name: str
    now: Waits
    proposed: Waits
    easy: Waits
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a run found. ``values``: what to set in place of ``now``; None when nothing was better, for the reason in ``text``."""

    text: str
    values: Values | None
    now: Values
    jobs: int = 0
    days: float = 0.0
    judged: int = 0
    tried: tuple[Tried, ...] = ()
    untried: int = 0
    """Candidates that the time limit left out."""
    groups: tuple[Group, ...] = ()
    """The first is of all jobs."""
    left_out: tuple[str, ...] = ()
    changed_clusters: int = 0


class _OutOfTime(Exception):
    """A replay was stopped by the time limit."""


@dataclass(slots=True)
class _Replays:
    deadline: float
    clock: Callable[[], float] = time.monotonic

    def run(self, past: Past, values: Mapping[str, ParameterValue] | None) -> list[JobOutcome]:
        """Every job of the past under the rule with these parameters; None: under EASY. Raises _OutOfTime."""
        policy: Policy = POLICIES[EASY_NAME if values is None else "ours"]
        tuning = None if values is None else Tuning(tuned=tuple(sorted(values.items())))
        return list(
            Simulation(
                past.clusters,
                with_tuning(past.queues, tuning),
                past.trace,
                policy,
                past.changes,
                check=self._check,
                jobs=past.jobs,
            )
            .run()
            .ran
        )

    def _check(self, state: State, at: float) -> None:
        if self.clock() > self.deadline:
            raise _OutOfTime


def candidates(now: Mapping[str, ParameterValue], fixed: Sequence[str], bounds: Bounds) -> Iterator[tuple[str, ParameterValue]]:
    """Each change of one parameter to try. Without bounds all parameters that ``fixed`` does not name are varied."""
    for name, one in parameters().items():
        if name in fixed or (bounds and name not in bounds):
            continue
        current = now.get(name, one.built_in)
        if one.choices:
            yield from ((name, value) for value in bounds.get(name, one.choices) if value != current)
            continue
        least, most = map(float, bounds.get(name, (one.least, one.most)))
        if not bounds:
            # What an admin set further away stays possible.
            least, most = min(least, float(current) / 2), max(most, float(current) * 2)
        wanted = {min(max(value, least), most) for value in (float(current) / 2, float(current) * 2, float(one.built_in))}
        if one.is_whole:
            wanted = {float(round(value)) for value in wanted if least <= round(value) <= most}
        yield from ((name, value) for value in sorted(wanted) if value != float(current))


def tune(
    past: Past,
    *,
    bounds: Bounds,
    least_jobs: int,
    limit_s: float,
    progress: Progress = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> Proposal:
    """The result of replaying the past. Raises Unavailable when the limit did not even do for the rule in force."""
    tuning = past.tuning
    now = values_of(tuning)
    fixed = tuple(name for name, _ in tuning.fixed) if tuning else ()
    base = Proposal("", None, tuple(sorted(now.items())), len(past.trace), past.days, left_out=past.left_out)
    base = replace(base, changed_clusters=len(past.changes))
    few = too_little(past.trace, least_jobs)
    if few:
        return replace(base, text=few)
    began = clock()
    replays = _Replays(began + limit_s, clock)
    count = int(len(past.trace) * FIRST_PART)
    first = past.first(count)
    changes = list(candidates(now, fixed, bounds))
    try:
        progress("EASY and the rule in force, first part")
        easy = Waits.of(replays.run(first, None))
        present = Waits.of(replays.run(first, now))
    except _OutOfTime:
        raise Unavailable(
            f"The limit of {limit_s:g} s is over before the rule in force was replayed once; allow more time, or fewer days."
        ) from None
    until = began + CHOOSING * limit_s
    tried, untried = _tried(replays, first, now, changes, easy, until, progress)
    base = replace(base, tried=tuple(tried), untried=untried)
    own = cost(present, easy)
    good = [one for one in tried if one.is_above_easy and (one.cost < own - LEAST_GAIN or not present.is_above(easy))]
    if not good:
        return replace(base, text=_nothing_better(present, easy, tried, untried))
    best = min(good, key=lambda one: (one.cost, one.values))
    try:
        progress(f"judging {show_values(best.values)} on the rest")
        rest = [replays.run(past, None), replays.run(past, now), replays.run(past, dict(best.values))]
    except _OutOfTime:
        return replace(base, text=f"The limit of {limit_s:g} s is over before the best candidate was judged; allow more time.")
    groups = tuple(compared(*([one for one in ran if one.job.job_id not in _ids(first)] for ran in rest)))
    return _judged(replace(base, groups=groups, judged=groups[0].now.jobs), best)


def _ids(past: Past) -> frozenset[str]:
    return frozenset(line.job_id for line in past.trace)


def _tried(
    replays: _Replays,
    past: Past,
    now: Mapping[str, ParameterValue],
    changes: Sequence[tuple[str, ParameterValue]],
    easy: Waits,
    until: float,
    progress: Progress,
) -> tuple[list[Tried], int]:
    """Each change alone, then the best together with the best changes of the other parameters."""
    tried: list[Tried] = []
    seen = {tuple(sorted(now.items()))}
    wanted = [{**now, name: value} for name, value in changes]
    is_second = False
    place = 0
    while place < len(wanted):
        values = tuple(sorted(_without_built_in(wanted[place]).items()))
        place += 1
        if values not in seen:
            seen.add(values)
            if replays.clock() > until:
                return tried, len(wanted) - place + 1
            progress(f"candidate {place} of {len(wanted)}: {show_values(values)}")
            try:
                waits = Waits.of(replays.run(past, dict(values)))
            except _OutOfTime:
                return tried, len(wanted) - place + 1
            tried.append(Tried(values, waits, cost(waits, easy), waits.is_above(easy)))
        if place == len(wanted) and not is_second and tried:
            is_second = True
            wanted += _together(tried, now)
    return tried, 0


def _without_built_in(values: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    return {name: value for name, value in values.items() if value != parameters()[name].built_in}


def _together(tried: Sequence[Tried], now: Mapping[str, ParameterValue]) -> list[dict[str, ParameterValue]]:
    """The best candidate with what each of the next three changes."""
    ranked = sorted(tried, key=lambda one: (one.cost, one.values))
    best = dict(ranked[0].values)
    found = []
    for other in ranked[1:4]:
        changed = {name: value for name, value in other.values if now.get(name) != value}
        found.append({**changed, **best})
    return found


def compared(easy: list[JobOutcome], now: list[JobOutcome], proposed: list[JobOutcome]) -> Iterator[Group]:
    """All jobs, then by queue, then by size of gang. Only jobs that end under all three count."""
    ended = [{one.job.job_id: one for one in ran if one.completion_s is not None} for ran in (easy, now, proposed)]
    ids = [job_id for job_id in ended[1] if job_id in ended[0] and job_id in ended[2]]
    jobs = {job_id: ended[1][job_id].job for job_id in ids}
    queues = sorted({job.queue for job in jobs.values()})
    sizes = sorted({size_class(max(job.gpus, job.pods)) for job in jobs.values()})
    groups = [("all", "all jobs", ids)]
    groups += [("queue", name, [job_id for job_id in ids if jobs[job_id].queue == name]) for name in queues]
    groups += [
        ("size", SIZE_NAMES[size], [i for i in ids if size_class(max(jobs[i].gpus, jobs[i].pods)) == size]) for size in sizes
    ]
    for kind, name, members in groups:
        under = [[ran[job_id] for job_id in members] for ran in ended]
        gains = [(b.completion_s or 0.0) - (a.completion_s or 0.0) for a, b in zip(under[2], under[1], strict=True)]
        yield Group(
            kind,
            name,
            Waits.of(under[1]),
            Waits.of(under[2]),
            Waits.of(under[0]),
            sum(gain > NOTICED_S for gain in gains),
            sum(gain < -NOTICED_S for gain in gains),
        )


SIZE_NAMES: Final = ("1 GPU or pod", "2 to 3", "4 to 7", "8 to 15", "16 to 63", "64 and more")


def size_class(size: int) -> int:
    return sum(size >= least for least in (2, 4, 8, 16, 64))


def _judged(found: Proposal, best: Tried) -> Proposal:
    """Proposed only if it is better on the second part too, and not below EASY there."""
    all_jobs = found.groups[0]
    own, new = cost(all_jobs.now, all_jobs.easy), cost(all_jobs.proposed, all_jobs.easy)
    what = show_values(best.values)
    if not all_jobs.proposed.is_above(all_jobs.easy):
        return replace(found, text=f"{what} was best on the first part and is below EASY on the rest; the rule in force stays.")
    if new >= own - LEAST_GAIN and all_jobs.now.is_above(all_jobs.easy):
        return replace(found, text=f"{what} was best on the first part and no better on the rest; the rule in force stays.")
    gain = 1 - all_jobs.proposed.done_s / all_jobs.now.done_s if all_jobs.now.done_s else 0.0
    moved = f"{abs(gain):.1%} {'earlier' if gain >= 0 else 'later'}"
    text = f"{what} is better: mean completion {moved} on {found.judged} jobs that it was not chosen on"
    return replace(found, text=text, values=best.values)


def _nothing_better(present: Waits, easy: Waits, tried: Sequence[Tried], untried: int) -> str:
    some = f"{len(tried)} candidates" + (f" ({untried} more were left out by the limit)" if untried else "")
    if not present.is_above(easy):
        return f"The rule in force is below EASY on this past, and so is each of {some}; the rule in force stays."
    return f"None of {some} is better than the rule in force, which stays."


def show_values(values: Values) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in values) or "the built-in rule"


def is_within(values: Values, now: Values, bounds: Bounds) -> bool:
    """Whether bounds allow each value that would change."""
    for name in dict(values).keys() | dict(now).keys():
        one = parameters().get(name)
        if one is None or name not in bounds:
            if dict(values).get(name) != dict(now).get(name):
                return False
            continue
        value, allowed = dict(values).get(name, one.built_in), bounds[name]
        if value == dict(now).get(name, one.built_in):
            continue
        if value not in allowed if one.choices else not float(allowed[0]) <= float(value) <= float(allowed[1]):
            return False
    return True
