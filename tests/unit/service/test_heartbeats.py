"""Who is missed, and from when on silence counts."""

from __future__ import annotations

from dataclasses import replace

from tests.builders import cluster, node, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.service.heartbeats import Heartbeats

LOST_AFTER_S = 45.0


def a_running_pod() -> tuple[State, str, str, str]:
    """The state, and the names of its job, its pod and their cluster."""
    one = state([cluster(node("a", cpus=8))])
    job = submit(one)
    run_cycle(one)
    start_all(one, job.id)
    (pod,) = one.attempts[job.id, 1].pods
    return one, job.id, pod.name, pod.cluster


def set_ready(one: State, name: str, *, is_ready: bool, at: float) -> None:
    known = one.clusters[name]
    nodes = tuple(replace(each, is_ready=is_ready) for each in known.nodes)
    one.handle(ev.ClusterObserved(replace(known, nodes=nodes)), at)


def test_a_pod_on_a_node_that_is_not_ready_is_missed_when_it_was_silent_for_long() -> None:
    one, job, pod, name = a_running_pod()
    beats = Heartbeats(0.0)
    beats.record_alive([pod], 100.0)
    assert beats.missed(one, 1000.0, LOST_AFTER_S) == ([], None), "its node is ready"

    set_ready(one, name, is_ready=False, at=110.0)

    assert beats.missed(one, 144.0, LOST_AFTER_S) == ([], 145.0)
    assert beats.missed(one, 145.0, LOST_AFTER_S) == ([ev.HeartbeatMissed(job, 1, pod)], None)


def test_after_an_outage_silence_counts_from_when_the_cluster_answers_again() -> None:
    """Its nodes' leases are old then, so nodes are shown as not ready for a moment."""
    one, job, pod, name = a_running_pod()
    beats = Heartbeats(0.0)
    beats.record_alive([pod], 100.0)
    set_ready(one, name, is_ready=False, at=105.0)
    one.handle(ev.ClusterLost(name, "it does not answer"), 110.0)
    assert beats.missed(one, 700.0, LOST_AFTER_S) == ([], None)
    one.handle(ev.ClusterBack(name), 710.0)

    assert beats.missed(one, 711.0, LOST_AFTER_S) == ([], 755.0)
    assert beats.missed(one, 755.0, LOST_AFTER_S) == ([ev.HeartbeatMissed(job, 1, pod)], None)
