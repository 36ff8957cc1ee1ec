"""Where a gang stands to the guaranteed shares of the queues above it: within them, or on borrowed room.

Shares are compared where the paths of two queues part, so a gang has a standing at every level of the tree: a queue's own standing
among its siblings, its parent's among the parent's, and so on. What a parent is guaranteed and none of its children is stands to
all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tuttilab.scheduler.model import Queue
from tuttilab.scheduler.resources import NOTHING, Resources, total


class Level(IntEnum):
    """A gang's standing among the branches at one level; a lower one may be stopped for a higher one."""

    BORROWED = 0
    """Above what its branch is guaranteed, or using only what other branches here are guaranteed."""
    WITHIN = 1
    """Within what its branch is guaranteed, whatever else it uses, or using nothing that any branch here is guaranteed."""


Standing = tuple[int, ...]
"""A `Level` for each queue on the path, root first."""

NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Shares:
    """What each queue of a tree is guaranteed, and what stands to the children of one queue together."""

    own: Mapping[str, Resources]
    """By queue; of a resource of which it says nothing itself, what its children are guaranteed."""
    lent: Mapping[str | None, frozenset[str]]
    """By parent (None: at the top): the resources that some child is guaranteed and another may borrow."""
    rest: Mapping[str | None, Resources]
    """By parent: what it is guaranteed beyond its children's guarantees."""
    children: Mapping[str | None, tuple[str, ...]]
    everything: frozenset[str]
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
        lent = {
            parent: frozenset(key for name in names for key, _ in own[name]) if len(names) > 1 else NOBODY
            for parent, names in children.items()
        }
        rest = {
            parent: _beyond(own[parent] if parent else NOTHING, (own[name] for name in names)) for parent, names in children.items()
        }
        everything = frozenset(key for amounts in own.values() for key, _ in amounts)
        return cls(own, lent, rest, {parent: tuple(names) for parent, names in children.items()}, everything)

    def level(self, queue: Queue, charge: Resources, use: Mapping[str, Resources]) -> Level:
        """Where a gang with ``charge`` more would stand at this queue, as things are used."""
        lent = self.lent.get(queue.parent, NOBODY)
        own, rest = self.own[queue.name], self.rest[queue.parent]
        counts = is_named = False
        for key, amount in charge:
            if key not in lent:
                continue
            counts = True
            if not own[key] and not rest[key]:
                continue
            is_named = True
            over = use[queue.name][key] + amount - own[key]
            if over > 0 and (not rest[key] or over + self._above(key, queue, use) > rest[key]):
                return Level.BORROWED
        return Level.WITHIN if is_named or not counts else Level.BORROWED

    def _above(self, key: str, queue: Queue, use: Mapping[str, Resources]) -> int:
        """What the siblings use of it above their own guarantees."""
        return sum(max(use[name][key] - self.own[name][key], 0) for name in self.children[queue.parent] if name != queue.name)

    def named(self, queue: Queue, charge: Resources) -> frozenset[str]:
        """Of what the gang asks for, the resources that its branch is guaranteed, which are those it may fetch back."""
        own, rest = self.own[queue.name], self.rest[queue.parent]
        return frozenset(key for key, _ in charge if own[key] or rest[key]) & self.lent.get(queue.parent, NOBODY)

    def is_above(self, queue: Queue, keys: Iterable[str], use: Mapping[str, Resources]) -> bool:
        """Whether the queue uses more of any of ``keys`` than it is guaranteed."""
        return any(use[queue.name][key] > self.own[queue.name][key] for key in keys)


def _beyond(whole: Resources, parts: Iterable[Resources]) -> Resources:
    promised = total(parts)
    return Resources.of((key, max(amount - promised[key], 0)) for key, amount in whole)


def lower_of(one: Standing, other: Standing) -> Standing:
    """The worse of two at each level; one that is longer says more of a path that has changed."""
    return tuple(map(min, one, other)) if len(one) == len(other) else other
