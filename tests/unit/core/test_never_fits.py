"""What can never fit is refused at once with the largest that is possible; what may fit later waits and says for what."""

from dataclasses import replace

import pytest

from tests.builders import cluster, node, queue, run_cycle, state, submit
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import NeverFits
from tuttilab.scheduler.domain.model import Why
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.domain.resources import Resources

HERE = cluster(node("a", cpus=4), node("b", cpus=4))


def test_a_gang_that_never_fits_is_refused_at_once_as_a_single_pod_is() -> None:
    one = state([HERE])
    with pytest.raises(NeverFits) as refused:
        submit(one, workers=6, cpus=2, sidecar=False)
    assert str(refused.value) == (
        "job: 6 are asked for, and cluster here has room for at most 4 worker pods (2 CPU, 1Gi memory each) even when it is empty; "
        "ask for at most 4, or for less per pod."
    )
    assert one.queued() == []
    assert run_cycle(one)[0].admitted == ()
    submit(one, workers=4, cpus=2, sidecar=False)
    assert len(run_cycle(one)[0].admitted) == 1


def test_a_pod_larger_than_any_node_is_told_what_the_closest_node_has() -> None:
    with pytest.raises(NeverFits, match=r"short of 1 CPU when empty: it has 4 CPU; ask for less per pod"):
        submit(state([HERE]), cpus=5)


def test_a_full_cluster_is_no_reason_to_refuse() -> None:
    one = state([HERE])
    submit(one, workers=2, cpus=4, sidecar=False)
    run_cycle(one)
    waiting = submit(one, workers=2, cpus=4, sidecar=False, at=1.0)
    run_cycle(one, at=1.0)
    assert one.waits[waiting.id].why is Why.NO_ROOM


def test_an_elastic_gang_is_refused_only_if_its_smallest_size_never_fits() -> None:
    one = state([HERE])
    submit(one, pods=(PodRequest(role="worker", count=20, min_count=4, cpus=2),), sidecar=False)
    with pytest.raises(NeverFits, match="5 at least are asked for, and cluster here has room for at most 4 worker pods"):
        submit(one, pods=(PodRequest(role="worker", count=20, min_count=5, cpus=2),), sidecar=False)


def test_one_cluster_of_several_is_enough() -> None:
    site = [cluster(node("a", cpus=4), name="east"), cluster(*(node(f"n{number}", cpus=4) for number in range(8)), name="west")]
    one = state(site, [queue("both"), queue("small", clusters=("east",))])
    submit(one, queue="both", workers=8, cpus=4, sidecar=False)
    with pytest.raises(NeverFits, match="cluster east has room for at most 1 worker pod "):
        submit(one, queue="small", workers=8, cpus=4, sidecar=False)
    with pytest.raises(NeverFits, match="cluster west has room for at most 8 worker pods"):
        submit(one, queue="both", workers=9, cpus=4, sidecar=False)


def test_a_cluster_that_does_not_answer_still_counts_with_its_nodes() -> None:
    site = [cluster(node("a", cpus=4), name="east"), cluster(node("w", cpus=64), name="west")]
    one = state(site)
    one.handle(ev.ClusterLost("west"), 1.0)
    waiting = submit(one, cpus=32, at=1.0)
    assert one.is_queued(waiting.id)


def test_a_gang_waits_for_nodes_that_are_down_and_says_so() -> None:
    one = state([replace(HERE, nodes=(HERE.nodes[0], replace(HERE.nodes[1], is_ready=False)))])
    waiting = submit(one, workers=2, cpus=4, sidecar=False)
    run_cycle(one)
    assert one.waits[waiting.id].sentence.startswith("cannot start on cluster here even when it is empty; 1 node is down; ")
    one.handle(ev.ClusterObserved(HERE), 1.0)
    assert len(run_cycle(one, at=1.0)[0].admitted) == 1


def test_a_gang_waits_for_devices_that_cannot_be_given_out_now_and_says_so() -> None:
    gpus = Resources.parse({"nvidia.com/gpu": 8})
    one = state([cluster(replace(node("a"), failing=gpus))])
    waiting = submit(one, gpus=8, sidecar=False)
    run_cycle(one)
    assert one.waits[waiting.id].sentence.startswith(
        "cannot start on cluster here even when it is empty; 8 GPU there cannot be given out now: devices are unhealthy, or "
    )
    with pytest.raises(NeverFits):
        submit(one, gpus=9, sidecar=False)
    one.handle(ev.ClusterObserved(cluster(node("a", gpus=8))), 1.0)
    assert len(run_cycle(one, at=1.0)[0].admitted) == 1


def test_a_gang_waits_where_nodes_may_be_added_and_says_so() -> None:
    one = state([HERE])
    waiting = submit(one, workers=3, cpus=4, sidecar=False, grows=True)
    run_cycle(one)
    assert "even when it is empty; it starts when nodes are added; 2 of 3 worker pods fit" in one.waits[waiting.id].sentence
    one.handle(ev.ClusterObserved(cluster(*(node(name, cpus=4) for name in "abc"))), 1.0)
    assert len(run_cycle(one, at=1.0)[0].admitted) == 1


def test_a_gang_waits_for_a_cluster_that_was_never_seen() -> None:
    one = state([], [queue("main")])
    assert one.is_queued(submit(one, workers=100, cpus=64).id)


def test_a_gang_waits_for_a_node_that_joined_and_has_not_said_yet_what_it_has() -> None:
    silent = replace(node("c"), allocatable=Resources(), is_ready=False)
    one = state([replace(HERE, nodes=(*HERE.nodes, silent))])
    waiting = submit(one, cpus=8, sidecar=False)
    run_cycle(one)
    assert one.is_queued(waiting.id)
    one.handle(ev.ClusterObserved(replace(HERE, nodes=(*HERE.nodes, node("c", cpus=8)))), 1.0)
    assert len(run_cycle(one, at=1.0)[0].admitted) == 1


def test_pods_that_do_not_fit_together_are_refused_with_the_one_that_is_left_over() -> None:
    sets = (PodRequest(role="chief", cpus=3), PodRequest(role="ps", cpus=3), PodRequest(role="log", cpus=2))
    with pytest.raises(NeverFits, match="do not fit together on cluster here even when that is empty: beside the others"):
        submit(state([HERE]), pods=sets, sidecar=False)


def test_the_room_of_the_master_counts() -> None:
    site = replace(HERE, master_cost=Resources.parse({"cpu": 1, "memory": "1Gi"}))
    with pytest.raises(NeverFits, match="master"):
        submit(state([site]), workers=2, cpus=4)
