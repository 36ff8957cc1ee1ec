"""The tree of queues: is it sound, which path leads to a queue, who may use it, and which queue goes next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from tuttilab.scheduler.errors import BadInput, Forbidden
from tuttilab.scheduler.model import Queue
from tuttilab.scheduler.requests import Who
from tuttilab.scheduler.resources import Resources, total


def check_tree(queues: Sequence[Queue]) -> dict[str, Queue]:
    """The queues by name. Raises BadInput naming the queue: parent unknown, loop, weight below 1, guarantee above max."""
    tree = {queue.name: queue for queue in queues}
    if len(tree) != len(queues):
        names = [queue.name for queue in queues]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"queues: {twice!r} stands there twice; expected each name once.")
    for queue in queues:
        if queue.weight < 1:
            raise BadInput(f"queue {queue.name!r}: weight {queue.weight} is not positive; expected a whole number from 1.")
        if queue.parent is not None and queue.parent not in tree:
            raise BadInput(
                f"queue {queue.name!r}: its parent {queue.parent!r} is not there; expected one of {', '.join(sorted(tree))}."
            )
        if queue.guaranteed.is_negative() or queue.max.is_negative():
            raise BadInput(f"queue {queue.name!r}: an amount of its guaranteed or max is negative; expected 0 or more.")
        if queue.guaranteed.over(queue.max):
            raise BadInput(
                f"queue {queue.name!r}: guaranteed {queue.guaranteed} is above its max {queue.max}; lower it or raise max."
            )
        numbers = {"overtaking": queue.overtaking, "overtaking_s": queue.overtaking_s, "class_cap_s": queue.class_cap_s}
        for field_, number in numbers.items():
            if not isfinite(number) or number < 0:
                raise BadInput(f"queue {queue.name!r}: {field_} {number} is no amount of time or room; expected 0 or more.")
        for field_, limit in (("max_jobs", queue.max_jobs), ("max_pods", queue.max_pods)):
            if limit is not None and limit < 0:
                raise BadInput(f"queue {queue.name!r}: {field_} {limit} is negative; expected 0 or more.")
        path_of(tree, queue.name)
    for queue in queues:
        promised = _promised_below(queue, queues)
        if queue.guaranteed and not promised.within(queue.guaranteed):
            raise BadInput(f"queue {queue.name!r}: its children are guaranteed {promised}, more than its own {queue.guaranteed}.")
        if not promised.within(queue.max):
            raise BadInput(f"queue {queue.name!r}: its children are guaranteed {promised}, more than its max {queue.max}.")
    return tree


def _promised_below(queue: Queue, queues: Sequence[Queue]) -> Resources:
    """What the children are guaranteed, or where one says nothing of a resource, what is guaranteed below it."""
    promised: list[Resources] = []
    for child in queues:
        if child.parent == queue.name:
            below = dict(_promised_below(child, queues))
            promised.append(Resources.of(below | dict(child.guaranteed)))
    return total(promised)


def path_of(tree: Mapping[str, Queue], name: str) -> tuple[Queue, ...]:
    """The queue and its ancestors, root last. Raises BadInput when they form a loop."""
    path: list[Queue] = []
    at: str | None = name
    while at is not None:
        queue = tree[at]
        if queue in path:
            loop = " -> ".join([*(q.name for q in path), at])
            raise BadInput(f"queue {name!r}: its parents form a loop ({loop}); expected a tree.")
        path.append(queue)
        at = queue.parent
    return tuple(path)


def parting(tree: Mapping[str, Queue], one: str, other: str) -> tuple[Queue, Queue] | None:
    """The queues on the two paths where they part, nearest the root; None where one leads through the other, or one is gone."""
    if one not in tree or other not in tree:
        return None
    mine, its = tree[one], tree[other]
    if mine.parent == its.parent:
        return None if mine is its else (mine, its)
    pairs = zip(reversed(path_of(tree, one)), reversed(path_of(tree, other)), strict=False)
    return next(((a, b) for a, b in pairs if a.name != b.name), None)


def leaves(tree: Mapping[str, Queue]) -> list[Queue]:
    parents = {queue.parent for queue in tree.values()}
    return [queue for queue in tree.values() if queue.name not in parents]


def may_use(queue: Queue, who: Who) -> bool:
    """A queue without groups is for everyone."""
    return who.is_admin or not queue.groups or any(who.is_in(group) for group in queue.groups)


def choose_queue(tree: Mapping[str, Queue], wanted: str | None, default: str | None, who: Who) -> Queue:
    """The queue a submit goes to. Raises BadInput for an unknown or inner queue, Forbidden for one that is not the caller's."""
    mine = [queue.name for queue in leaves(tree) if may_use(queue, who)]
    expected = f"expected one of {', '.join(sorted(mine))}" if mine else "you may use none; ask your admin for a group"
    name = wanted or (default if default in mine else None) or (mine[0] if mine else "")
    if not name:
        raise Forbidden("queue: you are in no group that has one; ask your admin for a group.")
    if name not in tree:
        raise BadInput(f"queue: there is no queue {name!r}; {expected}.")
    queue = tree[name]
    if not may_use(queue, who):
        raise Forbidden(f"queue: {name!r} is for the groups {', '.join(queue.groups)}; {expected}.")
    if name not in {leaf.name for leaf in leaves(tree)}:
        raise BadInput(f"queue: {name!r} only holds other queues; {expected}.")
    return queue


Rank = tuple[bool, tuple[tuple[bool, int, float, str], ...]]
"""Lowest is served next."""


@dataclass(slots=True)
class Turns:
    """Which queue is served next: below its guarantee first, then by priority, then by use over weight on the dominant resource.

    Queues of different branches are compared where their paths part, so weights share out what their parent got (hierarchical
    dominant resource fairness: Bhattacharya et al., SoCC 2013). Only the ranks on a changed path are computed again.
    """

    tree: Mapping[str, Queue]
    use: Mapping[str, Resources]
    site: Resources
    heads: dict[str, float] = field(default_factory=dict)
    """Dominant share of the gang that is next in each queue. Half of it counts as used (Webster's rule), so that queues get their
    weights on the average; comparing what is used alone would round every small queue up."""
    _nodes: dict[str, tuple[bool, int, float, str]] = field(default_factory=dict)
    _paths: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def rank(self, name: str) -> Rank:
        path = self._paths.get(name)
        if path is None:
            path = self._paths[name] = tuple(queue.name for queue in reversed(path_of(self.tree, name)))
        ranks = [self._nodes.get(step) or self._node(step) for step in path]
        if name in self.heads:
            is_fed, priority, share, _ = ranks[-1]
            if share > 0:
                ranks[-1] = (is_fed, priority, share + self.heads[name] / 2 / self.tree[name].weight, name)
        return all(rank[0] for rank in ranks), tuple(ranks)

    def _node(self, name: str) -> tuple[bool, int, float, str]:
        queue, used = self.tree[name], self.use[name]
        is_below = bool(queue.guaranteed) and all(used[key] < amount for key, amount in queue.guaranteed)
        share = (used.dominant_share(self.site) if self.site else 0.0) / queue.weight
        self._nodes[name] = (not is_below, -queue.priority, share, name)
        return self._nodes[name]

    def changed(self, name: str) -> None:
        """The use of this queue, and so of those above it, is another now."""
        for step in self._paths.get(name, ()):
            self._nodes.pop(step, None)


def order_queues(tree: Mapping[str, Queue], names: Iterable[str], use: Mapping[str, Resources], site: Resources) -> list[str]:
    """The queues in the order in which they are served."""
    return sorted(names, key=Turns(tree, use, site).rank)
