"""Compares observations of a cluster with the rows: events that bring the rows up to date, and instructions to repeat.

Pure functions of a `State`, called inside a turn, so that the result is not stale when it is applied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from tuttilab.scheduler.clusters.base import Observation, PodState
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import DropOrphans, Instruction, LaunchGang, StopGang, StopPods
from tuttilab.scheduler.domain.model import AttemptPhase, Cluster, JobKind, Node, Pod, PodPhase, StopReason
from tuttilab.scheduler.domain.resources import NOTHING

ORPHAN_GRACE_S = 5.0
STALE_S = 5.0
"""Age of what an observation shows, at most."""


def pod_events(state: State, seen: PodState) -> Iterator[ev.Event]:
    """Changes of one pod as events, in the order in which they must have happened. None for a pod of no live attempt."""
    pod = state.pod(seen.job_id, seen.attempt, seen.name)
    if pod is None or is_of_other_epoch(state, seen) or pod.phase is PodPhase.ENDED:
        return
    where = (seen.job_id, seen.attempt, seen.name)
    if pod.uid is None and seen.uid:
        yield ev.PodSeen(*where, seen.uid)
    elif pod.uid != seen.uid and (seen.uid or seen.phase is not PodPhase.ENDED):
        # Another pod of the same name never changes our state (I13). An end without a record may come without a uid.
        return
    if seen.phase is PodPhase.READY and pod.phase is PodPhase.PENDING:
        yield ev.PodReady(*where)
    if seen.phase is PodPhase.RUNNING and pod.phase in (PodPhase.PENDING, PodPhase.READY):
        yield ev.PodStarted(*where)
    if seen.phase is not PodPhase.ENDED and seen.endpoints and dict(seen.endpoints) != dict(pod.endpoints):
        yield ev.PodOffers(*where, dict(seen.endpoints))
    if seen.phase is PodPhase.ENDED:
        yield ev.PodEnded(*where, seen.exit_code, seen.reason, dict(seen.outputs))


def is_of_other_epoch(state: State, seen: PodState) -> bool:
    """Whether the pod belongs to an attempt of the same number from another epoch, which a restored backup did not contain.

    The launch of the current attempt of that number ends it.
    """
    attempt = state.attempts.get((seen.job_id, seen.attempt))
    return attempt is not None and seen.epoch not in (None, attempt.epoch)


def missing_pods(state: State, cluster: str, seen: Iterable[PodState], known: frozenset[str]) -> list[str]:
    """Pods that were seen before a complete observation began (``known``) and that it does not show."""
    shown = {pod.name: pod.uid for pod in seen}
    live = [pod for _, attempt in state.live() if attempt.cluster == cluster for pod in attempt.pods]
    return [pod.name for pod in live if pod.name in known and pod.phase is not PodPhase.ENDED and not _is_shown(pod, shown)]


def seen_pods(state: State) -> frozenset[str]:
    """Pods of live attempts that their cluster has shown. An observation that begins now shows them too, or they are missing."""
    return frozenset(pod.name for _, attempt in state.live() for pod in attempt.pods if pod.uid is not None)


def instructions_to_repeat(state: State, cluster: str, seen: Iterable[PodState]) -> Iterator[Instruction]:
    """From a complete observation: launches and stops that had no effect yet."""
    shown: dict[tuple[str, int], set[str]] = {}
    for pod in seen:
        shown.setdefault((pod.job_id, pod.attempt), set()).add(pod.name)
    for job, attempt in state.live():
        if attempt.cluster != cluster:
            continue
        names = shown.get((job.id, attempt.number), set())
        if job.kind is JobKind.NOTEBOOK:
            continue  # The hub's spawner creates and ends its pod.
        is_under_way = attempt.phase in (AttemptPhase.LAUNCHING, AttemptPhase.RUNNING)
        if is_under_way and any(_is_uncreated(pod, names) for pod in attempt.pods):
            yield LaunchGang(job.id, attempt.number)
        if attempt.phase is AttemptPhase.RUNNING:
            going = tuple(pod.name for pod in attempt.pods if pod.is_given_back and pod.phase is not PodPhase.ENDED)
            if going:
                yield StopPods(job.id, attempt.number, going, job.work.grace_s)
        elif attempt.phase is AttemptPhase.STOPPING:
            yield StopGang(job.id, attempt.number, job.work.grace_s, attempt.stop_reason or StopReason.CANCELLED)


def orphan_cleanups(state: State, cluster: str, seen: Iterable[PodState]) -> Iterator[Instruction]:
    """From any observation: drop the pods of attempts that are not live, and stop pods that their attempt no longer has."""
    shown: dict[tuple[str, int], list[PodState]] = {}
    for pod in seen:
        shown.setdefault((pod.job_id, pod.attempt), []).append(pod)
    for (job_id, number), pods in shown.items():
        attempt = state.live_attempt(job_id)
        if attempt is None or attempt.number != number or attempt.cluster != cluster:
            yield DropOrphans(job_id, number, cluster, ORPHAN_GRACE_S)
            continue
        wanted = {pod.name for pod in attempt.pods}
        others = [pod for pod in pods if pod.name not in wanted and not is_of_other_epoch(state, pod)]
        left = tuple(pod.name for pod in others if pod.phase is not PodPhase.ENDED)
        if left:
            yield StopPods(job_id, number, left, ORPHAN_GRACE_S)


def outlived(state: State, seen: Iterable[PodState], now: float) -> Iterator[ev.PodsOutlived]:
    """Pods that run although their attempt is over, or is none that we know. One that has just ended may be shown as it was."""
    found: dict[tuple[str, int], list[str]] = {}
    for pod in seen:
        attempt = state.attempts.get((pod.job_id, pod.attempt))
        is_over = attempt is None or (attempt.ended_at is not None and attempt.ended_at < now - STALE_S)
        if is_over and pod.phase is not PodPhase.ENDED:
            found.setdefault((pod.job_id, pod.attempt), []).append(pod.name)
    for (job_id, number), names in found.items():
        yield ev.PodsOutlived(job_id, number, tuple(sorted(names)))


def ends_of_missing_pods(
    state: State, job_id: str, number: int, shown: Mapping[str, str], stopped: Collection[str] | None = None
) -> Iterator[ev.Event]:
    """After a stop: end the pods that the cluster does not show, because they were never created or have vanished.

    ``shown``: uid by name of the pods that it shows; ``stopped``: the pods that were stopped, None for all.
    """
    attempt = state.live_attempt(job_id)
    if attempt is None or attempt.number != number:
        return
    for pod in attempt.pods:
        was_stopped = stopped is None or pod.name in stopped
        if was_stopped and pod.phase is not PodPhase.ENDED and not _is_shown(pod, shown):
            yield ev.PodEnded(job_id, number, pod.name, None, "NeverStarted" if pod.uid is None else "Lost")


def _is_shown(pod: Pod, shown: Mapping[str, str]) -> bool:
    """Whether the pod itself is shown, not another one of its name. An end without a record may come without a uid."""
    return pod.name in shown and (pod.uid is None or shown[pod.name] in (pod.uid, ""))


def _is_uncreated(pod: Pod, shown: set[str]) -> bool:
    return pod.phase is not PodPhase.ENDED and not pod.is_given_back and pod.uid is None and pod.name not in shown


def _alone(node: Node) -> Node:
    return replace(node, others=NOTHING) if node.others else node


def cluster_event(state: State, name: str, kind: str, seen: Observation) -> ev.ClusterObserved | ev.OthersObserved | None:
    """The event for changed nodes or a new cluster; None when nothing changed.

    What others take of nodes changes often, so that alone is told of the nodes concerned.
    """
    known = state.clusters.get(name)
    if seen.nodes is None or (known is not None and known.nodes == seen.nodes):
        return None
    if known is not None and [_alone(node) for node in known.nodes] == [_alone(node) for node in seen.nodes]:
        pairs = zip(known.nodes, seen.nodes, strict=True)
        return ev.OthersObserved(name, {new.name: new.others for old, new in pairs if old.others != new.others})
    cluster = replace(known or Cluster(name, kind), sidecar_cost=seen.sidecar_cost, master_cost=seen.master_cost)
    return ev.ClusterObserved(replace(cluster, nodes=seen.nodes, unreachable_since=None))
