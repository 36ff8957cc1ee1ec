"""Room that pods of others have taken."""

from dataclasses import replace

import pytest

from tests.builders import cluster, node, run_cycle, state, submit
from tuttilab.scheduler.clusters.base import Observation
from tuttilab.scheduler.core.rows.invariants import check as check_invariants
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.resources import NOTHING, Resources
from tuttilab.scheduler.domain.wire import event_from_json, event_to_json
from tuttilab.scheduler.service.reconcile import cluster_event

SIX = Resources.parse({"cpu": 6, "memory": "1Gi"})
SEEN = ev.OthersObserved("here", {"a": SIX})


@pytest.fixture
def one() -> State:
    return state([cluster(node("a"), node("b", cpus=4))])


def test_a_pod_goes_where_others_leave_it_room(one: State) -> None:
    one.handle(SEEN, 1.0)
    job = submit(one, cpus=3)

    run_cycle(one, 1.0)

    attempt = one.live_attempt(job.id)
    assert attempt is not None
    assert [pod.node for pod in attempt.pods] == ["b"]
    check_invariants(one)


def test_a_gang_waits_for_what_others_have_and_starts_when_they_leave_it(one: State) -> None:
    one.handle(SEEN, 1.0)
    job = submit(one, cpus=5, at=1.0)
    run_cycle(one, 1.0)
    assert one.live_attempt(job.id) is None
    assert one.waits[job.id].sentence == (
        "no room beside pods of others, which have 6 CPU, on cluster here; it starts when they end or nodes are added; "
        "no node takes a worker pod (5 CPU, 1Gi memory each); node b comes closest, short of 1 CPU"
    )
    assert one.waits[job.id].estimated_start is None
    beside = submit(one, cpus=4, at=1.0)
    run_cycle(one, 1.0)
    assert one.live_attempt(beside.id) is not None, "nothing is held for a gang that waits for others"

    one.handle(ev.OthersObserved("here", {"a": NOTHING}), 2.0)
    run_cycle(one, 2.0)

    assert one.live_attempt(job.id) is not None


def test_what_fits_a_node_without_others_is_not_refused_for_good(one: State) -> None:
    one.handle(SEEN, 1.0)

    assert submit(one, cpus=8, at=1.0).id in one.jobs


def test_others_that_come_where_ours_run_end_nothing(one: State) -> None:
    job = submit(one, cpus=8)
    run_cycle(one, 0.0)

    one.handle(SEEN, 1.0)

    run_cycle(one, 1.0)
    assert one.live_attempt(job.id) is not None
    check_invariants(one)
    small = submit(one, cpus=1, at=2.0)
    run_cycle(one, 2.0)
    attempt = one.live_attempt(small.id)
    assert attempt is not None
    assert [pod.node for pod in attempt.pods] == ["b"]


def test_a_change_of_others_alone_is_told_of_the_nodes_concerned(one: State) -> None:
    nodes = one.clusters["here"].nodes
    seen = Observation((), (replace(nodes[0], others=SIX), nodes[1]), is_complete=False)

    event = cluster_event(one, "here", "fake", seen)

    assert event == SEEN
    assert event_from_json("OthersObserved", event_to_json(event)) == event
    one.handle(event, 1.0)
    assert one.clusters["here"].nodes == seen.nodes
    assert cluster_event(one, "here", "fake", seen) is None


def test_a_node_that_comes_meanwhile_is_told_whole(one: State) -> None:
    nodes = (*one.clusters["here"].nodes, replace(node("c"), others=SIX))

    event = cluster_event(one, "here", "fake", Observation((), nodes, is_complete=False))

    assert isinstance(event, ev.ClusterObserved)
    assert event.cluster.nodes == nodes
