"""A gang's standing: whether it is within the guaranteed shares of the queues on its path, or on borrowed room.

Shares are compared where the paths of two queues diverge, so a gang has a standing at every level of the tree: its queue's among
that queue's siblings, the parent's among the parent's siblings, and so on. What a parent is guaranteed beyond its children's
guarantees belongs to all children together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tuttilab.scheduler.domain.model import Queue
from tuttilab.scheduler.domain.resources import NOTHING, Resources, total


class Level(IntEnum):
    """A gang's standing among the sibling queues at one level; a gang with a lower one may be preempted for a higher one."""

    BORROWED = 0
    """Above the guarantee of its branch, or using only resources that other branches are guaranteed."""
    WITHIN = 1
    """Within the guarantee of its branch, whatever else it uses, or using nothing that any branch is guaranteed."""


Standing = tuple[int, ...]
"""A `Level` for each queue on the path, root first."""

NO_KEYS: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Shares:
    """What each queue of a tree is guaranteed, and what the children of one queue are guaranteed together."""

    own: Mapping[str, Resources]
    """Guarantee by queue. For a resource that a queue leaves out: the sum of its children's guarantees."""
    borrowable: Mapping[str | None, frozenset[str]]
    """By parent (None: the top level): the resources that one child is guaranteed and another may borrow."""
    unassigned: Mapping[str | None, Resources]
    """By parent: its guarantee beyond the sum of its children's guarantees."""
    children: Mapping[str | None, tuple[str, ...]]
    guaranteed_keys: frozenset[str]
    """The resources that any queue is guaranteed."""

    @classmethod
    def of(cls, tree: Mapping[str, Queue]) -> Shares:
        children: dict[str | None, list[str]] = {}
        for queue in tree.values():
            children.setdefault(queue.parent, []).append(queue.name)
        own: dict[str, Resources] = {}

        def measure(name: str) -> Resources:
            below = dict(total(measure(child) for child in children.get(name, ())))
            own[name] = Resources.of(below | dict(tree[name].guaranteed))
            return own[name]

        for name in children.get(None, ()):
            measure(name)
        borrowable = {
            parent: frozenset(key for name in names for key, _ in own[name]) if len(names) > 1 else NO_KEYS
            for parent, names in children.items()
        }
        unassigned = {
            parent: _unassigned(own[parent] if parent else NOTHING, (own[name] for name in names))
            for parent, names in children.items()
        }
        guaranteed_keys = frozenset(key for amounts in own.values() for key, _ in amounts)
        return cls(own, borrowable, unassigned, {parent: tuple(names) for parent, names in children.items()}, guaranteed_keys)

    def level(self, queue: Queue, charge: Resources, use: Mapping[str, Resources]) -> Level:
        """The standing at this queue of a gang that adds ``charge`` to the current ``use``."""
        borrowable = self.borrowable.get(queue.parent, NO_KEYS)
        own, unassigned = self.own[queue.name], self.unassigned[queue.parent]
        has_borrowable = has_guarantee = False
        for key, amount in charge:
            if key not in borrowable:
                continue
            has_borrowable = True
            if not own[key] and not unassigned[key]:
                continue
            has_guarantee = True
            over = use[queue.name][key] + amount - own[key]
            if over > 0 and (not unassigned[key] or over + self._siblings_over(key, queue, use) > unassigned[key]):
                return Level.BORROWED
        return Level.WITHIN if has_guarantee or not has_borrowable else Level.BORROWED

    def _siblings_over(self, key: str, queue: Queue, use: Mapping[str, Resources]) -> int:
        """How much of ``key`` the siblings use above their own guarantees."""
        return sum(max(use[name][key] - self.own[name][key], 0) for name in self.children[queue.parent] if name != queue.name)

    def reclaimable_keys(self, queue: Queue, charge: Resources) -> frozenset[str]:
        """The requested resources that the gang's branch is guaranteed, so that it may reclaim them from borrowers."""
        own, unassigned = self.own[queue.name], self.unassigned[queue.parent]
        return frozenset(key for key, _ in charge if own[key] or unassigned[key]) & self.borrowable.get(queue.parent, NO_KEYS)

    def is_over_guarantee(self, queue: Queue, keys: Iterable[str], use: Mapping[str, Resources]) -> bool:
        """Whether the queue uses more of any of ``keys`` than it is guaranteed."""
        return any(use[queue.name][key] > self.own[queue.name][key] for key in keys)


def _unassigned(own: Resources, children: Iterable[Resources]) -> Resources:
    below = total(children)
    return Resources.of((key, max(amount - below[key], 0)) for key, amount in own)


def lower_of(one: Standing, other: Standing) -> Standing:
    """The lower level of the two at each queue of the path. If the path changed its length, ``other`` is returned."""
    return tuple(map(min, one, other)) if len(one) == len(other) else other
