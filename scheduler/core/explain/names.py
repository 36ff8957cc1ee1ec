"""Names of jobs in sentences for users: own ones by "your", those of the same group with their owner, others as a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Final

from tuttilab.scheduler.core.backfill import end_of
from tuttilab.scheduler.core.kinds.spark import as_holder, session_name
from tuttilab.scheduler.core.ordering.run_times import told_spread
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.domain.model import Job, JobKind
from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.domain.titles import LONGEST_NAME, title

MOST_NAMED: Final = 2
"""Own jobs, and jobs of the group, that a sentence names; the rest is a number."""
MOST_LISTED: Final = 20


def named(job: Job, owner: str, *, with_remedy: bool = True) -> str:
    """``your job 'train' (3f2a9c12)``, ``job 'train' (3f2a9c12) of ana``, with what frees its room where its owner can do that."""
    name = job.name[:LONGEST_NAME]
    if job.kind is JobKind.SPARK:
        if job.owner == owner and with_remedy:
            return as_holder(job)
        what = f"Spark session '{session_name(job) or name}'"
        return f"your {what}" if job.owner == owner else f"{what} of {job.owner}"
    what = f"notebook server '{name}'" if job.kind is JobKind.NOTEBOOK else f"job {title(job)}"
    return f"your {what}" if job.owner == owner else f"{what} of {job.owner}"


def blocked_by(first: Job, job: Job) -> str:
    """The gang that ``job`` waits behind, as the owner of ``job`` may know it."""
    return named(first, job.owner) if job.owner == first.owner or job.group == first.group else "a job of another group"


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@dataclass(frozen=True, slots=True)
class HeldBy:
    """What one reader may know of the holders."""

    text: str
    """``held by your job 'train' (3f2a9c12) and 2 jobs of other groups``; empty without holders."""
    listed: tuple[str, ...]
    """Each visible holder with the time it has left, then the number of the others."""
    blockers: tuple[str, ...]
    """Ids of those that the reader's group may see."""
    first_unknown: str = ""
    """The name of a visible holder whose end nobody knows."""


@dataclass(frozen=True, slots=True)
class _Own:
    """What each owner may know of the own holders: the same in every group that the owner is in."""

    count: int
    by_group: Mapping[str, int]
    parts: tuple[str, ...]
    """Of the sentence."""
    listed: tuple[str, ...]
    first_unknown: str


@dataclass(slots=True)
class Holders:
    """Who holds room or quota."""

    now: float
    running: list[Running]
    _by_reader: dict[tuple[str, str], HeldBy] = field(default_factory=dict)
    _by_owner: dict[str, list[Running]] = field(default_factory=dict)
    _by_group: dict[str, list[Running]] = field(default_factory=dict)
    _without_end: dict[str, list[Running]] = field(default_factory=dict)
    """By group. There may be thousands of holders and of readers: a reader looks at no more of them than are shown."""
    _owns: dict[str, _Own] = field(default_factory=dict)
    """By owner."""
    _to_others: dict[str, tuple[str, str]] = field(default_factory=dict)
    """How a holder is named to others of its group, and the same with the time it has left, by its job."""
    _blockers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By group: ids of those that it may see."""

    @classmethod
    def of(cls, running: Iterable[Running], now: float) -> Holders:
        return cls(now, list(running))

    @property
    def is_any_known(self) -> bool:
        """Whether past runs tell anything of the end of any of them."""
        return any(told_spread(runner.prediction, runner.job) < inf for runner in self.running)

    @property
    def is_any_limited(self) -> bool:
        """Whether the end of any of them is known by its time limit only."""
        return any(
            runner.job.timeout_s is not None and told_spread(runner.prediction, runner.job) == inf for runner in self.running
        )

    def _sort_out(self) -> None:
        for runner in self.running:
            self._by_owner.setdefault(runner.job.owner, []).append(runner)
            self._by_group.setdefault(runner.job.group, []).append(runner)
            if _has_no_end(runner):
                self._without_end.setdefault(runner.job.group, []).append(runner)

    def shown_to(self, job: Job) -> HeldBy:
        """What the job's owner may know."""
        key = (job.owner, job.group)
        known = self._by_reader.get(key)
        if known is None:
            if not self._by_reader:
                self._sort_out()
            known = self._by_reader[key] = self._shown_to(job)
        return known

    def _shown_to(self, job: Job) -> HeldBy:
        own = self._own_of(job.owner)
        members = self._by_group.get(job.group, [])
        group = list(islice((runner for runner in members if runner.job.owner != job.owner), MOST_LISTED))
        of_group = len(members) - own.by_group.get(job.group, 0)
        others = len(self.running) - own.count - of_group
        parts = [*own.parts, *[self._to_other(runner)[0] for runner in group[:MOST_NAMED]]]
        parts += [f"{count(of_group - MOST_NAMED, 'more job')} of {job.group}"] if of_group > MOST_NAMED else []
        parts += [f"{count(others, 'job')} of other groups"] if others else []
        listed = [*own.listed, *[self._to_other(runner)[1] for runner in group[: MOST_LISTED - len(own.listed)]]]
        rest = own.count + of_group - len(listed) + others
        listed += [f"{count(rest, 'more job' if listed else 'job')}{' of other groups' if rest == others else ''}"] if rest else []
        blockers = self._blockers.get(job.group)
        if blockers is None:
            blockers = self._blockers[job.group] = tuple([runner.job_id for runner in members[:MOST_LISTED]])
        unknown = own.first_unknown
        if not unknown:
            of_others = next((one for one in self._without_end.get(job.group, ()) if one.job.owner != job.owner), None)
            unknown = "" if of_others is None else self._to_other(of_others)[0]
        return HeldBy(f"held by {join(parts)}" if parts else "", tuple(listed), blockers, unknown)

    def _own_of(self, owner: str) -> _Own:
        known = self._owns.get(owner)
        if known is None:
            # Sessions first: their owner can free that room at once.
            own = sorted(self._by_owner.get(owner, ()), key=lambda runner: runner.job.kind is not JobKind.SPARK)
            parts = [_own(runner) for runner in own[:MOST_NAMED]]
            parts += [f"{count(len(own) - MOST_NAMED, 'more job')} of yours"] if len(own) > MOST_NAMED else []
            listed = tuple(named(runner.job, owner) + self._left(runner) for runner in own[:MOST_LISTED])
            unknown = next((named(one.job, owner, with_remedy=False) for one in own if _has_no_end(one)), "")
            by_group = Counter(runner.job.group for runner in own)
            known = self._owns[owner] = _Own(len(own), by_group, tuple(parts), listed, unknown)
        return known

    def _to_other(self, runner: Running) -> tuple[str, str]:
        """How it is named to others of its group, and the same with the time it has left."""
        text = self._to_others.get(runner.job_id)
        if text is None:
            name = named(runner.job, "", with_remedy=False)
            text = self._to_others[runner.job_id] = name, name + self._left(runner)
        return text

    def _left(self, runner: Running) -> str:
        """``, about 20m left``: where past runs or a limit say so."""
        if runner.is_stopping:
            return ", which is stopping"
        left = max(end_of(runner, self.now) - self.now, 1.0)
        if told_spread(runner.prediction, runner.job) < inf:
            return f", about {show_duration(_rounded(left))} left"
        if runner.ends_by is not None:
            return f", at most {show_duration(_rounded(max(runner.ends_by - self.now, 1.0)))} left"
        return ""


def _own(runner: Running) -> str:
    return as_holder(runner.job, runner.is_stopping) if runner.job.kind is JobKind.SPARK else named(runner.job, runner.job.owner)


def _has_no_end(runner: Running) -> bool:
    """Whether neither past runs nor a limit tell when it ends."""
    return runner.job.timeout_s is None and told_spread(runner.prediction, runner.job) == inf


def join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _rounded(seconds: float) -> float:
    """To two figures or so: a rough number should not look like an exact one."""
    for step in (3600, 600, 60, 10):
        if seconds >= step * 5:
            return round(seconds / step) * step
    return max(round(seconds), 1)
