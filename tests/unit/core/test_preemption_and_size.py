"""Guarantees that are fetched back, classes that go first, gangs that grow and shrink, queues that move to another cluster."""

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import cluster, end_all, job, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.cycle import Decision, schedule
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.rules import EndEstimate
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.core.told.waits import WaitsByJob
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import LaunchGang, StopGang, StopPods
from tuttilab.scheduler.domain.model import (
    AttemptPhase,
    Cluster,
    Gang,
    Job,
    JobKind,
    JobPhase,
    Node,
    Overtaking,
    StopReason,
    Taint,
    Toleration,
    Why,
)
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.domain.resources import GPU, Resources

LENT = (queue("lender", guaranteed={GPU: 2}), queue("borrower", guaranteed={GPU: 2}))


def decide(of: State, at: float) -> Decision:
    decision = schedule(of.snapshot(), at)
    for event in decision.events:
        of.handle(event, at)
    of.waits = WaitsByJob(decision.waits)
    return decision


def put(to: State, one: Job, at: float = 0.0) -> Job:
    to.handle(ev.JobSubmitted(one), at)
    return one


def made(of: State, at: float = 0.0, **given: Any) -> Job:  # Any: fields of a job or of its request
    changes = {key: given.pop(key) for key in ("kind", "preemptible", "gang", "queue") if key in given}
    name = str(changes.pop("queue", "borrower"))
    base = job(Site(of.queues, of.clusters), queue=name, now=at, **given)
    return put(of, replace(base, **changes), at)


@pytest.mark.feature("S16", "S08")
def test_A05_a_borrowed_gang_is_stopped_for_the_guaranteed_share_least_work_lost_first() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], LENT)
    running = [submit(one, queue="borrower", gpus=1) for _ in range(4)]
    decide(one, 0.0)
    for at, each in enumerate(running):
        start_all(one, each.id, at=float(at))
    wanted = submit(one, queue="lender", gpus=1, at=100.0)
    (victim,) = decide(one, 100.0).preempted
    # The last two were above the borrower's own share of 2; of them the younger one has less to lose.
    assert (victim.job_id, victim.by) == (running[3].id, wanted.id)
    assert one.waits[wanted.id].why is Why.NO_ROOM
    end_all(one, running[3].id, 143, at=105.0)
    decide(one, 105.0)
    assert one.jobs[wanted.id].phase is JobPhase.ACTIVE
    assert one.attempts[running[3].id, 1].phase is AttemptPhase.PREEMPTED
    assert (one.jobs[running[3].id].phase, one.jobs[running[3].id].failures) == (JobPhase.QUEUED, 0)


def test_nobody_is_stopped_when_the_gang_would_still_not_fit() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4), node("m", cpus=64, gpus=0))], LENT)
    stays = made(one, queue="borrower", kind=JobKind.SERVICE, gpus=2)
    moves = submit(one, queue="borrower", gpus=2)
    decide(one, 0.0)
    start_all(one, stays.id)
    start_all(one, moves.id)
    one.handle(ev.QueuesConfigured((queue("lender", guaranteed={GPU: 3}), queue("borrower"))), 1.0)
    submit(one, queue="lender", gpus=3, at=1.0)
    assert decide(one, 1.0).preempted == ()


def kept_quota(low_cpus: int) -> tuple[State, Job, Job]:
    """A site whose last quota is kept for a large gang that waits for room; a low job, and a gang that would stop it."""
    clusters = [cluster(node("a", cpus=8)), cluster(node("d", cpus=4), node("e", cpus=8), name="there")]
    queues = (queue("root", max={"cpu": 13 + low_cpus}), queue("x", parent="root"), queue("y", parent="root", max_pods=4))
    one = state(clusters, queues)
    # The large gang's room is expected before the middle of the ends, when their quota is not free yet.
    one.rules = replace(one.rules, end_estimate=EndEstimate.PROBABILISTIC)
    low = submit(one, queue="y", cpus=low_cpus, cluster="here", sidecar=False)
    for cpus in (4, 1):
        submit(one, queue="x", cpus=cpus, cluster="there", sidecar=False)
    decide(one, 0.0)
    for running, _ in one.live():
        start_all(one, running.id)
    large = submit(one, queue="x", workers=4, cpus=2, cluster="there", sidecar=False, at=1.0)
    decide(one, 1.0)
    assert one.waits[large.id].why is Why.NO_ROOM
    return one, low, submit(one, queue="y", workers=4, cpus=1, priority=7, cluster="here", sidecar=False, at=2.0)


def test_nobody_is_stopped_for_a_gang_that_would_then_need_the_quota_kept_for_another() -> None:
    one, _, urgent = kept_quota(low_cpus=1)
    assert decide(one, 2.0).events == ()
    assert one.waits[urgent.id].why is Why.QUOTA


def test_what_a_gang_needs_beside_kept_quota_may_come_from_those_that_stop_for_it() -> None:
    one, low, urgent = kept_quota(low_cpus=4)
    assert [(stop.job_id, stop.by) for stop in decide(one, 2.0).preempted] == [(low.id, urgent.id)]
    end_all(one, low.id, 143, at=3.0)
    assert [admitted.job_id for admitted in decide(one, 3.0).admitted] == [urgent.id]


def test_a_gang_told_to_stop_is_not_stopped_again_for_the_same_claim() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], LENT)
    for each in [submit(one, queue="borrower", gpus=2) for _ in range(2)]:
        decide(one, 0.0)
        start_all(one, each.id)
    submit(one, queue="lender", gpus=2, at=10.0)
    assert len(decide(one, 10.0).preempted) == 1
    assert decide(one, 11.0).preempted == ()


def test_room_that_a_stop_makes_is_taken_by_nobody_else_meanwhile() -> None:
    """A lower gang in the free half of it would only be stopped next, and the one after it, until the grace is over."""
    one = state([cluster(node("n", cpus=64, gpus=2))], [queue("a"), queue("b")])
    running = submit(one, queue="a", gpus=1, at=0.0)
    decide(one, 0.0)
    start_all(one, running.id)
    urgent = submit(one, queue="a", gpus=2, priority=5, at=10.0)
    assert [stopped.job_id for stopped in decide(one, 10.0).preempted] == [running.id]
    late = [submit(one, queue=name, gpus=1, at=11.0) for name in ("a", "b")]
    assert decide(one, 11.0).events == ()
    assert {one.waits[job.id].why for job in late} == {Why.HOLD}
    assert one.waits[late[1].id].sentence == (
        f"room is kept for your job 'job' ({urgent.id}), which goes first; this one could delay it"
    )
    end_all(one, running.id, 143, at=12.0)
    decide(one, 12.0)
    assert one.jobs[urgent.id].phase is JobPhase.ACTIVE


def test_places_in_a_queue_that_a_stop_makes_are_kept_too() -> None:
    one = state([cluster(node("n", cpus=64))], [queue("main", max_pods=4)])
    running = submit(one, workers=2)
    decide(one, 0.0)
    start_all(one, running.id)
    urgent = submit(one, workers=3, priority=5, at=10.0)
    assert [stopped.job_id for stopped in decide(one, 10.0).preempted] == [running.id]
    late = submit(one, at=11.0)
    assert decide(one, 11.0).events == ()
    assert one.waits[late.id].why is Why.QUOTA
    end_all(one, running.id, 143, at=12.0)
    decide(one, 12.0)
    assert one.jobs[urgent.id].phase is JobPhase.ACTIVE


def test_limits_on_pods_are_kept_for_who_waits_for_them() -> None:
    one = state([cluster(node("n", cpus=64))], [queue("main", max_pods=4)])
    running = submit(one, workers=2, timeout="1h")
    decide(one, 0.0)
    start_all(one, running.id)
    first = submit(one, workers=3, at=1.0)
    longer = submit(one, timeout="5h", at=2.0)
    assert decide(one, 2.0).events == ()
    assert (one.waits[first.id].why, one.waits[longer.id].why) == (Why.QUOTA, Why.HOLD)


def test_A05_the_guaranteed_share_goes_before_the_hold_of_a_protected_borrower() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], [queue("lender", guaranteed={GPU: 2}), queue("borrower")])
    running = submit(one, queue="borrower", gpus=3)
    decide(one, 0.0)
    start_all(one, running.id)
    big = submit(one, queue="borrower", gpus=4, at=1.0)
    one.accounts.rows[big.id] = Overtaking(big.id, 1.0, (), (("here", 90_000.0),))
    assert decide(one, 2.0).events == ()
    own = submit(one, queue="lender", gpus=1, at=3.0)
    assert [admitted.job_id for admitted in decide(one, 3.0).admitted] == [own.id]


def test_a_higher_class_stops_a_lower_one_of_its_queue_and_never_the_other_way() -> None:
    one = state([cluster(node("n", cpus=1))])
    low = submit(one)
    decide(one, 0.0)
    start_all(one, low.id)
    high = submit(one, priority=5, at=1.0)
    (victim,) = decide(one, 1.0).preempted
    assert (victim.job_id, victim.by) == (low.id, high.id)
    assert one.live_attempt(low.id).stop_reason is StopReason.PREEMPTED  # type: ignore[union-attr]  # it is live
    end_all(one, low.id, 143, at=6.0)
    decide(one, 6.0)
    start_all(one, high.id, at=6.0)
    assert decide(one, 700.0).preempted == ()
    assert one.jobs[high.id].phase is JobPhase.ACTIVE


def test_a_higher_class_does_not_stop_what_may_not_be_stopped() -> None:
    one = state([cluster(node("n", cpus=1))])
    service = made(one, queue="main", kind=JobKind.SERVICE)
    decide(one, 0.0)
    start_all(one, service.id)
    high = submit(one, priority=5, at=1.0)
    assert decide(one, 1.0).preempted == ()
    assert one.waits[high.id].why is Why.NO_ROOM


def test_a_notebook_with_a_running_cell_is_never_stopped() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], LENT)
    busy = made(one, queue="borrower", kind=JobKind.NOTEBOOK, preemptible=True, gpus=4)
    decide(one, 0.0)
    start_all(one, busy.id)
    submit(one, queue="lender", gpus=1, at=1.0)
    one.handle(ev.NotebookActive(busy.id, 1), 100.0)
    assert decide(one, 159.0).preempted == ()
    (victim,) = decide(one, 161.0).preempted
    assert victim.job_id == busy.id


def test_after_a_restart_a_notebook_may_have_a_running_cell() -> None:
    """Who reported one is known to nobody then, so a minute of silence passes first."""
    before = state([cluster(node("n", cpus=64, gpus=4))], LENT)
    notebook = made(before, queue="borrower", kind=JobKind.NOTEBOOK, preemptible=True, gpus=4)
    decide(before, 0.0)
    start_all(before, notebook.id)
    before.handle(ev.NotebookActive(notebook.id, 1), 1000.0)
    submit(before, queue="lender", gpus=1, at=1001.0)
    one = State.load(before.jobs.values(), before.attempts.values(), before.queues.values(), 2, at=1005.0)
    one.clusters = before.clusters
    assert decide(one, 1006.0).preempted == ()
    assert decide(one, 1064.0).preempted == ()
    (victim,) = decide(one, 1065.0).preempted
    assert victim.job_id == notebook.id


@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_cell_that_began_after_the_snapshot_counts_too_unless_its_queue_stops_busy_notebooks(is_allowed: bool) -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], [LENT[0], replace(LENT[1], stops_busy_notebooks=is_allowed)])
    notebook = made(one, queue="borrower", kind=JobKind.NOTEBOOK, preemptible=True, gpus=4)
    decide(one, 0.0)
    start_all(one, notebook.id)
    submit(one, queue="lender", gpus=1, at=1.0)
    (decided,) = schedule(one.snapshot(), 100.0).preempted
    one.handle(ev.NotebookActive(notebook.id, 1), 100.1)
    assert bool(one.handle(decided, 100.2)) is is_allowed
    assert len(decide(one, 100.3).preempted) == 0
    assert (one.live_attempt(notebook.id).phase is AttemptPhase.STOPPING) is is_allowed  # type: ignore[union-attr]  # it is live


def test_only_a_live_notebook_has_running_cells() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], LENT)
    batch = made(one, queue="borrower", gpus=4)
    decide(one, 0.0)
    start_all(one, batch.id)
    one.handle(ev.NotebookActive(batch.id, 1), 1.0)
    submit(one, queue="lender", gpus=1, at=1.0)
    (victim,) = decide(one, 2.0).preempted
    assert victim.job_id == batch.id


def test_work_that_may_not_be_stopped_never_borrows() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], LENT)
    service = made(one, queue="borrower", kind=JobKind.SERVICE, gpus=3)
    decide(one, 0.0)
    wait = one.waits[service.id]
    assert (wait.why, wait.queue, wait.short) == (Why.QUOTA, "borrower", Resources.of({GPU: 1}))
    assert "never borrows" in wait.sentence


def test_a_queue_that_may_not_borrow_keeps_to_its_share() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], [LENT[0], replace(LENT[1], can_borrow=False)])
    submit(one, queue="borrower", gpus=2)
    over = submit(one, queue="borrower", gpus=1)
    assert len(decide(one, 0.0).admitted) == 1
    assert one.waits[over.id].why is Why.QUOTA


def growing(of: State, count: int, least: int, at: float = 0.0) -> Job:
    base = job(Site(of.queues, of.clusters, growing=frozenset(of.clusters)), queue="main", workers=count, now=at, sidecar=False)
    sets = tuple(replace(one, min_count=least, can_grow=True) for one in base.gang.pod_sets)
    return put(of, replace(base, gang=Gang(sets)), at)


def test_S16_an_elastic_gang_starts_with_what_fits_and_grows_when_there_is_room() -> None:
    one = state([cluster(node("n", cpus=3))])
    first = submit(one)
    decide(one, 0.0)
    start_all(one, first.id)
    gang = growing(one, 4, 1, at=1.0)
    (admitted,) = decide(one, 1.0).admitted
    assert len(admitted.placements) == 2
    start_all(one, gang.id, at=1.0)
    end_all(one, first.id, 0, at=5.0)
    (grown,) = decide(one, 5.0).grown
    assert [(p.role, p.rank) for p in grown.placements] == [("worker", 2)]
    attempt = one.live_attempt(gang.id)
    assert attempt is not None
    assert (len(attempt.pods), attempt.charge["cpu"]) == (3, 3000)


def test_S16_spare_workers_are_given_back_to_a_gang_that_waits_for_room() -> None:
    one = state([cluster(node("n", cpus=3))])
    gang = growing(one, 3, 1)
    decide(one, 0.0)
    start_all(one, gang.id)
    waits = submit(one, cpus=2, at=10.0)
    decision = schedule(one.snapshot(), 10.0)
    (shrunk,) = decision.shrunk
    assert shrunk.pods == (f"{gang.id}-1-worker-2", f"{gang.id}-1-worker-1")
    assert one.handle(shrunk, 10.0) == [StopPods(gang.id, 1, (f"{gang.id}-1-worker-1", f"{gang.id}-1-worker-2"), 30.0)]
    for name in shrunk.pods:
        one.handle(ev.PodEnded(gang.id, 1, name, 143, "Stopped"), 12.0)
    decide(one, 12.0)
    assert (one.jobs[waits.id].phase, one.jobs[gang.id].phase) == (JobPhase.ACTIVE, JobPhase.ACTIVE)


def test_S16_a_gang_that_cannot_grow_chooses_its_size_once() -> None:
    one = state([cluster(node("n", cpus=2))])
    base = job(workers=4, sidecar=False)
    gang = put(one, replace(base, gang=Gang((replace(base.gang.pod_sets[0], min_count=2),))))
    (admitted,) = decide(one, 0.0).admitted
    assert len(admitted.placements) == 2
    start_all(one, gang.id)
    one.handle(ev.ClusterObserved(cluster(node("n", cpus=2), node("m", cpus=8))), 1.0)
    assert decide(one, 1.0).grown == ()


@pytest.mark.feature("S10")
def test_S11_a_drained_queue_starts_elsewhere_while_what_runs_ends_where_it_is() -> None:
    one = state(
        [cluster(node("a"), name="east"), cluster(node("b"), name="west")], [queue("main", max={"cpu": 4}, clusters=("east",))]
    )
    old = submit(one, cpus=2)
    decide(one, 0.0)
    start_all(one, old.id)
    one.handle(ev.QueuesConfigured((queue("main", max={"cpu": 4}, clusters=("west",)),)), 1.0)
    new = submit(one, cpus=2, at=1.0)
    (admitted,) = decide(one, 1.0).admitted
    assert (admitted.job_id, admitted.cluster) == (new.id, "west")
    assert one.live_attempt(old.id).cluster == "east"  # type: ignore[union-attr]  # it is live
    assert one.use("main")["cpu"] == 4000


def test_S12_most_room_wins_and_ties_go_by_name() -> None:
    one = state([cluster(node("a", cpus=8), name="west"), cluster(node("b", cpus=8), name="east")])
    first, second = submit(one, cpus=2), submit(one, cpus=2)
    decision = decide(one, 0.0)
    assert [(a.job_id, a.cluster) for a in decision.admitted] == [(first.id, "east"), (second.id, "west")]


def test_taints_keep_out_whoever_does_not_tolerate_them() -> None:
    spot = replace(node("spot", cpus=8), taints=(Taint("spot"),))
    one = state([cluster(spot)])
    out = put(one, job())
    base = job()
    inside = put(one, replace(base, gang=Gang((replace(base.gang.pod_sets[0], tolerations=(Toleration("spot"),)),))))
    decision = decide(one, 0.0)
    assert [a.job_id for a in decision.admitted] == [inside.id]
    assert one.waits[out.id].why is Why.NEVER_FITS


def racks(*sizes: tuple[str, str, int]) -> Cluster:
    return cluster(*(node(name, cpus=64, gpus=gpus, labels={"rack": rack}) for name, rack, gpus in sizes))


def nodes_of(decision: Decision) -> set[str]:
    (admitted,) = decision.admitted
    return {place.node for place in admitted.placements}


def test_a_gang_goes_into_one_node_then_one_rack_before_it_is_spread() -> None:
    site = racks(("a", "r1", 2), ("b", "r2", 2), ("c", "r1", 2), ("d", "r2", 4))
    one = state([site])
    submit(one, workers=4, gpus=1, sidecar=False)
    assert nodes_of(decide(one, 0.0)) == {"d"}
    two = state([racks(("a", "r1", 2), ("b", "r2", 1), ("c", "r1", 2), ("d", "r3", 1))])
    submit(two, workers=4, gpus=1, sidecar=False)
    assert nodes_of(decide(two, 0.0)) == {"a", "c"}


def test_S06_a_gang_overtaken_too_much_goes_before_smaller_ones() -> None:
    one = state([cluster(node("n", cpus=2))])
    first = submit(one, cpus=2)
    decide(one, 0.0)
    start_all(one, first.id)
    big, small = submit(one, cpus=2, at=1.0), submit(one, cpus=1, at=2.0)
    end_all(one, first.id, 0, at=1000.0)
    trusting = replace(one.snapshot(), trusts={"main": 1.0})
    assert [a.job_id for a in schedule(trusting, 1000.0).admitted] == [small.id]
    row = one.accounts.rows[big.id]
    one.accounts.rows[big.id] = replace(row, later=(("here", 2200.0),))
    overtaken = replace(one.snapshot(), trusts={"main": 1.0})
    assert [a.job_id for a in schedule(overtaken, 1000.0).admitted] == [big.id]


def test_S06_order_is_submission_while_there_is_room_for_all() -> None:
    one = state([cluster(node("n", cpus=16))])
    jobs = [submit(one, cpus=cpus) for cpus in (4, 1, 2)]
    assert [a.job_id for a in decide(one, 0.0).admitted] == [each.id for each in jobs]


def test_a_lifted_gang_goes_before_higher_classes() -> None:
    one = state([cluster(node("n", cpus=1))])
    blocker = submit(one)
    decide(one, 0.0)
    start_all(one, blocker.id)
    low = submit(one, at=1.0)
    submit(one, priority=5, at=100_000.0)
    one.accounts.rows[low.id] = Overtaking(low.id, 1.0, (), (("here", 60.0),))
    end_all(one, blocker.id, 0, at=100_000.0)
    assert [a.job_id for a in schedule(one.snapshot(), 100_000.0).admitted] == [low.id]


def test_S14_blockers_of_other_groups_are_only_counted() -> None:
    one = state([cluster(node("n", cpus=1))])
    other = put(one, replace(job(), owner="bob", group="others"))
    decide(one, 0.0)
    assert one.jobs[other.id].phase is JobPhase.ACTIVE
    mine = submit(one, at=1.0)
    decide(one, 1.0)
    assert one.waits[mine.id].blockers == ()
    assert "; held by 1 job of other groups;" in one.waits[mine.id].sentence


def test_I12_a_preemption_that_comes_twice_stops_once() -> None:
    one = state([cluster(node("n", cpus=1))])
    low = submit(one)
    (_, (launch,)) = run_cycle(one)
    assert launch == LaunchGang(low.id, 1)
    event = ev.GangPreempted(low.id, 1, "other", "why")
    assert one.handle(event, 1.0) == [StopGang(low.id, 1, 30.0, StopReason.PREEMPTED)]
    assert one.handle(event, 2.0) == []


def test_a_cluster_without_ready_nodes_takes_nothing() -> None:
    empty = Cluster("here", "fake", (Node("n", "here", Resources.of({"cpu": 1000}), is_ready=False),))
    one = state([empty])
    waits = put(one, job())
    decide(one, 0.0)
    assert one.waits[waits.id].why is Why.NEVER_FITS


def test_S16_a_gang_is_never_shrunk_below_its_minimum() -> None:
    one = state([cluster(node("n", cpus=3))])
    gang = growing(one, 3, 2)
    decide(one, 0.0)
    start_all(one, gang.id)
    names = tuple(f"{gang.id}-1-worker-{rank}" for rank in range(3))
    assert one.handle(ev.GangShrunk(gang.id, 1, names, "why"), 1.0) == [StopPods(gang.id, 1, names[2:], 30.0)]


def test_I13_the_first_record_of_a_pods_end_stands() -> None:
    one = state([cluster(node("n", cpus=4))])
    gang = submit(one, workers=2, sidecar=False)
    decide(one, 0.0)
    start_all(one, gang.id)
    name = f"{gang.id}-1-worker-0"
    one.handle(ev.PodEnded(gang.id, 1, name, 0, "Completed"), 1.0)
    one.handle(ev.PodEnded(gang.id, 1, name, 137, "OOMKilled"), 2.0)
    pod = one.attempts[gang.id, 1].pods[0]
    assert (pod.exit_code, pod.reason, pod.ended_at) == (0, "Completed", 1.0)
    assert one.jobs[gang.id].phase is JobPhase.ACTIVE


def all_on(of: State, count: int, name: str, at: float = 0.0, **given: Any) -> list[Job]:  # Any: fields of a request
    """So many jobs of one pod of that queue, running."""
    jobs = [submit(of, queue=name, at=at, **given) for _ in range(count)]
    decide(of, at)
    for each in jobs:
        start_all(of, each.id, at=at)
    return jobs


def elastic(least: int, most: int, **given: Any) -> tuple[PodRequest, ...]:  # Any: amounts
    return (PodRequest(role="worker", count=most, min_count=least, **given),)


def gpu_nodes(count: int, name: str = "here") -> Cluster:
    return cluster(*[node(f"{name}{number}", cpus=16, gpus=1) for number in range(count)], name=name)


def test_I16_spare_pods_of_a_gang_are_not_counted_again_when_all_of_it_would_go() -> None:
    """Eight CPUs, four of them another queue's: six can never be had by stopping a gang of four."""
    one = state([cluster(node("n", cpus=8))], [queue("a"), queue("other")])
    all_on(one, 1, "other", cpus=4, sidecar=False)
    gang = submit(one, queue="a", pods=elastic(2, 4, cpus=1), sidecar=False)
    decide(one, 0.0)
    start_all(one, gang.id)
    submit(one, queue="a", cpus=6, priority=3, at=1.0, sidecar=False)
    assert decide(one, 1.0).events == ()


def test_I16_pods_on_their_way_out_are_not_counted_again_when_the_rest_of_the_gang_would_go() -> None:
    one = state([cluster(node("n", cpus=8))], [queue("a"), queue("other")])
    all_on(one, 1, "other", cpus=4, sidecar=False)
    gang = submit(one, queue="a", pods=elastic(2, 4, cpus=1), sidecar=False)
    decide(one, 0.0)
    start_all(one, gang.id)
    submit(one, queue="a", cpus=2, at=1.0, sidecar=False)
    (given_back,) = decide(one, 1.0).shrunk
    assert len(given_back.pods) == 2
    submit(one, queue="a", cpus=6, priority=3, at=2.0, sidecar=False)
    assert decide(one, 2.0).preempted == ()


def test_I16_only_the_spare_pods_go_where_they_are_enough() -> None:
    one = state([cluster(node("n", cpus=8))], [queue("a")])
    gang = submit(one, queue="a", pods=elastic(2, 8, cpus=1), sidecar=False)
    decide(one, 0.0)
    start_all(one, gang.id)
    submit(one, queue="a", cpus=3, priority=3, at=1.0, sidecar=False)
    decision = decide(one, 1.0)
    assert decision.preempted == ()
    assert [(each.job_id, len(each.pods)) for each in decision.shrunk] == [(gang.id, 3)]


def test_a_gang_that_higher_classes_passed_for_the_cap_is_stopped_by_none_of_them() -> None:
    one = state([cluster(node("n", cpus=1))], [queue("main", class_cap_s=100.0)])
    low = submit(one)
    high = [submit(one, priority=1, at=float(number)) for number in range(3)]
    decide(one, 3.0)
    end_all(one, high[0].id, 0, at=50.0)
    decide(one, 50.0)
    end_all(one, high[1].id, 0, at=101.0)
    decide(one, 101.0)
    assert one.live_attempt(low.id) is not None
    start_all(one, low.id, at=101.0)
    assert decide(one, 102.0).preempted == ()
    assert one.jobs[high[2].id].phase is JobPhase.QUEUED


def test_S16_a_share_below_a_share_is_fetched_from_the_sister_queue() -> None:
    tree = [queue("p", guaranteed={GPU: 4}), queue("c", parent="p", guaranteed={GPU: 2}), queue("d", parent="p"), queue("b")]
    one = state([gpu_nodes(4)], tree)
    running = all_on(one, 4, "d", gpus=1)
    # Two of the parent's four are nobody's own: the sister has them by right, and borrows the other two.
    assert [one.live_attempt(job.id).is_borrowed for job in running] == [False, False, True, True]  # type: ignore[union-attr]
    for number in range(3):
        submit(one, queue="c", gpus=1, at=10.0 + number)
        assert len(decide(one, 10.0 + number).preempted) == (1 if number < 2 else 0)


def test_who_stops_others_below_a_queue_leaves_it_no_further_above_its_share() -> None:
    """Stopping one GPU for two would put the parent above its four, of which its sister could fetch one back."""
    tree = [
        queue("p", guaranteed={GPU: 4}),
        queue("c", parent="p", guaranteed={GPU: 2}),
        queue("d", parent="p"),
        queue("b", guaranteed={GPU: 2}),
    ]
    one = state([cluster(node("n", cpus=64, gpus=5))], tree)
    all_on(one, 4, "d", gpus=1)
    submit(one, queue="c", gpus=2, at=1.0)
    assert len(decide(one, 1.0).preempted) == 2


@pytest.mark.parametrize("given", [{"pods": elastic(2, 8, gpus=1)}, {"workers": 2, "gpus": 1}], ids=["elastic", "fixed"])
@pytest.mark.parametrize("cause", ["share", "class"])
def test_S16_a_gang_that_can_grow_claims_what_it_can_start_with(given: dict[str, Any], cause: str) -> None:
    one = state([gpu_nodes(4)], [queue("a", guaranteed={GPU: 2}), queue("b")])
    all_on(one, 4, "b", gpus=1)
    submit(one, queue="a" if cause == "share" else "b", priority=0 if cause == "share" else 5, at=1.0, **given)
    assert len(decide(one, 1.0).preempted) == 2


def test_S16_a_gang_that_can_grow_is_given_spare_pods_enough_to_start() -> None:
    one = state([gpu_nodes(8)])
    gang = submit(one, pods=elastic(2, 8, gpus=1))
    decide(one, 0.0)
    start_all(one, gang.id)
    other = submit(one, pods=elastic(2, 8, gpus=1), at=1.0)
    (given_back,) = decide(one, 1.0).shrunk
    assert (given_back.job_id, len(given_back.pods)) == (gang.id, 2)
    for pod in given_back.pods:
        one.handle(ev.PodEnded(gang.id, 1, pod, 143, ""), 2.0)
    decide(one, 2.0)
    assert len(one.live_attempt(other.id).pods) == 3  # type: ignore[union-attr]  # two workers and the master


@pytest.mark.parametrize("cause", ["share", "class"])
def test_S16_quota_that_is_used_up_on_another_cluster_is_fetched_from_there(cause: str) -> None:
    tree = [queue("p", max={GPU: 4}), queue("a", parent="p", guaranteed={GPU: 2}), queue("b", parent="p")]
    one = state([gpu_nodes(4, "east"), gpu_nodes(4, "west")], tree)
    running = all_on(one, 4, "b", gpus=1, cluster="west")
    name, priority = ("a", 0) if cause == "share" else ("b", 5)
    submit(one, queue=name, priority=priority, gpus=1, cluster="east", at=1.0)
    (victim,) = decide(one, 1.0).preempted
    assert victim.job_id in {job.id for job in running}


def test_the_cluster_where_least_work_is_lost_gives_the_room() -> None:
    one = state([gpu_nodes(1, "east"), gpu_nodes(1, "west")])
    all_on(one, 1, "main", gpus=1, cluster="east")
    young = all_on(one, 1, "main", at=50_000.0, gpus=1, cluster="west")
    submit(one, gpus=1, priority=3, at=50_001.0)
    assert [victim.job_id for victim in decide(one, 50_001.0).preempted] == [young[0].id]


def test_S16_a_share_of_one_resource_is_fetched_whatever_else_others_are_guaranteed() -> None:
    tree = [queue("gpus", guaranteed={GPU: 2}), queue("cpus", guaranteed={"cpu": 16}), queue("b")]
    one = state([gpu_nodes(4)], tree)
    all_on(one, 4, "b", gpus=1)
    submit(one, queue="gpus", gpus=1, at=1.0)
    assert len(decide(one, 1.0).preempted) == 1


def test_I16_shares_of_different_resources_do_not_stop_one_another_in_turns() -> None:
    """Each is within its own share of something, so that neither stops the other."""
    tree = [queue("gpus", guaranteed={GPU: 2}), queue("cpus", guaranteed={"cpu": 16})]
    one = state([cluster(node("n", cpus=16, gpus=2))], tree)
    both = all_on(one, 1, "cpus", cpus=8, gpus=2, sidecar=False)
    submit(one, queue="gpus", cpus=1, gpus=1, at=1.0, sidecar=False)
    assert decide(one, 1.0).preempted == ()
    pure = submit(one, queue="gpus", cpus=0.1, gpus=1, at=2.0, sidecar=False)
    assert decide(one, 2.0).preempted == ()
    end_all(one, both[0].id, 0, at=3.0)
    decide(one, 3.0)
    assert one.live_attempt(pure.id) is not None


def test_A05_work_that_may_not_be_stopped_starts_within_the_share_its_queue_has() -> None:
    """A queue that is guaranteed GPUs runs notebooks on them, though another is guaranteed CPUs."""
    one = state([gpu_nodes(4)], [queue("gpus", guaranteed={GPU: 2}), queue("cpus", guaranteed={"cpu": 16})])
    for number in range(3):
        made(one, queue="gpus", kind=JobKind.NOTEBOOK, preemptible=False, gpus=1, at=float(number))
    assert len(decide(one, 3.0).admitted) == 2


def test_A05_a_guarantee_that_comes_later_is_fetched_from_those_that_run() -> None:
    one = state([gpu_nodes(4)], [queue("a"), queue("b")])
    all_on(one, 4, "b", gpus=1)
    one.handle(ev.QueuesConfigured((queue("a", guaranteed={GPU: 2}), queue("b"))), 5.0)
    submit(one, queue="a", gpus=1, at=6.0)
    assert len(decide(one, 6.0).preempted) == 1


def test_S16_claims_of_higher_classes_in_vain_keep_no_share_from_being_fetched() -> None:
    one = state([cluster(node("n", cpus=200, gpus=4))], [queue("a", guaranteed={GPU: 2}), queue("b", priority=9)])
    made(one, queue="b", kind=JobKind.SERVICE, cpus=150)
    all_on(one, 4, "b", gpus=1)
    for number in range(70):
        submit(one, queue="b", priority=5, gpus=1, cpus=60 + number, at=1.0)
    own = submit(one, queue="a", gpus=1, at=2.0)
    assert [stop.by for stop in decide(one, 2.0).preempted] == [own.id]


def test_S07_the_priority_of_a_queue_above_passes_others_no_longer_than_the_cap() -> None:
    tree = [queue("hi", priority=10), queue("h", parent="hi"), queue("lo"), queue("l", parent="lo", class_cap_s=100.0)]
    one = state([cluster(node("n", cpus=1))], tree)
    low = submit(one, queue="l")
    high = [submit(one, queue="h", at=float(number)) for number in range(3)]
    decide(one, 3.0)
    for number, at in ((0, 50.0), (1, 101.0)):
        end_all(one, high[number].id, 0, at=at)
        decide(one, at)
    assert one.live_attempt(low.id) is not None


def test_a_notebook_that_has_only_just_started_is_no_idle_one() -> None:
    one = state([cluster(node("n", cpus=64, gpus=4))], LENT)
    fresh = made(one, queue="borrower", kind=JobKind.NOTEBOOK, preemptible=True, gpus=4)
    decide(one, 0.0)
    start_all(one, fresh.id, at=10.0)
    submit(one, queue="lender", gpus=1, at=11.0)
    decision = decide(one, 69.0)
    assert (decision.preempted, decision.next_at) == ((), 70.0)
    assert [victim.job_id for victim in decide(one, 71.0).preempted] == [fresh.id]
