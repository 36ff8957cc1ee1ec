"""The tree of queues: is it sound, which path leads to a queue, who may use it, and which queue goes next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
        if queue.guaranteed.over(queue.max):
            raise BadInput(
                f"queue {queue.name!r}: guaranteed {queue.guaranteed} is above its max {queue.max}; lower it or raise max."
            )
        path_of(tree, queue.name)
    for queue in queues:
        children = [child for child in queues if child.parent == queue.name]
        promised = total(child.guaranteed for child in children)
        if queue.guaranteed and not promised.within(queue.guaranteed):
            raise BadInput(f"queue {queue.name!r}: its children are guaranteed {promised}, more than its own {queue.guaranteed}.")
        if not promised.within(queue.max):
            raise BadInput(f"queue {queue.name!r}: its children are guaranteed {promised}, more than its max {queue.max}.")
    return tree


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


def order_queues(tree: Mapping[str, Queue], names: Iterable[str], use: Mapping[str, Resources], site: Resources) -> list[str]:
    """Which queue is served next: below its guarantee first, then by priority, then by use over weight on the dominant resource."""

    def rank(name: str) -> tuple[bool, int, float, str]:
        queue, used = tree[name], use[name]
        is_below = any(used[key] < amount for key, amount in queue.guaranteed)
        share = (used.dominant_share(site) if site else 0.0) / queue.weight
        return (not is_below, -queue.priority, share, name)

    return sorted(names, key=rank)
