"""How many pods a node takes, whatever they ask for."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.builders import cluster, end_all, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.rows.invariants import check as check_invariants
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput, NeverFits
from tuttilab.scheduler.domain.model import Node
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.domain.resources import ONE_POD, Resources


def takes(pods: int, name: str, cpus: float = 64) -> Node:
    plain = node(name, cpus=cpus)
    return replace(plain, allocatable=plain.allocatable + ONE_POD * pods)


def pods_by_node(of: State) -> Counter[str]:
    return Counter(pod.node for _, attempt in of.live() for pod in attempt.pods)


def test_a_node_with_room_for_110_pods_is_not_given_the_111th() -> None:
    one = state([cluster(takes(110, "a"), takes(110, "b"))])
    jobs = [submit(one, cpus="10m", memory="16Mi") for _ in range(221)]

    run_cycle(one)

    assert pods_by_node(one) == {"a": 110, "b": 110}
    check_invariants(one)
    last = one.waits[jobs[-1].id]
    assert "short of 1 pod" in last.sentence

    end_all(one, jobs[0].id, 0, 1.0)
    run_cycle(one, 60.0)

    assert one.live_attempt(jobs[-1].id) is not None
    check_invariants(one)


def test_pods_of_others_and_masters_count_too() -> None:
    one = state([replace(cluster(takes(6, "a"), takes(5, "b")), master_cost=Resources.parse({"cpu": "0.1"}))])
    one.handle(ev.OthersObserved("here", {"a": ONE_POD * 4}), 0.0)

    gang = submit(one, workers=4)
    run_cycle(one)

    attempt = one.live_attempt(gang.id)
    assert attempt is not None
    assert {pod.node for pod in attempt.pods} == {"b"}, "four workers and their master"
    late = submit(one, workers=3)
    run_cycle(one)
    assert one.live_attempt(late.id) is None
    check_invariants(one)


def test_a_gang_of_unlike_pods_that_no_node_takes_whole_is_spread() -> None:
    one = state([cluster(takes(2, "a"), takes(2, "b"))])
    pods = (PodRequest(role="worker", count=2, cpus=1, memory="1Gi"), PodRequest(role="reader", count=2, cpus=2, memory="1Gi"))

    gang = submit(one, pods=pods, sidecar=False)
    run_cycle(one)

    assert one.live_attempt(gang.id) is not None
    assert pods_by_node(one) == {"a": 2, "b": 2}
    check_invariants(one)


def test_a_gang_of_more_pods_than_all_nodes_take_is_refused_with_the_most_that_they_do() -> None:
    one = state([cluster(takes(3, "a"), takes(3, "b"))])

    with pytest.raises(NeverFits, match=r"room for at most 6 worker pods .* ask for at most 6"):
        submit(one, workers=7, cpus="10m", memory="16Mi", sidecar=False)
    assert one.jobs[submit(one, workers=6, cpus="10m", memory="16Mi", sidecar=False).id]


def test_pods_take_nothing_of_a_quota_but_their_number() -> None:
    one = state([cluster(takes(10, "a"))], [queue("main", guaranteed={"cpu": 4}, max={"cpu": 4})])
    job = submit(one, workers=4, sidecar=False)

    run_cycle(one)
    start_all(one, job.id)

    attempt = one.live_attempt(job.id)
    assert attempt is not None
    assert attempt.charge == Resources.parse({"cpu": 4, "memory": "4Gi"})
    assert one.node_use()["here", "a"]["pods"] == 4
    check_invariants(one)


def test_nobody_asks_for_pods_by_name() -> None:
    one = state([cluster(takes(10, "a"))])

    with pytest.raises(BadInput, match="each pod counts as one by itself"):
        submit(one, pods=(PodRequest(role="worker", count=1, cpus=1, memory="1Gi", resources={"pods": "2"}),))
