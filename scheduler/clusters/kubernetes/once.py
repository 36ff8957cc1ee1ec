"""What all bodies of one launch have in common is computed once: a gang may have ten thousand pods."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Final, TypeVar

from tuttilab.scheduler.clusters.base import LaunchPlan

T = TypeVar("T")
_REMEMBERED: Final = 64
"""Plans, each as long as it is among the last that were asked about."""


class _This:
    """A plan by its identity: plans cannot be hashed, and to compare two costs as much as what is saved."""

    __slots__ = ("plan",)

    def __init__(self, plan: LaunchPlan) -> None:
        self.plan = plan

    def __hash__(self) -> int:
        return id(self.plan)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _This) and other.plan is self.plan


def once_a_plan(compute: Callable[[LaunchPlan], T]) -> Callable[[LaunchPlan], T]:
    """``compute``, whose result nobody changes, is called once for each plan."""

    @lru_cache(maxsize=_REMEMBERED)
    def remembered(of: _This) -> T:
        return compute(of.plan)

    @wraps(compute)
    def asked(plan: LaunchPlan) -> T:
        return remembered(_This(plan))

    return asked
