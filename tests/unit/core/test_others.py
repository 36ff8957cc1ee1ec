"""Room that pods of others have taken."""

from dataclasses import replace

import pytest

from tests.builders import cluster, node, run_cycle, state, submit
from tuttilab.scheduler.clusters.base import Observation
from tuttilab.scheduler.core.rows.invariants import check as check_invariants
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import MASTER, JobPhase
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


@pytest.mark.parametrize("reason", ["OutOfcpu", "OutOfpods", "OutOfnvidia.com/gpu", "UnexpectedAdmissionError", "Unschedulable"])
def test_a_node_that_did_not_take_a_pod_is_avoided_by_the_next_attempt(one: State, reason: str) -> None:
    job = submit(one, cpus=3, retries=0)
    run_cycle(one)
    first = one.live_attempt(job.id)
    assert first is not None
    (pod,) = first.pods

    one.handle(ev.PodEnded(job.id, 1, pod.name, None, reason), 1.0)

    again = one.jobs[job.id]
    assert (again.phase, again.failures, again.avoid_nodes) == (JobPhase.QUEUED, 0, (pod.node,))
    assert again.reason == f"node {pod.node} did not take pod {pod.name} ({reason})"
    run_cycle(one, again.not_before)
    second = one.live_attempt(job.id)
    assert second is not None
    assert {each.node for each in second.pods}.isdisjoint({pod.node})
    check_invariants(one)


def test_a_node_that_refused_is_taken_again_where_there_is_no_other(one: State) -> None:
    job = submit(one, cpus=6)
    run_cycle(one)
    one.handle(ev.PodEnded(job.id, 1, f"{job.id}-1-worker-0", None, "OutOfcpu"), 1.0)

    run_cycle(one, one.jobs[job.id].not_before)

    attempt = one.live_attempt(job.id)
    assert attempt is not None
    assert [pod.node for pod in attempt.pods] == ["a"]


@pytest.mark.parametrize(("exit_code", "reason"), [(None, "NodeLost"), (None, "Lost"), (1, "OutOfcpu")])
def test_any_other_end_says_nothing_of_the_node(one: State, exit_code: int | None, reason: str) -> None:
    job = submit(one, cpus=3)
    run_cycle(one)

    one.handle(ev.PodEnded(job.id, 1, f"{job.id}-1-worker-0", exit_code, reason), 1.0)

    assert one.jobs[job.id].avoid_nodes == ()


def test_a_master_that_its_node_did_not_take_is_no_master_that_ended_first() -> None:
    one = state([replace(cluster(node("a"), node("b")), master_cost=Resources.parse({"cpu": "100m"}))])
    job = submit(one, workers=2, cpus=1)
    run_cycle(one)
    attempt = one.live_attempt(job.id)
    assert attempt is not None
    master = next(pod for pod in attempt.pods if pod.role == MASTER)

    one.handle(ev.PodEnded(job.id, 1, master.name, None, "OutOfcpu"), 1.0)

    stopping = one.live_attempt(job.id)
    assert stopping is not None
    assert stopping.reason == f"node {master.node} did not take pod {master.name} (OutOfcpu)"
    assert one.jobs[job.id].avoid_nodes == (master.node,)
