"""Many unlike gangs at once: they are told the same as when each is placed by itself, and no attempt is made for each of them."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.builders import cluster, end_all, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core import admission, backfill, holds, lookahead
from tuttilab.scheduler.core.cycle import Decision, schedule
from tuttilab.scheduler.core.placement import shapes
from tuttilab.scheduler.core.placement.fit import Fit, place_demand
from tuttilab.scheduler.core.placement.node_arrays import Amounts, NodeArrays
from tuttilab.scheduler.core.placement.prefilter import Prefilter
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Cluster, Gang, Job, JobKind, Node, PodSet, Taint, Toleration, Why, Work
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources

GIB = 2**30


def a_cluster(chance: random.Random) -> Cluster:
    nodes = []
    for number in range(chance.randint(1, 12)):
        amounts = {CPU: chance.choice((4000, 8000)), MEMORY: chance.choice((16, 64)) * GIB, GPU: chance.choice((0, 0, 2, 4))}
        labels = {"gpu-model": chance.choice("ab"), "rack": f"r{number % 3}"} if chance.random() < 0.6 else {}
        taints = (Taint("spot"),) if chance.random() < 0.3 else ()
        nodes.append(Node(f"n{number:02d}", "here", Resources.of(amounts), labels, taints, chance.random() < 0.95))
    return Cluster("here", "fake", tuple(nodes), Resources.of({CPU: 100}), Resources.of({CPU: 500, MEMORY: GIB}))


def a_gang(chance: random.Random, number: int) -> Job:
    sets = []
    for role in ("worker", "ps")[: chance.choice((1, 1, 2))]:
        amounts = {CPU: chance.choice((1000, 3000, 9000)), MEMORY: GIB + number * 2**20, GPU: chance.choice((0, 1, 2, 4))}
        if chance.random() < 0.05:
            amounts["example.com/fpga"] = 1
        count = chance.choice((1, 1, 2, 5))
        labels = {"gpu-model": chance.choice("abc")} if chance.random() < 0.2 else {}
        tolerations = (Toleration("spot"),) if chance.random() < 0.3 else ()
        least = 1 if chance.random() < 0.2 else None
        sets.append(PodSet(role, count, Resources.of(amounts), least, node_labels=labels, tolerations=tolerations))
    return Job(
        id=f"j{number:04d}",
        name=f"n{number % 7}",
        owner=f"u{number % 3}",
        group="g",
        queue=chance.choice("abc"),
        kind=JobKind.BATCH,
        gang=Gang(tuple(sets)),
        work=Work(("true",), sidecar=chance.random() < 0.5),
        submitted_at=0.0,
        order=number,
        avoid_nodes=("n00",) if chance.random() < 0.1 else (),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_refusal_says_just_what_placing_the_gang_says(seed: int) -> None:
    chance = random.Random(seed)
    arrays = NodeArrays.of(a_cluster(chance))
    asked = [Shape.of(a_gang(chance, number), (arrays.cluster,), arrays.total) for number in range(60)]
    # Some nodes are full, and some have lost more than they had left.
    halves = np.array([chance.choice((0, 0, 1, 2, 3)) for _ in arrays.nodes], dtype=np.int64)
    free: Amounts = arrays.allocatable - halves[:, None] * (arrays.allocatable // 2)
    prefilter = Prefilter(arrays)
    prefilter.evaluate(asked, free)
    refused = {}
    for shape in asked:
        for counts in (None, shape.reduced_counts(1)):
            misfit = prefilter.misfit(shape, counts, free, explains=True)
            outcome = place_demand(shape.demand(arrays), arrays, free.copy(), counts)
            if misfit is not None:
                refused[shape, counts is None] = misfit, outcome
            elif len(shape.job.gang.pod_sets) == 1 and not shape.demand(arrays).master:
                assert isinstance(outcome, Fit)
    prefilter.record_closest_nodes(free)
    assert refused
    for misfit, outcome in refused.values():
        assert misfit == outcome


def outcomes(seed: int) -> list[Decision]:
    """Cycles of a site on which room comes free and unlike gangs keep coming."""
    chance = random.Random(seed)
    one = state([a_cluster(chance)], [queue("a", guaranteed={"nvidia.com/gpu": 2}), queue("b", max={"cpu": 20}), queue("c")])
    told = []
    for step in range(4):
        for number in range(80):
            one.handle(ev.JobSubmitted(a_gang(chance, step * 80 + number)), float(step))
        for job, _ in chance.sample(one.live(), min(len(one.live()), 4)):
            end_all(one, job.id, 0, float(step))
        told.append(run_cycle(one, float(step))[0])
        for admitted in told[-1].admitted:
            start_all(one, admitted.job_id, float(step))
    return told


@pytest.mark.parametrize("seed", range(4))
def test_decisions_and_reasons_are_those_of_trying_each_gang_by_itself(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookahead, "MIN_SHAPES", 2)
    at_once = outcomes(seed)
    monkeypatch.setattr(lookahead, "MIN_SHAPES", 10**9)
    assert at_once == outcomes(seed)
    assert any(wait.why is Why.NO_ROOM for decision in at_once for wait in decision.waits)


def full_site(unlike: int) -> State:
    """Three queues, full nodes, and gangs that all ask for other amounts of memory."""
    one = state([cluster(*(node(f"n{number}", gpus=2) for number in range(10)))], [queue(name) for name in "abc"])
    for number in range(20):
        submit(one, queue="abc"[number % 3], gpus=1)
    for admitted in run_cycle(one)[0].admitted:
        start_all(one, admitted.job_id)
    for number in range(unlike):
        submit(one, queue="abc"[number % 3], gpus=1, workers=1 + number % 2, memory=f"{1000 + number}Mi")
    return one


def attempts(one: State, monkeypatch: pytest.MonkeyPatch) -> int:
    """Placements that one cycle tries, on whatever room."""
    tried = 0

    def counted(*given: Any) -> Any:
        nonlocal tried
        tried += 1
        return place_demand(*given)

    for module in (admission, holds, backfill, shapes):
        monkeypatch.setattr(module, "place_demand", counted)
    decision = schedule(one.snapshot(), 1.0)
    assert not decision.admitted
    assert {wait.why for wait in decision.waits} == {Why.NO_ROOM}
    return tried


def test_S05_attempts_do_not_grow_with_unlike_gangs_that_fit_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (attempts(full_site(unlike), monkeypatch) for unlike in (100, 800))
    # Those of the cycle, and for `MOST_SHAPES` shapes those that tell when there will be room.
    assert many == few < 80


def test_what_is_kept_of_a_shape_is_forgotten_when_its_cluster_changes() -> None:
    site = cluster(node("a", gpus=4))
    one = state([site])
    running = submit(one, gpus=4)
    run_cycle(one)
    waiting = submit(one, gpus=3)
    start_all(one, running.id)
    run_cycle(one)
    assert one.waits[waiting.id].why is Why.NO_ROOM
    smaller = replace(site, nodes=(replace(site.nodes[0], allocatable=Resources.parse({"cpu": 8, "memory": "64Gi", GPU: 2})),))
    one.handle(ev.ClusterObserved(smaller), 1.0)
    run_cycle(one, 1.0)
    assert one.waits[waiting.id].why is Why.NEVER_FITS
    end_all(one, running.id, 0, 2.0)
    assert run_cycle(one, 2.0)[0].admitted == ()
    one.handle(ev.ClusterObserved(site), 3.0)
    assert [admitted.job_id for admitted in run_cycle(one, 3.0)[0].admitted] == [waiting.id]


def test_I27_what_is_kept_of_shapes_is_bounded_by_the_gangs_that_wait() -> None:
    one = state([cluster(node("a", gpus=1))])
    for batch in range(4):
        jobs = [submit(one, gpus=1, memory=f"{1000 + batch * 1000 + number}Mi") for number in range(1000)]
        kept = one.snapshot().shape_cache
        schedule(one.snapshot(), 1.0)
        for job in jobs:
            one.handle(ev.JobCancelRequested(job.id, "ann"), 2.0)
    assert len(kept) <= 2001
