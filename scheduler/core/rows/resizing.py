"""The size of a gang: whether placements are a whole gang, and an attempt with more or fewer pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.placement.fit import has_master, pod_cost
from tuttilab.scheduler.domain.asked_size import whole_number
from tuttilab.scheduler.domain.events import Placement
from tuttilab.scheduler.domain.model import MASTER, Attempt, Cluster, Job, Pod, PodPhase, PodSet
from tuttilab.scheduler.domain.resources import total

COMPLETED: Final = "Completed"
"""The reason of a pod whose main process exited 0 by itself."""
WORKERS: Final = "workers"
"""The offer by which a gang's first member says how many workers it can use (`sidecar.wish`)."""
LONGEST_WISH: Final = 40
LEFT_KEPT: Final = 100
"""Given-back members without a successful end that an attempt keeps in its row."""


def counts_of(placements: Iterable[Placement]) -> Mapping[str, int]:
    """Pods by role."""
    return Counter(place.role for place in placements if place.role != MASTER)


def is_whole(job: Job, placements: tuple[Placement, ...]) -> bool:
    """Whether the placements are a whole gang: every set between its minimum and its count, each rank once, its master."""
    counts = counts_of(placements)
    masters = sum(place.role == MASTER for place in placements)
    ranks = {place.rank for place in placements}
    sizes = all((s.count if s.min_count is None else s.min_count) <= counts.get(s.role, 0) <= s.count for s in job.gang.pod_sets)
    return sizes and masters == int(has_master(job)) and len(ranks) == len(placements)


def asked_of(attempt: Attempt) -> int | None:
    """How many workers the job says that it can use; None where it says nothing, or no number."""
    return whole_number(asked_text(attempt))


def asked_text(attempt: Attempt) -> str:
    """The same as it was written, without what cannot be shown; empty where the job says nothing."""
    first = next((pod for pod in attempt.pods if pod.rank == 0), None)
    text = "" if first is None else first.endpoints.get(WORKERS, "")
    return "".join(letter for letter in text if letter.isprintable())[:LONGEST_WISH]


def wanted(job: Job, attempt: Attempt) -> Iterator[tuple[PodSet, range]]:
    """By set that can grow, the ranks that it may have: all, or as many as the job asks for, and its minimum at least."""
    asked, first = asked_of(attempt), 0
    for pod_set in job.gang.pod_sets:
        if pod_set.can_grow and pod_set.min_count is not None:
            count = pod_set.count if asked is None else max(pod_set.min_count, min(asked, pod_set.count))
            yield pod_set, range(first, first + count)
        first += pod_set.count


def unasked(job: Job, attempt: Attempt) -> list[str]:
    """Names of the pods above what the job asks for."""
    ranks = {pod_set.role: ranks for pod_set, ranks in wanted(job, attempt)}
    return [pod.name for pod in attempt.pods if pod.role in ranks and pod.rank not in ranks[pod.role]]


def grown(
    job: Job, attempt: Attempt, cluster: Cluster, places: Iterable[Placement], name: Callable[[str, int, str, int], str], at: float
) -> Attempt:
    """The attempt with these pods added; placements of ranks that it has, or of sets that cannot grow, are ignored.

    A rank that was given back may be added again as a new pod, so the pod's name has the number of the growth.
    """
    taken = {pod.rank for pod in attempt.pods}
    sets = {pod_set.role: pod_set for pod_set in job.gang.pod_sets if pod_set.can_grow}
    more = tuple(
        Pod(
            name=f"{name(job.id, attempt.number, place.role, place.rank)}-g{attempt.growths + 1}",
            role=place.role,
            rank=place.rank,
            cluster=cluster.name,
            node=place.node,
            resources=pod_cost(job, sets[place.role], cluster),
            joined_at=at,
        )
        for place in places
        if place.role in sets and place.rank not in taken
    )
    charge = attempt.charge + total(pod.resources for pod in more)
    return replace(attempt, pods=(*attempt.pods, *more), charge=charge, growths=attempt.growths + 1)


def shrunk(job: Job, attempt: Attempt, names: Iterable[str], why: str) -> tuple[Attempt, tuple[str, ...]]:
    """The attempt with these pods marked to be given back, and their names; no set goes below its minimum."""
    wanted = set(names)
    chosen: set[str] = set()
    for pod_set in job.gang.pod_sets:
        if not pod_set.can_grow or pod_set.min_count is None:
            continue
        alive = [p for p in attempt.pods if p.role == pod_set.role and p.phase is not PodPhase.ENDED and not p.is_given_back]
        asked = sorted((p for p in alive if p.name in wanted), key=lambda pod: -pod.rank)
        chosen |= {pod.name for pod in asked[: max(len(alive) - pod_set.min_count, 0)]}
    return _given_back(attempt, chosen, why)


def unstarted(attempt: Attempt, names: Iterable[str], why: str) -> tuple[Attempt, tuple[str, ...]]:
    """The attempt with those of the pods that are still joining marked to be given back, and their names."""
    wanted = set(names)
    return _given_back(attempt, {pod.name for pod in attempt.pods if pod.name in wanted and is_joining(pod)}, why)


def is_joining(pod: Pod) -> bool:
    """Whether the pod was added to a running gang and is not known to run yet."""
    is_early = pod.phase in (PodPhase.PENDING, PodPhase.READY)
    return pod.joined_at is not None and is_early and not pod.is_given_back


def _given_back(attempt: Attempt, chosen: set[str], why: str) -> tuple[Attempt, tuple[str, ...]]:
    pods = tuple(replace(p, is_given_back=True, given_back_why=why) if p.name in chosen else p for p in attempt.pods)
    return replace(attempt, pods=pods), tuple(pod.name for pod in pods if pod.name in chosen)


def without_pod(attempt: Attempt, name: str) -> Attempt:
    """The attempt after a pod that was given back has ended."""
    ended = next(pod for pod in attempt.pods if pod.name == name)
    left = (*attempt.left, ended)
    others = [pod.name for pod in left if not has_done_its_work(pod)]
    dropped = set(others[:-LEFT_KEPT])
    return replace(
        attempt,
        pods=tuple(pod for pod in attempt.pods if pod is not ended),
        charge=attempt.charge - ended.resources,
        left=tuple(pod for pod in left if pod.name not in dropped),
    )


def has_done_its_work(pod: Pod) -> bool:
    """Whether it completed by itself although it was being given back: its rank is not needed again."""
    return pod.phase is PodPhase.ENDED and pod.exit_code == 0 and pod.reason == COMPLETED
