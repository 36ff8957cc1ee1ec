"""Quota: what queues use and whether they may use more. Computed from charges, never a counter that could drift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.ordering.queues import diverging_queues, path_of
from tuttilab.scheduler.core.ordering.shares import Level, Shares, Standing
from tuttilab.scheduler.domain.model import Charge, Queue
from tuttilab.scheduler.domain.resources import NOTHING, Resources, short_name, show_amount


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a queue may not use more: the queue on the path whose limit would be passed, and by how much."""

    queue: str
    over: Resources
    sentence: str
    counted: Resources = NOTHING
    """By how many jobs or pods the limit on their number would be passed."""


JOBS: Final = "jobs at once"
PODS: Final = "pods at once"
"""Keys of the counts of a queue beside its resources; no resource can have such a name."""


def counts_of(pods: int, jobs: int = 1) -> Resources:
    return Resources.of({JOBS: jobs, PODS: pods})


@dataclass(slots=True)
class Ledger:
    """Use by queue over all clusters; a queue includes its descendants. A cycle works on a copy and adds its admissions."""

    tree: Mapping[str, Queue]
    use: dict[str, Resources] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    pods: dict[str, int] = field(default_factory=dict)
    _paths: dict[str, tuple[Queue, ...]] = field(default_factory=dict)
    _parts: dict[tuple[str, str], tuple[Queue, Queue] | None] = field(default_factory=dict)
    _shares: Shares | None = None

    @classmethod
    def of(cls, tree: Mapping[str, Queue], charges: Iterable[tuple[Charge, int]]) -> Ledger:
        """From charges and the number of pods of each."""
        ledger = cls(tree, dict.fromkeys(tree, NOTHING), dict.fromkeys(tree, 0), dict.fromkeys(tree, 0))
        for charge, pods in charges:
            ledger.add(charge.queue, charge.resources, pods)
        return ledger

    def copy(self) -> Ledger:
        return Ledger(self.tree, dict(self.use), dict(self.jobs), dict(self.pods), self._paths, self._parts, self.shares)

    def idle(self) -> Ledger:
        """The same queues without any use."""
        none = dict.fromkeys(self.tree, 0)
        return Ledger(self.tree, dict.fromkeys(self.tree, NOTHING), none, dict(none), self._paths, self._parts, self.shares)

    def path(self, queue: str) -> tuple[Queue, ...]:
        """The queue and its ancestors, root last; empty if the queue no longer exists."""
        path = self._paths.get(queue)
        if path is None:
            path = self._paths[queue] = path_of(self.tree, queue) if queue in self.tree else ()
        return path

    def diverging_queues(self, one: str, other: str) -> tuple[Queue, Queue] | None:
        """`queues.diverging_queues`, cached."""
        if (one, other) not in self._parts:
            self._parts[one, other] = diverging_queues(self.tree, one, other)
        return self._parts[one, other]

    def add(self, queue: str, resources: Resources, pods: int, jobs: int = 1) -> None:
        for step in self.path(queue):
            self.use[step.name] = self.use[step.name] + resources
            self.jobs[step.name] += jobs
            self.pods[step.name] += pods

    def remove(self, queue: str, resources: Resources, pods: int, jobs: int = 1) -> None:
        for step in self.path(queue):
            self.use[step.name] = self.use[step.name] - resources
            self.jobs[step.name] -= jobs
            self.pods[step.name] -= pods

    @property
    def shares(self) -> Shares:
        if self._shares is None:
            self._shares = Shares.of(self.tree)
        return self._shares

    def borrowable(self) -> frozenset[str]:
        """The resources that any queue is guaranteed, so that other queues can borrow them."""
        return self.shares.guaranteed_keys

    def standing(self, queue: str, resources: Resources) -> Standing:
        """The standing of a gang of ``queue`` that adds ``resources``, root first."""
        shares = self.shares
        if not any(key in shares.guaranteed_keys for key, _ in resources):
            return (Level.WITHIN,) * len(self.path(queue))
        return tuple(shares.level(step, resources, self.use) for step in reversed(self.path(queue)))

    def may_reclaim(self, queue: str, resources: Resources) -> bool:
        """Whether a gang that adds ``resources`` may reclaim them: it stays within a guarantee on its path and all may reclaim."""
        shares, path = self.shares, self.path(queue)
        if not any(key in shares.guaranteed_keys for key, _ in resources) or not all(step.can_reclaim for step in path):
            return False
        return any(shares.reclaimable_keys(step, resources) and shares.level(step, resources, self.use) for step in path)

    def shortage(self, queue: str, resources: Resources, pods: int, may_borrow: bool = True, jobs: int = 1) -> Shortage | None:
        """Why the queue may not use ``resources`` more: a limit on its path, or a guarantee if it may not borrow; else None."""
        for step in self.path(queue):
            over = (self.use[step.name] + resources).over(step.max) if step.max else NOTHING
            if over:
                used = ", ".join(
                    f"{show_amount(key, self.use[step.name][key])} of {show_amount(key, step.max[key])} {short_name(key)}"
                    for key, _ in over
                )
                return Shortage(step.name, over, f"queue {step.name} uses {used}; this needs {over} more than is left")
            if step.max_jobs is not None and self.jobs[step.name] + jobs > step.max_jobs:
                sentence = f"queue {step.name} runs {self.jobs[step.name]} jobs, its limit"
                over_jobs = self.jobs[step.name] + jobs - step.max_jobs
                return Shortage(step.name, NOTHING, sentence, Resources.of({JOBS: over_jobs}))
            if step.max_pods is not None and self.pods[step.name] + pods > step.max_pods:
                sentence = f"queue {step.name} runs {self.pods[step.name]} of {step.max_pods} pods; this needs {pods}"
                over_pods = self.pods[step.name] + pods - step.max_pods
                return Shortage(step.name, NOTHING, sentence, Resources.of({PODS: over_pods}))
        for step in self.path(queue):
            if (not may_borrow or not step.can_borrow) and self.shares.level(step, resources, self.use) is Level.BORROWED:
                return self._above_guarantee(step, resources)
        return None

    def _above_guarantee(self, step: Queue, resources: Resources) -> Shortage:
        keys, own = self.shares.reclaimable_keys(step, resources) or self.shares.borrowable[step.parent], self.shares.own[step.name]
        over = Resources.of(
            (key, self.use[step.name][key] + amount - own[key])
            for key, amount in resources
            if key in keys and self.use[step.name][key] + amount > own[key]
        )
        why = "may not borrow" if not step.can_borrow else "may not be stopped for others, so it never borrows"
        used = ", ".join(
            f"{show_amount(key, self.use[step.name][key])} of {show_amount(key, own[key])} guaranteed {short_name(key)}"
            for key, _ in over
        )
        who = f"queue {step.name}" if not step.can_borrow else f"this job {why}, and queue {step.name}"
        ending = f" and {why}" if not step.can_borrow else ""
        return Shortage(step.name, over, f"{who} uses {used}{ending}; this needs {over} more than is left")


def reason_above_max(tree: Mapping[str, Queue], queue: str, resources: Resources, pods: int) -> str | None:
    """A sentence if the request alone is above a max on the path, so that waiting cannot help; else None."""
    for step in path_of(tree, queue):
        over = resources.over(step.max)
        if over:
            asked = Resources.of((key, resources[key]) for key, _ in over)
            allowed = Resources.limits((key, step.max[key]) for key, _ in over).as_limits()
            may = "may never use more than" if any(step.max[key] for key, _ in over) else "may use"
            return f"asks for {asked}, but queue {step.name!r} {may} {allowed}; ask for less or use another queue."
        if step.max_pods is not None and pods > step.max_pods:
            return f"asks for {pods} pods, but queue {step.name!r} may never run more than {step.max_pods}."
    return None
