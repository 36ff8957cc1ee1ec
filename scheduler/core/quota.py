"""What queues use and whether they may use more. Always computed from charges, never a counter that could drift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tuttilab.scheduler.core.queues import path_of
from tuttilab.scheduler.model import Charge, Queue
from tuttilab.scheduler.resources import NOTHING, Resources, short_name, show_amount


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a queue may not take more: the queue on the path, and by how much its max would be passed."""

    queue: str
    over: Resources
    sentence: str


@dataclass(slots=True)
class Ledger:
    """Use by queue, ancestors included, over all clusters. Rebuilt from charges each cycle; admissions of the cycle are added."""

    tree: Mapping[str, Queue]
    use: dict[str, Resources] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    pods: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: Mapping[str, Queue], charges: Iterable[tuple[Charge, int]]) -> Ledger:
        """From charges and the number of pods of each."""
        ledger = cls(tree, dict.fromkeys(tree, NOTHING), dict.fromkeys(tree, 0), dict.fromkeys(tree, 0))
        for charge, pods in charges:
            ledger.add(charge.queue, charge.resources, pods)
        return ledger

    def add(self, queue: str, resources: Resources, pods: int) -> None:
        if queue not in self.tree:
            return
        for step in path_of(self.tree, queue):
            self.use[step.name] = self.use[step.name] + resources
            self.jobs[step.name] += 1
            self.pods[step.name] += pods

    def remove(self, queue: str, resources: Resources, pods: int) -> None:
        if queue not in self.tree:
            return
        for step in path_of(self.tree, queue):
            self.use[step.name] = self.use[step.name] - resources
            self.jobs[step.name] -= 1
            self.pods[step.name] -= pods

    def shortage(self, queue: str, resources: Resources, pods: int) -> Shortage | None:
        """None when ``resources`` more stay within max on the whole path to the root."""
        for step in path_of(self.tree, queue):
            after = self.use[step.name] + resources
            over = after.over(step.max)
            if over:
                used = ", ".join(
                    f"{show_amount(key, self.use[step.name][key])} of {show_amount(key, step.max[key])} {short_name(key)}"
                    for key, _ in over
                )
                return Shortage(step.name, over, f"queue {step.name} uses {used}; this needs {over} more than is left")
            if step.max_jobs is not None and self.jobs[step.name] + 1 > step.max_jobs:
                return Shortage(step.name, NOTHING, f"queue {step.name} runs {self.jobs[step.name]} jobs, its limit")
            if step.max_pods is not None and self.pods[step.name] + pods > step.max_pods:
                sentence = f"queue {step.name} runs {self.pods[step.name]} of {step.max_pods} pods; this needs {pods}"
                return Shortage(step.name, NOTHING, sentence)
        return None


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
