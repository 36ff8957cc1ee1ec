"""Whether the limits of queues name resources that some node has: a misspelt one would limit nothing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Cluster, Queue
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, PODS, Resources

OF_EVERY_NODE: Final = (CPU, MEMORY)

Named = tuple[str, str]
"""A resource as a queue names it: the place in the file, such as ``queues[1].max``, and the resource."""


def check_resources(queues: Sequence[Queue], clusters: Sequence[ClusterConfig]) -> None:
    """Raises BadInput for a resource that no node of any cluster can have, and for the number of pods."""
    for place, key in named_resources(queues):
        if key == PODS:
            raise BadInput(f"{place}: {key!r} is counted by node, not by queue; use the queue's max_pods.")
        if key not in _declared(clusters) and not _may_have(clusters, key):
            raise BadInput(refusal(place, key, _declared(clusters)))


def unchecked_resources(queues: Sequence[Queue], clusters: Sequence[ClusterConfig]) -> tuple[str, ...]:
    """A sentence for each resource of which only the clusters themselves can tell whether a node has it."""
    known = _declared(clusters)
    return tuple(
        f"{place}: whether any node has {key!r} is not known before cluster {' or '.join(_may_have(clusters, key))} shows its "
        "nodes; if none has it, this limits nothing"
        for place, key in named_resources(queues)
        if key not in known
    )


def unseen_resources(
    queues: Sequence[Queue], before: Collection[Queue], clusters: Sequence[ClusterConfig], seen: Mapping[str, Cluster]
) -> tuple[str, ...]:
    """As `unchecked_resources`, by the nodes that the clusters have shown.

    Raises BadInput for a resource that no node has, where all were seen and ``before`` did not name it: nodes may be away.
    """
    nodes = [node for cluster in seen.values() for node in cluster.nodes]
    have = {key for node in nodes for key, _ in node.allocatable + node.failing} | _declared(clusters)
    named_before = {key for _, key in named_resources(tuple(before))}
    missing = [(place, key) for place, key in named_resources(queues) if key not in have]
    for place, key in missing:
        hidden = [one.name for one in clusters if one.grows or one.name not in seen or seen[one.name].unreachable_since is not None]
        if not hidden and key not in named_before:
            raise BadInput(refusal(place, key, have) + " Nodes that are added later need `grows: true` of their cluster.")
    return tuple(f"{place}: no node that is seen now has {key!r}, so that this limits nothing yet" for place, key in missing)


def named_resources(queues: Sequence[Queue]) -> Iterator[Named]:
    for index, queue in enumerate(queues):
        for part, amounts in (("guaranteed", queue.guaranteed), ("max", queue.max)):
            yield from ((f"queues[{index}].{part}", key) for key, amount in amounts if not _is_ban_of_gpus(amounts, key, amount))


def _is_ban_of_gpus(amounts: Resources, key: str, amount: int) -> bool:
    """``max: {nvidia.com/gpu: 0}`` is sound where there is none."""
    return key == GPU and amount == 0


def refusal(place: str, key: str, known: Collection[str]) -> str:
    names = sorted({*OF_EVERY_NODE, *known})
    near = [GPU] if "gpu" in key.lower() else difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    expected = f"did you mean {near[0]!r}?" if near and near != [key] else f"expected one of {', '.join(names)}."
    return f"{place}: no node of any cluster has {key!r}, so this would limit nothing; {expected}"


def _declared(clusters: Sequence[ClusterConfig]) -> set[str]:
    nodes = [node for cluster in clusters for node in cluster.nodes or ()]
    return {*OF_EVERY_NODE, *(key for node in nodes for key, _ in node.allocatable)}


def _may_have(clusters: Sequence[ClusterConfig], key: str) -> list[str]:
    """Names of the clusters whose nodes are not all in the file and may have the resource."""
    return [one.name for one in clusters if one.grows or one.kubernetes is not None or (one.nodes is None and key == GPU)]
