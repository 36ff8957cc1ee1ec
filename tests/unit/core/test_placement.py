"""Gangs of unlike pods: they start wherever there is a way to place them, close together, and off the GPUs they do not need."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.builders import cluster, job, node, run_cycle, state, submit
from tuttilab.scheduler.core.placement.exact_search import Bins, pack
from tuttilab.scheduler.core.placement.fit import Fit, Misfit, place
from tuttilab.scheduler.core.placement.room import Room
from tuttilab.scheduler.domain.model import Cluster, Job, Node, Why
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.domain.resources import Resources

A100, T4 = {"gpu-model": "a100"}, {"gpu-model": "t4"}


def nodes_of(nodes: Sequence[Node], pods: tuple[PodRequest, ...]) -> dict[str, str]:
    """Where each pod of the gang goes on these nodes, empty as they are."""
    one = state([cluster(*nodes)])
    submit(one, pods=pods, sidecar=False)
    (admitted,) = run_cycle(one)[0].admitted
    return {f"{p.role}-{p.rank}": p.node for p in admitted.placements}


@pytest.mark.parametrize(
    ("nodes", "pods", "places"),
    [
        (
            (node("a", cpus=4, labels=A100), node("b", cpus=4)),
            (PodRequest(role="worker", cpus=4), PodRequest(role="ps", cpus=2, gpu_type="a100")),
            {"worker-0": "b", "ps-1": "a"},
        ),
        (
            (node("a", gpus=2, labels=A100), node("b", gpus=2, labels=T4)),
            (PodRequest(role="worker", cpus=4, gpus=2), PodRequest(role="eval", cpus=2, gpus=1, gpu_type="a100")),
            {"worker-0": "b", "eval-1": "a"},
        ),
        (
            (node("a", cpus=6, memory="8Gi"), node("b", cpus=4, memory="64Gi")),
            (PodRequest(role="worker", cpus=4, memory="8Gi"), PodRequest(role="ps", cpus=2, memory="40Gi")),
            {"worker-0": "a", "ps-1": "b"},
        ),
    ],
    ids=["label", "gpu type", "memory"],
)
def test_a_set_that_fewest_nodes_take_is_placed_first(
    nodes: Sequence[Node], pods: tuple[PodRequest, ...], places: dict[str, str]
) -> None:
    assert nodes_of(nodes, pods) == places


def is_possible(one: Job, site: Cluster) -> bool:
    """Every way tried, written out: each pod on each node in turn."""
    pods = [s for s in one.gang.pod_sets for _ in range(s.count)]
    free = {n.name: n.allocatable for n in site.nodes}

    def rest(number: int) -> bool:
        if number == len(pods):
            return True
        asked, labels = pods[number].resources, pods[number].node_labels
        for n in site.nodes:
            if asked.fits(free[n.name]) and all(n.labels.get(key) == value for key, value in labels.items()):
                free[n.name] = free[n.name] - asked
                fits = rest(number + 1)
                free[n.name] = free[n.name] + asked
                if fits:
                    return True
        return False

    return rest(0)


def test_S05_a_gang_is_placed_exactly_when_there_is_a_way() -> None:
    chance, verdicts = random.Random(5), {True: 0, False: 0}
    for _ in range(400):
        nodes = [
            node(f"n{i}", cpus=chance.randint(3, 9), memory=f"{chance.randint(3, 9)}Gi", labels=chance.choice([A100, T4, {}]))
            for i in range(chance.randint(1, 4))
        ]
        pods = tuple(
            PodRequest(
                role=f"r{i}",
                count=chance.randint(1, 2),
                cpus=chance.randint(1, 4),
                memory=f"{chance.randint(1, 4)}Gi",
                gpu_type=chance.choice([None, None, "a100"]),
            )
            for i in range(chance.randint(2, 3))
        )
        site, one = cluster(*nodes), job(pods=pods, sidecar=False)
        room = Room.of({"here": site})
        outcome, expected = place(one, site, room), is_possible(one, site)
        verdicts[expected] += 1
        if isinstance(outcome, Misfit):
            assert (expected, outcome.is_certain) == (False, True)
            assert (room.free["here"] == room.node_arrays["here"].allocatable).all()
            continue
        assert expected
        assert (room.free["here"] >= 0).all()
        for each in outcome.placements:
            asked = next(s for s in one.gang.pod_sets if s.role == each.role)
            assert asked.node_labels.items() <= next(n for n in nodes if n.name == each.node).labels.items()
        assert room.free_total("here") == room.node_arrays["here"].total - one.gang.resources
    assert min(verdicts.values()) > 60


def test_the_master_has_its_place_even_where_the_workers_would_take_it() -> None:
    # The workers stand tightest on b, where the master would fit; on a alone there is room for both of them.
    master = Resources.parse({"cpu": 1, "memory": "4Gi"})
    site = replace(cluster(node("a", cpus=3, memory="2Gi"), node("b", cpus=2, memory="5Gi")), master_cost=master)
    outcome = place(job(workers=2), site, Room.of({"here": site}))
    assert isinstance(outcome, Fit)
    assert {p.role: p.node for p in outcome.placements} == {"master": "b", "worker": "a"}


def test_what_no_order_can_place_never_fits() -> None:
    one = state([cluster(node("a", cpus=4, labels=A100), node("b", cpus=4))])
    pods = (PodRequest(role="worker", cpus=4), PodRequest(role="ps", count=2, cpus=2, gpu_type="a100"), PodRequest(role="log"))
    never = submit(one, pods=pods, sidecar=False, grows=True)
    run_cycle(one)
    assert one.waits[never.id].why is Why.NEVER_FITS
    assert one.waits[never.id].sentence.startswith(
        "cannot start on cluster here even when it is empty; it starts when nodes are added; "
    )


def test_a_search_that_gives_up_says_so() -> None:
    # As much is free as is asked for, but only an exact fit of every node would do, and 24 pods of 5 leave odd ends everywhere.
    free = np.array([[13 + number % 4] for number in range(16)])
    costs, counts = np.array([[5], [4]]), [24, (int(free.sum()) - 24 * 5) // 4]
    found, is_certain = pack(Bins.of(costs, counts, free, np.ones((2, 16), dtype=np.bool_)))
    assert found is None
    assert not is_certain


def test_an_unlike_gang_stands_on_one_node_that_takes_all_of_it() -> None:
    pods = (PodRequest(role="worker", cpus=4), PodRequest(role="chief", cpus=1))
    assert nodes_of((node("a", cpus=8), node("b", cpus=1)), pods) == {"worker-0": "a", "chief-1": "a"}


@pytest.mark.parametrize("label", ["rack", "topology.kubernetes.io/zone"])
def test_an_unlike_gang_stands_in_one_rack_or_zone_that_takes_all_of_it(label: str) -> None:
    nodes = [
        node("a", cpus=12, labels={label: "1"}),
        node("b", cpus=12, labels={label: "1"}),
        node("c", cpus=2, labels={label: "2"}),
    ]
    pods = (PodRequest(role="worker", count=2, cpus=8), PodRequest(role="ps", cpus=1))
    assert set(nodes_of(nodes, pods).values()) == {"a", "b"}


def test_the_pods_without_gpu_of_a_gang_keep_off_the_gpu_nodes_while_others_have_room() -> None:
    pods = (PodRequest(role="worker", cpus=4, gpus=2), PodRequest(role="ps", cpus=1))
    assert nodes_of((node("gpu", gpus=4), node("plain")), pods) == {"worker-0": "gpu", "ps-1": "plain"}
    assert nodes_of((node("g1", gpus=4), node("g2", gpus=2, cpus=4)), pods) == {"worker-0": "g1", "ps-1": "g1"}


def test_S12_a_gang_without_gpu_goes_to_a_cluster_without_them_while_it_has_room() -> None:
    one = state([cluster(node("g", cpus=64, gpus=8), name="gpu"), cluster(node("p", cpus=16), name="plain")])
    for _ in range(3):
        submit(one, cpus=8)
    submit(one, gpus=1)
    assert [admitted.cluster for admitted in run_cycle(one)[0].admitted] == ["plain", "plain", "gpu", "gpu"]


def test_equal_input_gives_equal_places_whatever_the_order_of_the_nodes() -> None:
    nodes = [node(name, cpus=cpus, labels={"rack": rack}) for name, cpus, rack in (("a", 6, "1"), ("b", 6, "2"), ("c", 3, "1"))]
    pods = (PodRequest(role="worker", count=2, cpus=3), PodRequest(role="ps", cpus=2))
    places = [nodes_of(order, pods) for order in itertools.permutations(nodes)]
    assert places.count(places[0]) == len(places)
