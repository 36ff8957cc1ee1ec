"""The queue tree: validation, paths, access, and which queue is served next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from tuttilab.scheduler.domain.errors import BadInput, Forbidden
from tuttilab.scheduler.domain.model import Queue
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.domain.resources import Resources, total


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
        below = _guaranteed_below(queue, queues)
        if queue.guaranteed and not below.within(queue.guaranteed):
            raise BadInput(f"queue {queue.name!r}: its children are guaranteed {below}, more than its own {queue.guaranteed}.")
        if not below.within(queue.max):
            raise BadInput(f"queue {queue.name!r}: its children are guaranteed {below}, more than its max {queue.max}.")
    return tree


def _guaranteed_below(queue: Queue, queues: Sequence[Queue]) -> Resources:
    """The sum of the children's guarantees. For a resource that a child leaves out, what is guaranteed below the child counts."""
    guarantees: list[Resources] = []
    for child in queues:
        if child.parent == queue.name:
            below = dict(_guaranteed_below(child, queues))
            guarantees.append(Resources.of(below | dict(child.guaranteed)))
    return total(guarantees)


def path_of(tree: Mapping[str, Queue], name: str) -> tuple[Queue, ...]:
    """The queue and its ancestors, root last. Raises BadInput if they form a loop."""
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


def diverging_queues(tree: Mapping[str, Queue], one: str, other: str) -> tuple[Queue, Queue] | None:
    """The two siblings at which the paths from the root diverge; None if one path contains the other, or a queue is missing."""
    if one not in tree or other not in tree:
        return None
    first, second = tree[one], tree[other]
    if first.parent == second.parent:
        return None if first is second else (first, second)
    pairs = zip(reversed(path_of(tree, one)), reversed(path_of(tree, other)), strict=False)
    return next(((a, b) for a, b in pairs if a.name != b.name), None)


def leaves(tree: Mapping[str, Queue]) -> list[Queue]:
    parents = {queue.parent for queue in tree.values()}
    return [queue for queue in tree.values() if queue.name not in parents]


def may_use(queue: Queue, who: Who) -> bool:
    """Whether ``who`` may submit to the queue; a queue without groups is open to everyone."""
    return who.is_admin or not queue.groups or any(who.is_in(group) for group in queue.groups)


def usable_queues(tree: Mapping[str, Queue], default: str | None, who: Who) -> list[Queue]:
    """The queues that take jobs of ``who``: the default one first, then in the order of the file."""
    return sorted((queue for queue in leaves(tree) if may_use(queue, who)), key=lambda queue: queue.name != default)


def choose_queue(tree: Mapping[str, Queue], wanted: str | None, default: str | None, who: Who) -> Queue:
    """The queue of a submit. Raises BadInput for an unknown or inner queue, Forbidden for one that the caller may not use."""
    mine = [queue.name for queue in usable_queues(tree, default, who)]
    expected = f"expected one of {', '.join(sorted(mine))}" if mine else "you may use none; ask your admin for a group"
    name = wanted or (mine[0] if mine else "")
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
"""The lowest rank is served next."""


@dataclass(slots=True)
class QueueOrder:
    """Order in which queues are served: below their guarantee first, then by priority, then by dominant share over weight.

    Queues of different branches are compared where their paths diverge, so weights divide what their parent got (hierarchical
    dominant resource fairness: Bhattacharya et al., SoCC 2013). Only the ranks on an invalidated path are computed again.
    """

    tree: Mapping[str, Queue]
    use: Mapping[str, Resources]
    site: Resources
    head_shares: dict[str, float] = field(default_factory=dict)
    """Dominant share of the first gang of each queue. Half of it counts as used (Webster's rule), so that queues get their weights
    on average; comparing use alone would round up every small queue."""
    _nodes: dict[str, tuple[bool, int, float, str]] = field(default_factory=dict)
    _paths: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def rank(self, name: str) -> Rank:
        path = self._paths.get(name)
        if path is None:
            path = self._paths[name] = tuple(queue.name for queue in reversed(path_of(self.tree, name)))
        ranks = [self._nodes.get(step) or self._node(step) for step in path]
        if name in self.head_shares:
            is_satisfied, priority, share, _ = ranks[-1]
            if share > 0:
                ranks[-1] = (is_satisfied, priority, share + self.head_shares[name] / 2 / self.tree[name].weight, name)
        return all(rank[0] for rank in ranks), tuple(ranks)

    def _node(self, name: str) -> tuple[bool, int, float, str]:
        queue, used = self.tree[name], self.use[name]
        is_below = bool(queue.guaranteed) and all(used[key] < amount for key, amount in queue.guaranteed)
        share = (used.dominant_share(self.site) if self.site else 0.0) / queue.weight
        self._nodes[name] = (not is_below, -queue.priority, share, name)
        return self._nodes[name]

    def invalidate(self, name: str) -> None:
        """The use of this queue, and so of its ancestors, has changed."""
        for step in self._paths.get(name, ()):
            self._nodes.pop(step, None)


def order_queues(tree: Mapping[str, Queue], names: Iterable[str], use: Mapping[str, Resources], site: Resources) -> list[str]:
    """The queues in the order in which they are served."""
    return sorted(names, key=QueueOrder(tree, use, site).rank)
