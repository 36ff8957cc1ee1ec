"""What a cluster shows, compared with what the rows say: the events that bring the rows up to date, and what has to be done again.

Pure questions on a `State`, asked inside a turn, so that the answer is not stale when it is applied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.clusters.base import Observation, PodState
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.instructions import DropOrphans, Instruction, LaunchGang, StopGang, StopPods
from tuttilab.scheduler.model import AttemptPhase, Cluster, JobKind, Pod, PodPhase, StopReason

ORPHAN_GRACE_S = 5.0


def pod_events(state: State, seen: PodState) -> Iterator[ev.Event]:
    """What is news about one pod, in the order in which it must have happened. Nothing for a pod of no live attempt."""
    attempt = state.live_attempt(seen.job_id)
    if attempt is None or attempt.number != seen.attempt or is_of_another_life(state, seen):
        return
    pod = next((pod for pod in attempt.pods if pod.name == seen.name), None)
    if pod is None or pod.phase is PodPhase.ENDED:
        return
    where = (seen.job_id, seen.attempt, seen.name)
    if pod.uid is None and seen.uid:
        yield ev.PodSeen(*where, seen.uid)
    elif pod.uid != seen.uid and (seen.uid or seen.phase is not PodPhase.ENDED):
        # An older or foreign pod by the same name never changes our state (I13). Of an end without a record the cluster may
        # not know any more who it was.
        return
    if seen.phase is PodPhase.READY and pod.phase is PodPhase.PENDING:
        yield ev.PodReady(*where)
    if seen.phase is PodPhase.RUNNING and pod.phase in (PodPhase.PENDING, PodPhase.READY):
        yield ev.PodStarted(*where)
    if seen.phase is not PodPhase.ENDED and seen.endpoints and dict(seen.endpoints) != dict(pod.endpoints):
        yield ev.PodOffers(*where, dict(seen.endpoints))
    if seen.phase is PodPhase.ENDED:
        yield ev.PodEnded(*where, seen.exit_code, seen.reason, dict(seen.outputs))


def is_of_another_life(state: State, seen: PodState) -> bool:
    """Whether it was made for an attempt by the number of one that lives, before a backup was restored that knew nothing of it.

    The launch of the attempt that has this number now ends it.
    """
    attempt = state.attempts.get((seen.job_id, seen.attempt))
    return attempt is not None and seen.epoch not in (None, attempt.epoch)


def gone_pods(state: State, cluster: str, seen: Iterable[PodState], known: frozenset[str]) -> list[str]:
    """Of a complete observation: pods that were seen before the look began (``known``) and that it does not show."""
    shown = {pod.name: pod.uid for pod in seen}
    live = [pod for _, attempt in state.live() if attempt.cluster == cluster for pod in attempt.pods]
    return [pod.name for pod in live if pod.name in known and pod.phase is not PodPhase.ENDED and not _is_shown(pod, shown)]


def seen_pods(state: State) -> frozenset[str]:
    """Pods of live attempts that their cluster has shown: what a look that begins now has to show too, or they are gone."""
    return frozenset(pod.name for _, attempt in state.live() for pod in attempt.pods if pod.uid is not None)


def to_do_again(state: State, cluster: str, seen: Iterable[PodState]) -> Iterator[Instruction]:
    """Of a complete observation: launches and stops whose effect is not there."""
    shown: dict[tuple[str, int], set[str]] = {}
    for pod in seen:
        shown.setdefault((pod.job_id, pod.attempt), set()).add(pod.name)
    for job, attempt in state.live():
        if attempt.cluster != cluster:
            continue
        names = shown.get((job.id, attempt.number), set())
        if job.kind is JobKind.NOTEBOOK:
            continue  # The hub's spawner makes and ends it.
        is_under_way = attempt.phase in (AttemptPhase.LAUNCHING, AttemptPhase.RUNNING)
        if is_under_way and any(_is_unmade(pod, names) for pod in attempt.pods):
            yield LaunchGang(job.id, attempt.number)
        if attempt.phase is AttemptPhase.RUNNING:
            going = tuple(pod.name for pod in attempt.pods if pod.is_given_back and pod.phase is not PodPhase.ENDED)
            if going:
                yield StopPods(job.id, attempt.number, going, job.work.grace_s)
        elif attempt.phase is AttemptPhase.STOPPING:
            yield StopGang(job.id, attempt.number, job.work.grace_s, attempt.stop_reason or StopReason.CANCELLED)


def orphans(state: State, cluster: str, seen: Iterable[PodState]) -> Iterator[Instruction]:
    """Of any observation: pods that nobody asked for any more are stopped, and those of an attempt that is over let go of."""
    shown: dict[tuple[str, int], list[PodState]] = {}
    for pod in seen:
        shown.setdefault((pod.job_id, pod.attempt), []).append(pod)
    for (job_id, number), pods in shown.items():
        attempt = state.live_attempt(job_id)
        if attempt is None or attempt.number != number or attempt.cluster != cluster:
            yield DropOrphans(job_id, number, cluster, ORPHAN_GRACE_S)
            continue
        wanted = {pod.name for pod in attempt.pods}
        others = [pod for pod in pods if pod.name not in wanted and not is_of_another_life(state, pod)]
        left = tuple(pod.name for pod in others if pod.phase is not PodPhase.ENDED)
        if left:
            yield StopPods(job_id, number, left, ORPHAN_GRACE_S)


def stopped_pods(
    state: State, job_id: str, number: int, shown: Mapping[str, str], told: Collection[str] | None = None
) -> Iterator[ev.Event]:
    """After a stop: pods that the cluster does not have cannot end by themselves, whether they were never made or are gone.

    ``shown``: the uid of each that it has; ``told``: those that were stopped, when the others go on.
    """
    attempt = state.live_attempt(job_id)
    if attempt is None or attempt.number != number:
        return
    for pod in attempt.pods:
        is_told = told is None or pod.name in told
        if is_told and pod.phase is not PodPhase.ENDED and not _is_shown(pod, shown):
            yield ev.PodEnded(job_id, number, pod.name, None, "NeverStarted" if pod.uid is None else "Lost")


def _is_shown(pod: Pod, shown: Mapping[str, str]) -> bool:
    """The pod itself, not another one by its name. Of an end without a record the cluster may not know who it was."""
    return pod.name in shown and (pod.uid is None or shown[pod.name] in (pod.uid, ""))


def _is_unmade(pod: Pod, shown: set[str]) -> bool:
    return pod.phase is not PodPhase.ENDED and not pod.is_given_back and pod.uid is None and pod.name not in shown


def cluster_event(state: State, name: str, kind: str, seen: Observation) -> ev.ClusterObserved | None:
    """When the nodes changed, or the cluster is new to us."""
    known = state.clusters.get(name)
    if seen.nodes is None or (known is not None and known.nodes == seen.nodes):
        return None
    return ev.ClusterObserved(replace(known or Cluster(name, kind), nodes=seen.nodes, unreachable_since=None))
