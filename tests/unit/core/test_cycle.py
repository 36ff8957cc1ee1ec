"""One cycle: what starts, in which order, and what every waiting gang is told."""

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import cluster, end_all, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core import admission, holds
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.placement.fit import Demand, Fit, Misfit, place_demand
from tuttilab.scheduler.core.placement.node_arrays import Amounts, NodeArrays
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput, NeverFits
from tuttilab.scheduler.domain.instructions import LaunchGang
from tuttilab.scheduler.domain.model import MASTER, Ends, JobPhase, Prediction, Taint, Why
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.domain.resources import GPU, Resources


def test_S03_a_gang_starts_with_all_its_pods_and_a_master_first() -> None:
    one = state([cluster(node("a", gpus=1), node("b", gpus=1))])
    gang = submit(one, workers=2, gpus=1)
    decision, instructions = run_cycle(one)
    (admitted,) = decision.admitted
    assert [(p.role, p.rank) for p in admitted.placements] == [(MASTER, -1), ("worker", 0), ("worker", 1)]
    assert {p.node for p in admitted.placements if p.rank >= 0} == {"a", "b"}
    assert instructions == [LaunchGang(gang.id, 1)]
    attempt = one.live_attempt(gang.id)
    assert attempt is not None
    assert attempt.charge == Resources.parse({"cpu": 2, "memory": "2Gi", GPU: 2})


def test_S05_placement_is_on_nodes_not_by_sums() -> None:
    one = state([cluster(node("A", cpus=8, gpus=4), node("B", cpus=64, gpus=0))])
    gang = submit(one, workers=2, cpus=8, gpus=2, grows=True)
    decision, _ = run_cycle(one)
    assert decision.admitted == ()
    wait = one.waits[gang.id]
    assert wait.why is Why.NEVER_FITS
    assert wait.sentence == (
        "cannot start on cluster here even when it is empty; it starts when nodes are added; "
        "1 of 2 worker pods fit (8 CPU, 1Gi memory, 2 GPU each); node A comes closest, short of 8 CPU"
    )


def test_sets_of_one_gang_may_ask_for_different_nodes_and_start_together_or_not_at_all() -> None:
    sets = (
        PodRequest(role="ps", count=2, cpus=4, gpus=0, memory="1Gi", ends=Ends.WITH_JOB),
        PodRequest(role="worker", count=2, cpus=1, gpus=2, memory="1Gi"),
    )
    one = state([cluster(node("gpus", cpus=4, gpus=4), node("plain", cpus=8))])
    gang = submit(one, pods=sets)
    (admitted,) = run_cycle(one)[0].admitted
    assert [(p.role, p.rank, p.node) for p in admitted.placements if p.role != MASTER] == [
        ("ps", 0, "plain"),
        ("ps", 1, "plain"),
        ("worker", 2, "gpus"),
        ("worker", 3, "gpus"),
    ]
    second = submit(one, pods=sets)
    assert run_cycle(one)[0].admitted == ()
    assert (one.waits[second.id].why, one.waits[second.id].role) == (Why.NO_ROOM, "worker")
    assert one.use("main") == gang.gang.resources


def test_equal_gangs_that_do_not_fit_are_tried_once_a_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def counted(demand: Demand, arrays: NodeArrays, free: Amounts, *given: Any) -> Fit | Misfit:
        # One more is asked of the empty cluster, to tell those that will fit from those that never do.
        if (free < arrays.allocatable).any():
            tried.append(arrays.cluster.name)
        return place_demand(demand, arrays, free, *given)

    one = state([cluster(node("a", gpus=1))])
    running = submit(one, gpus=1)
    run_cycle(one)
    start_all(one, running.id)
    for module in (admission, holds):
        monkeypatch.setattr(module, "place_demand", counted)
    for _ in range(50):
        submit(one, gpus=1)
    assert run_cycle(one)[0].admitted == ()
    assert tried == ["here"]
    assert len(one.waits) == 50


def test_a_pod_above_any_node_is_refused_naming_the_closest() -> None:
    one = state([cluster(node("A", cpus=8, gpus=4), node("B", cpus=64, gpus=0))])
    with pytest.raises(NeverFits, match="node A comes closest, short of 1 GPU when empty: it has 4 GPU; ask for less per pod"):
        submit(one, gpus=5)


def test_S04_two_gangs_that_each_fit_alone_run_one_after_the_other() -> None:
    one = state([cluster(node("a", gpus=1), node("b", gpus=1))])
    first, second = submit(one, workers=2, gpus=1), submit(one, workers=2, gpus=1)
    run_cycle(one)
    assert one.jobs[first.id].phase is JobPhase.ACTIVE
    assert one.waits[second.id].why in (Why.NO_ROOM, Why.BEHIND)
    start_all(one, first.id)
    end_all(one, first.id, 0)
    run_cycle(one)
    assert (one.jobs[first.id].phase, one.jobs[second.id].phase) == (JobPhase.SUCCEEDED, JobPhase.ACTIVE)


def test_a_cycle_admits_as_many_gangs_as_fit() -> None:
    one = state([cluster(node("a", cpus=4))])
    jobs = [submit(one) for _ in range(6)]
    decision, _ = run_cycle(one)
    assert [admitted.job_id for admitted in decision.admitted] == [job.id for job in jobs[:4]]


def test_a_pod_without_gpu_keeps_off_the_gpu_node() -> None:
    one = state([cluster(node("gpu", gpus=4, cpus=8), node("plain", cpus=8))])
    submit(one)
    (admitted,) = run_cycle(one)[0].admitted
    assert admitted.placements[0].node == "plain"


def test_gangs_are_packed_where_the_fewest_gpus_are_free() -> None:
    one = state([cluster(node("a", gpus=4), node("b", gpus=2))])
    submit(one, gpus=1)
    (admitted,) = run_cycle(one)[0].admitted
    assert admitted.placements[0].node == "b"


def test_higher_priority_goes_first_in_its_queue() -> None:
    one = state([cluster(node("a", cpus=1))])
    submit(one)
    urgent = submit(one, priority=5)
    (admitted,) = run_cycle(one)[0].admitted
    assert admitted.job_id == urgent.id


@pytest.mark.feature("S06")
def test_small_gangs_do_not_delay_a_big_one_that_waits_longer() -> None:
    one = state([cluster(node("a", cpus=4))])
    running = submit(one, cpus=2, timeout="10m")
    run_cycle(one)
    big = submit(one, cpus=4, timeout="20m")
    # Each predicted at its limit, so the big one's work is 4 x 1200 and the long one's 1 x 7200.
    long, short = submit(one, cpus=1, timeout="2h"), submit(one, cpus=1, timeout="5m")
    snapshot = replace(one.snapshot(), predictions={j.id: Prediction(j.timeout_s or 0, 1.0, "") for j in (big, long, short)})
    decision = schedule(snapshot, 1.0)
    assert [admitted.job_id for admitted in decision.admitted] == [short.id]
    waits = {wait.job_id: wait for wait in decision.waits}
    assert (waits[big.id].why, waits[big.id].blockers) == (Why.NO_ROOM, (running.id,))
    assert waits[big.id].estimated_start == pytest.approx(600.0)
    assert (waits[long.id].why, waits[long.id].blockers) == (Why.HOLD, (big.id,))


def test_a_gang_that_could_never_start_holds_nobody_back() -> None:
    one = state([cluster(node("a", cpus=4))])
    never = submit(one, workers=2, cpus=4, grows=True)
    small = submit(one, cpus=1)
    decision, _ = run_cycle(one)
    assert [admitted.job_id for admitted in decision.admitted] == [small.id]
    assert one.waits[never.id].why is Why.NEVER_FITS


def test_a_gang_waiting_for_quota_keeps_later_ones_from_eating_it() -> None:
    one = state([cluster(node("a", cpus=64, gpus=8))], [queue("main", max={GPU: 4})])
    submit(one, gpus=2, timeout="10m")
    run_cycle(one)
    big = submit(one, gpus=4, timeout="1h")
    small, cpu_only = submit(one, gpus=1, timeout="1h"), submit(one, timeout="1h")
    decision, _ = run_cycle(one, at=1.0)
    assert [admitted.job_id for admitted in decision.admitted] == [cpu_only.id]
    assert one.waits[big.id].why is Why.QUOTA
    assert (one.waits[small.id].why, one.waits[small.id].blockers) == (Why.HOLD, (big.id,))


def test_S13_a_cluster_that_does_not_answer_takes_no_new_work_and_the_others_go_on() -> None:
    one = state([cluster(node("a"), name="east"), cluster(node("b"), name="west")])
    one.handle(ev.ClusterLost("east"), 1.0)
    stuck, free = submit(one, cluster="east"), submit(one)
    decision, _ = run_cycle(one, at=2.0)
    assert [(a.job_id, a.cluster) for a in decision.admitted] == [(free.id, "west")]
    assert one.waits[stuck.id].why is Why.CLUSTER_DOWN


def test_a_job_after_another_waits_for_its_success() -> None:
    one = state([cluster(node("a"))])
    first = submit(one)
    second = submit(one, after=(first.id,))
    run_cycle(one)
    assert one.waits[second.id].why is Why.DEPENDENCY
    start_all(one, first.id)
    end_all(one, first.id, 0)
    run_cycle(one)
    assert one.jobs[second.id].phase is JobPhase.ACTIVE


def test_S14_every_waiting_gang_is_told_its_place_and_reason() -> None:
    one = state([cluster(node("a", cpus=1))])
    jobs = [submit(one) for _ in range(4)]
    run_cycle(one)
    assert [one.waits[job.id].place for job in jobs[1:]] == [2, 3, 4]
    assert all(one.waits[job.id].sentence for job in jobs[1:])


def test_the_same_snapshot_gives_the_same_decision() -> None:
    one = state([cluster(node("a", gpus=2), node("b", gpus=2))])
    for gpus in (1, 2, 1, 2):
        submit(one, gpus=gpus)
    snapshot = one.snapshot()
    assert schedule(snapshot, 5.0) == schedule(snapshot, 5.0)


@pytest.mark.feature("A04")
def test_a_label_of_a_gpu_model_chooses_the_node() -> None:
    one = state([cluster(node("a", gpus=2, labels={"gpu-model": "a100"}), node("b", gpus=2, labels={"gpu-model": "h100"}))])
    submit(one, pods=(PodRequest(gpus=1, gpu_type="h100"),))
    (admitted,) = run_cycle(one)[0].admitted
    assert admitted.placements[0].node == "b"


def test_labels_and_tolerations_of_a_request_choose_the_node() -> None:
    tainted = replace(node("c", labels={"disk": "ssd"}), taints=(Taint("dedicated", "ml"),))
    one = state([cluster(node("a"), node("b", labels={"disk": "ssd"}), tainted)])
    labelled = submit(one, pods=(PodRequest(cpus=6, node_labels={"disk": "ssd"}),))
    inside = submit(one, pods=(PodRequest(cpus=6, node_labels={"disk": "ssd"}, tolerations=("dedicated=ml:NoSchedule",)),))
    other = submit(one, pods=(PodRequest(cpus=6, node_labels={"disk": "ssd"}, tolerations=("dedicated=x",)),))
    placed = {admitted.job_id: admitted.placements[0].node for admitted in run_cycle(one)[0].admitted}
    assert placed == {labelled.id: "b", inside.id: "c"}
    assert other.id in one.waits


def test_a_toleration_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(BadInput, match=r"pods\[0\].tolerations\[1\]: 'a b' is no taint; expected key=value:EFFECT"):
        submit(state(), pods=(PodRequest(tolerations=("spot", "a b")),))
