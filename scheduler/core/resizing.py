"""The size of a running gang: how many pods a decision gives it, and what the attempt is with more or fewer of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tuttilab.scheduler.core.placement import has_master, pod_cost
from tuttilab.scheduler.events import Placement
from tuttilab.scheduler.model import MASTER, Attempt, Cluster, Job, Pod, PodPhase
from tuttilab.scheduler.resources import total


def counts_of(placements: Iterable[Placement]) -> Mapping[str, int]:
    """Pods by role."""
    return Counter(place.role for place in placements if place.role != MASTER)


def is_whole(job: Job, placements: tuple[Placement, ...]) -> bool:
    """Whether the places are those of a whole gang: every set between its minimum and its count, each rank once, its master."""
    counts = counts_of(placements)
    masters = sum(place.role == MASTER for place in placements)
    ranks = {place.rank for place in placements}
    sizes = all((s.count if s.min_count is None else s.min_count) <= counts.get(s.role, 0) <= s.count for s in job.gang.pod_sets)
    return sizes and masters == int(has_master(job)) and len(ranks) == len(placements)


def grown(
    job: Job, attempt: Attempt, cluster: Cluster, places: Iterable[Placement], name: Callable[[str, int, str, int], str]
) -> Attempt:
    """The attempt with these pods more; places of ranks that it has, or of sets that cannot grow, are left out."""
    taken = {pod.rank for pod in attempt.pods}
    sets = {pod_set.role: pod_set for pod_set in job.gang.pod_sets if pod_set.can_grow}
    more = tuple(
        Pod(
            name=name(job.id, attempt.number, place.role, place.rank),
            role=place.role,
            rank=place.rank,
            cluster=cluster.name,
            node=place.node,
            resources=pod_cost(job, sets[place.role], cluster),
        )
        for place in places
        if place.role in sets and place.rank not in taken
    )
    return replace(attempt, pods=(*attempt.pods, *more), charge=attempt.charge + total(pod.resources for pod in more))


def shrunk(job: Job, attempt: Attempt, names: Iterable[str]) -> tuple[Attempt, tuple[str, ...]]:
    """The attempt with these pods marked to be given back, and their names; no set goes below its minimum."""
    wanted = set(names)
    chosen: set[str] = set()
    for pod_set in job.gang.pod_sets:
        if not pod_set.can_grow or pod_set.min_count is None:
            continue
        alive = [p for p in attempt.pods if p.role == pod_set.role and p.phase is not PodPhase.ENDED and not p.is_given_back]
        asked = sorted((p for p in alive if p.name in wanted), key=lambda pod: -pod.rank)
        chosen |= {pod.name for pod in asked[: max(len(alive) - pod_set.min_count, 0)]}
    pods = tuple(replace(pod, is_given_back=True) if pod.name in chosen else pod for pod in attempt.pods)
    return replace(attempt, pods=pods), tuple(pod.name for pod in pods if pod.name in chosen)


def without(attempt: Attempt, name: str) -> Attempt:
    """The attempt after a pod that was given back has ended."""
    gone = next(pod for pod in attempt.pods if pod.name == name)
    return replace(attempt, pods=tuple(pod for pod in attempt.pods if pod is not gone), charge=attempt.charge - gone.resources)
