"""What queues use and whether they may use more. Always computed from charges, never a counter that could drift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.queues import parting, path_of
from tuttilab.scheduler.core.standing import Level, Shares, Standing
from tuttilab.scheduler.model import Charge, Queue
from tuttilab.scheduler.resources import NOTHING, Resources, short_name, show_amount


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a queue may not take more: the queue on the path, and by how much its max would be passed."""

    queue: str
    over: Resources
    sentence: str
    counted: Resources = NOTHING
    """By how many jobs and pods its limits on these would be passed."""


JOBS: Final = "jobs at once"
PODS: Final = "pods at once"
"""What a queue counts beside resources; no resource has such a name."""


def counts_of(pods: int, jobs: int = 1) -> Resources:
    return Resources.of({JOBS: jobs, PODS: pods})


@dataclass(slots=True)
class Ledger:
    """Use by queue, ancestors included, over all clusters. Rebuilt from charges each cycle; admissions of the cycle are added."""

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
        """The same queues with nothing in use."""
        none = dict.fromkeys(self.tree, 0)
        return Ledger(self.tree, dict.fromkeys(self.tree, NOTHING), none, dict(none), self._paths, self._parts, self.shares)

    def path(self, queue: str) -> tuple[Queue, ...]:
        """The queue and its ancestors, root last; empty for a queue that is no more."""
        path = self._paths.get(queue)
        if path is None:
            path = self._paths[queue] = path_of(self.tree, queue) if queue in self.tree else ()
        return path

    def parting(self, one: str, other: str) -> tuple[Queue, Queue] | None:
        """`queues.parting`, once for each pair."""
        if (one, other) not in self._parts:
            self._parts[one, other] = parting(self.tree, one, other)
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

    def lent(self) -> frozenset[str]:
        """The resources that some queue is guaranteed, so that others can borrow them."""
        return self.shares.everything

    def standing(self, queue: str, resources: Resources) -> Standing:
        """Where a gang of ``queue`` with ``resources`` more would stand to the guaranteed shares, root first."""
        shares = self.shares
        if not any(key in shares.everything for key, _ in resources):
            return (Level.WITHIN,) * len(self.path(queue))
        return tuple(shares.level(step, resources, self.use) for step in reversed(self.path(queue)))

    def is_within(self, queue: str, resources: Resources) -> bool:
        """Whether it would be within the guaranteed share of its queue, or of one above it, and may fetch that from borrowers."""
        shares, path = self.shares, self.path(queue)
        if not any(key in shares.everything for key, _ in resources) or not all(step.can_reclaim for step in path):
            return False
        return any(shares.named(step, resources) and shares.level(step, resources, self.use) for step in path)

    def shortage(self, queue: str, resources: Resources, pods: int, may_borrow: bool = True, jobs: int = 1) -> Shortage | None:
        """None when ``resources`` more stay within max on the whole path to the root, and within guarantees where they must."""
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
        keys, own = self.shares.named(step, resources) or self.shares.lent[step.parent], self.shares.own[step.name]
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


def never_within(tree: Mapping[str, Queue], queue: str, resources: Resources, pods: int) -> str | None:
    """Why waiting cannot help: the sentence when the request alone passes a max on the path, else None."""
    for step in path_of(tree, queue):
        over = resources.over(step.max)
        if over:
            asked = Resources.of((key, resources[key]) for key, _ in over)
            allowed = ", ".join(f"{show_amount(key, step.max[key])} {short_name(key)}" for key, _ in over)
            return (
                f"asks for {asked}, but queue {step.name!r} may never use more than {allowed}; ask for less or use another queue."
            )
        if step.max_pods is not None and pods > step.max_pods:
            return f"asks for {pods} pods, but queue {step.name!r} may never run more than {step.max_pods}."
    return None
