"""Pods that join a running gang and leave it again: rows, charges, names, what is told to whom, and when it is tried again."""

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import cluster, end_pod, job, node, queue, start_all, state, submit
from tuttilab.scheduler.clusters.base import PodState
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.rows.lifecycle import due_timers
from tuttilab.scheduler.core.rows.resizing import LEFT_KEPT, without_pod
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import ForgetPods, Instruction, LaunchGang, StopGang, StopPods
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Cluster, Job, JobPhase, Pod, PodPhase, Why
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.scheduler.service.heartbeats import Heartbeats
from tuttilab.scheduler.service.launch_plans import Addresses, Secrets, plan_of
from tuttilab.scheduler.service.reconcile import (
    ORPHAN_GRACE_S,
    ends_of_missing_pods,
    instructions_to_repeat,
    orphan_cleanups,
    pod_events,
)
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.store.verify import Replay

GROWN = "-1-worker-{}-g{}"


def elastic(of: State, count: int = 3, least: int = 1, at: float = 0.0, framework: str = "none") -> Job:
    """A gang of ``count`` workers of one core each that goes on with ``least``."""
    pods = (PodRequest(role="worker", count=count, min_count=least),)
    one = job(Site(of.queues, of.clusters), queue="main", pods=pods, now=at, framework=framework)
    of.handle(ev.JobSubmitted(one), at)
    return one


def cycle(of: State, at: float) -> Turn:
    turn = Turn(of, at)
    turn.apply_decision(schedule(of.snapshot(), at), of.version)
    return turn


def live(of: State, one: Job) -> Attempt:
    attempt = of.live_attempt(one.id)
    assert attempt is not None
    return attempt


def names(of: State, one: Job) -> list[str]:
    return [pod.name.removeprefix(one.id) for pod in live(of, one).members]


def grown(cpus: int = 3, at: float = 10.0) -> tuple[State, Job]:
    """A gang that started with one worker beside another job, and was given two more at ``at``."""
    one = state([cluster(node("n", cpus=cpus))])
    other = submit(one, cpus=cpus - 1)
    cycle(one, 0.0)
    start_all(one, other.id)
    gang = elastic(one)
    cycle(one, 1.0)
    start_all(one, gang.id, at=2.0)
    assert names(one, gang) == ["-1-worker-0"]
    end_pod(one, other.id, 0, 0, at=5.0)
    assert cycle(one, at).instructions == [LaunchGang(gang.id, 1)]
    return one, gang


def started(of: State, one: Job, rank: int, growth: int = 1, at: float = 11.0) -> str:
    name = one.id + GROWN.format(rank, growth)
    of.handle(ev.PodSeen(one.id, 1, name, f"uid-{name}"), at)
    of.handle(ev.PodStarted(one.id, 1, name), at)
    return name


def told(of: State, event: ev.Event, at: float) -> list[Instruction]:
    found = of.handle(event, at)
    of.check_invariants()
    return found


@pytest.mark.feature("S16")
def test_only_workers_that_are_told_of_no_fixed_world_come_and_go() -> None:
    one = state([cluster(node("n"))])
    assert [s.can_grow for s in elastic(one).gang.pod_sets] == [True]
    assert [s.can_grow for s in elastic(one, 3, 3).gang.pod_sets] == [False]
    assert [s.can_grow for s in job(workers=3).gang.pod_sets] == [False]
    for framework in ("torch", "tensorflow", "xgboost"):
        assert [s.can_grow for s in elastic(one, framework=framework).gang.pod_sets] == [False]


def test_a_turn_commits_the_growth_before_anything_is_made() -> None:
    one, gang = grown()
    attempt = live(one, gang)
    assert names(one, gang) == ["-1-worker-0", "-1-worker-1-g1", "-1-worker-2-g1"]
    assert [(pod.uid, pod.phase, pod.joined_at) for pod in attempt.members[1:]] == [(None, PodPhase.PENDING, 10.0)] * 2
    assert (attempt.charge["cpu"], attempt.growths) == (3000, 1)
    one.check_invariants()


def test_a_turn_journals_growing_and_shrinking_and_the_journal_gives_the_rows() -> None:
    one, turns = state(), []

    def turn(at: float, *events: ev.Event) -> Turn:
        turns.append(Turn(one, at))
        for event in events:
            turns[-1].apply(event, "x")
        return turns[-1]

    turn(0.0, ev.QueuesConfigured((queue(),)), ev.ClusterObserved(cluster(node("n", cpus=2))))
    pods = (PodRequest(role="worker", count=2, min_count=1),)
    gang = job(Site(one.queues, one.clusters), queue="main", pods=pods)
    turn(0.0, ev.JobSubmitted(gang)).apply_decision(schedule(one.snapshot(), 0.0), one.version)
    for pod in live(one, gang).pods:
        turn(1.0, ev.PodSeen(gang.id, 1, pod.name, f"uid-{pod.name}"), ev.PodStarted(gang.id, 1, pod.name))
    other = job(Site(one.queues, one.clusters), queue="main", now=2.0)
    turn(2.0, ev.JobSubmitted(other)).apply_decision(schedule(one.snapshot(), 2.0), one.version)
    worker = f"{gang.id}-1-worker-1"
    assert turns[-1].instructions == [StopPods(gang.id, 1, (worker,), 30.0)]
    turn(4.0, ev.PodEnded(gang.id, 1, worker, 143, "Stopped")).apply_decision(schedule(one.snapshot(), 4.0), one.version)
    end = f"{other.id}-1-worker-0"
    turn(5.0, ev.PodSeen(other.id, 1, end, "u"), ev.PodEnded(other.id, 1, end, 0, "Completed"))
    turn(6.0).apply_decision(schedule(one.snapshot(), 6.0), one.version)
    kinds = [type(entry.event).__name__ for each in turns for entry in each.entries]
    assert [kind for kind in kinds if kind.startswith("Gang")] == ["GangAdmitted", "GangShrunk", "GangAdmitted", "GangGrown"]

    replayed = Replay()
    for each in turns:
        for entry in each.entries:
            replayed.take(entry.event, entry.at)
    assert replayed.attempts == one.attempts
    assert names(one, gang) == ["-1-worker-0", "-1-worker-1-g1"]


def test_a_decision_that_is_stale_is_dropped_and_not_journalled() -> None:
    one, gang = grown()
    growth = ev.GangGrown(gang.id, 1, (ev.Placement("worker", 1, "n"),), 1)
    assert told(one, growth, 11.0) == [], "the rank is there"
    end_pod(one, gang.id, 1, None, at=12.0, reason="Lost")
    assert told(one, growth, 13.0) == [], "its back-off is not over"
    assert told(one, replace(growth, epoch=2), 100.0) == [], "another leader decided it"
    one.handle(ev.ClusterLost("here"), 100.0)
    assert told(one, growth, 100.0) == [], "its cluster does not answer"
    one.handle(ev.ClusterBack("here"), 100.0)
    one.handle(ev.JobCancelRequested(gang.id, "ann"), 100.0)
    assert told(one, growth, 101.0) == [], "it is to stop"


def test_a_pod_that_cannot_be_made_is_given_back_and_tried_again_later_each_time() -> None:
    one, gang = grown()
    worker = started(one, gang, 1)
    late = gang.id + GROWN.format(2, 1)
    assert told(one, ev.GrowthFailed(gang.id, 1, (worker, late), "no room on n", "n"), 12.0) == [
        StopPods(gang.id, 1, (late,), 30.0)
    ]
    assert told(one, ev.GrowthFailed(gang.id, 1, (late,), "no room on n", "n"), 12.0) == [], "it was told already"
    assert (live(one, gang).phase, live(one, gang).grows_at, one.jobs[gang.id].avoid_nodes) == (AttemptPhase.RUNNING, 22.0, ("n",))
    (event,) = ends_of_missing_pods(one, gang.id, 1, {worker: f"uid-{worker}"}, (late,))
    assert told(one, event, 13.0) == []
    assert (live(one, gang).charge["cpu"], [p.given_back_why for p in live(one, gang).left]) == (2000, ["no room on n"])

    decision = schedule(one.snapshot(), 14.0)
    assert (decision.grown, decision.next_at) == ((), 22.0)
    assert cycle(one, 22.0).instructions == [LaunchGang(gang.id, 1)]
    assert names(one, gang)[-1] == "-1-worker-2-g2"
    told(one, ev.GrowthFailed(gang.id, 1, (gang.id + GROWN.format(2, 2),), "no room on n", "n"), 23.0)
    assert live(one, gang).grows_at == 43.0, "20 s the second time"


def test_one_that_starts_ends_the_back_off() -> None:
    one, gang = grown()
    told(one, ev.GrowthFailed(gang.id, 1, (gang.id + GROWN.format(2, 1),), "no room"), 12.0)
    assert live(one, gang).failed_growths == 1
    started(one, gang, 1, at=13.0)
    assert live(one, gang).failed_growths == 0


@pytest.mark.parametrize(("exit_code", "reason"), [(None, "Lost"), (143, "NeverStarted"), (1, "InputMissing")])
def test_a_pod_that_ends_before_it_ran_costs_the_gang_nothing(exit_code: int | None, reason: str) -> None:
    one, gang = grown()
    assert told(one, ev.PodEnded(gang.id, 1, gang.id + GROWN.format(2, 1), exit_code, reason), 12.0) == []
    attempt = live(one, gang)
    assert (attempt.phase, attempt.charge["cpu"], attempt.grows_at) == (AttemptPhase.RUNNING, 2000, 22.0)
    assert attempt.left[-1].given_back_why == f"it did not start ({reason})"


def test_a_pod_that_joined_and_fails_is_a_member_that_failed() -> None:
    one, gang = grown()
    worker = started(one, gang, 1)
    (stop,) = told(one, ev.PodEnded(gang.id, 1, worker, 3, "Error"), 12.0)
    assert isinstance(stop, StopGang)
    assert live(one, gang).reason == "worker 1 exited with code 3"


def test_a_pod_that_is_not_ready_in_time_is_given_back() -> None:
    one, gang = grown(at=10.0)
    started(one, gang, 1)
    due, upcoming = due_timers(one.live(), one.clusters, 300.0, 300.0)
    assert (due, upcoming) == ([], 310.0)
    (late,), upcoming = due_timers(one.live(), one.clusters, 310.0, 300.0)
    assert late == ev.GrowthFailed(gang.id, 1, (gang.id + GROWN.format(2, 1),), "it was not ready after 5m")
    assert told(one, late, 310.0) == [StopPods(gang.id, 1, late.pods, 30.0)]
    assert due_timers(one.live(), one.clusters, 311.0, 300.0) == ([], None)


def test_a_pod_on_its_way_that_vanished_is_given_back_and_one_given_back_is_not_missed() -> None:
    one, gang = grown()
    late = gang.id + GROWN.format(2, 1)
    one.handle(ev.PodSeen(gang.id, 1, late, "uid"), 11.0)
    heartbeats = Heartbeats(0.0)
    heartbeats.record_observation(one, [late], [], 12.0)
    (missed,), _ = heartbeats.missed(one, 100.0, 60.0)
    assert told(one, missed, 100.0) == [StopPods(gang.id, 1, (late,), 30.0)]
    assert heartbeats.missed(one, 1000.0, 60.0) == ([], None)
    assert told(one, missed, 1000.0) == []
    assert live(one, gang).phase is AttemptPhase.RUNNING


def shrunk() -> tuple[State, Job, Job, tuple[str, ...]]:
    """A gang of three that was told to give two back to a job that waits."""
    one = state([cluster(node("n", cpus=3))])
    gang = elastic(one)
    cycle(one, 0.0)
    start_all(one, gang.id)
    waits = submit(one, cpus=2, at=10.0)
    (stop,) = cycle(one, 10.0).instructions
    assert isinstance(stop, StopPods)
    return one, gang, waits, stop.pods


def test_the_charge_falls_when_a_pod_has_ended_and_its_end_is_no_failure() -> None:
    one, gang, waits, going = shrunk()
    assert [name.removeprefix(gang.id) for name in going] == ["-1-worker-1", "-1-worker-2"]
    assert live(one, gang).charge["cpu"] == 3000
    assert told(one, ev.PodEnded(gang.id, 1, going[0], 143, "Stopped", {"out": "sha"}), 11.0) == []
    assert told(one, ev.PodEnded(gang.id, 1, going[1], 1, "Error"), 11.0) == []
    attempt = live(one, gang)
    assert (attempt.phase, attempt.charge["cpu"], len(attempt.members)) == (AttemptPhase.RUNNING, 1000, 1)
    assert attempt.of_rank(1) == attempt.left[0]
    assert (attempt.left[0].outputs, attempt.left[0].given_back_why) == ({"out": "sha"}, "given back to a job that waits for room")
    cycle(one, 12.0)
    assert (one.jobs[waits.id].phase, one.jobs[gang.id].phase) == (JobPhase.ACTIVE, JobPhase.ACTIVE)


def test_no_more_is_given_back_while_the_first_are_on_their_way_out() -> None:
    one = state([cluster(node("n", cpus=4))])
    gang = elastic(one, 4)
    cycle(one, 0.0)
    start_all(one, gang.id)
    submit(one, cpus=1, at=10.0)
    assert len(cycle(one, 10.0).instructions) == 1
    assert cycle(one, 11.0).instructions == []
    assert sum(pod.is_given_back for pod in live(one, gang).pods) == 1


def test_nor_for_a_guaranteed_share() -> None:
    queues = (queue("main", guaranteed={"cpu": 2}), queue("lender", guaranteed={"cpu": 2}))
    one = state([cluster(node("n", cpus=4))], queues)
    gang = elastic(one, 4)
    cycle(one, 0.0)
    start_all(one, gang.id)
    submit(one, queue="lender", cpus=1, at=10.0)
    (stop,) = cycle(one, 10.0).instructions
    assert isinstance(stop, StopPods)
    assert cycle(one, 11.0).instructions == []


@pytest.mark.feature("S16")
def test_what_grew_over_its_share_gives_back_to_whom_it_is_guaranteed_although_its_start_was_within() -> None:
    queues = (queue("root", max={"cpu": 2}), queue("main", parent="root", guaranteed={"cpu": 1}))
    one = state([cluster(node("n", cpus=8))], (*queues, queue("lender", parent="root", guaranteed={"cpu": 1})))
    other = submit(one, queue="lender")
    cycle(one, 0.0)
    start_all(one, other.id)
    gang = elastic(one, 2)
    cycle(one, 1.0)
    start_all(one, gang.id)
    assert (names(one, gang), live(one, gang).is_borrowed) == (["-1-worker-0"], False)
    end_pod(one, other.id, 0, 0, at=5.0)
    cycle(one, 6.0)
    assert live(one, gang).is_borrowed
    worker = started(one, gang, 1)
    submit(one, queue="lender", at=10.0)
    assert cycle(one, 10.0).instructions == [StopPods(gang.id, 1, (worker,), 30.0)]


def test_nobody_grows_into_room_that_is_being_fetched_for_another() -> None:
    """Four CPUs may be used: the gang has one and another borrower two when the lender asks for its three."""
    queues = (queue("root", max={"cpu": 4}), queue("main", parent="root"), queue("lender", parent="root", guaranteed={"cpu": 3}))
    one = state([cluster(node("n", cpus=8))], queues)
    filler, other = submit(one, queue="main"), submit(one, cpus=2, queue="main")
    cycle(one, 0.0)
    for each in (filler, other):
        start_all(one, each.id)
    gang = elastic(one)
    cycle(one, 1.0)
    start_all(one, gang.id)
    end_pod(one, filler.id, 0, 0, at=5.0)
    claimant = submit(one, cpus=3, queue="lender", at=5.0)
    decision = schedule(one.snapshot(), 5.0)
    assert [(stop.job_id, stop.by) for stop in decision.preempted] == [(other.id, claimant.id)]
    assert decision.grown == ()
    # Nor while it is on its way: what was told to stop still counts against the limit for which the other waits.
    cycle(one, 5.0)
    for at in (6.0, 7.0):
        assert schedule(one.snapshot(), at).events == ()
    end_pod(one, other.id, 0, 143, at=8.0)
    (admitted,) = schedule(one.snapshot(), 8.0).events
    assert isinstance(admitted, ev.GangAdmitted)
    assert admitted.job_id == claimant.id


def test_a_gang_under_another_limit_grows_beside_one_that_waits_for_its_own() -> None:
    queues = (queue("root", max={"cpu": 6}), queue("main", parent="root"), queue("small", parent="root", max={"cpu": 1}))
    one = state([cluster(node("n", cpus=8))], queues)
    filler = submit(one, cpus=5, queue="main")
    cycle(one, 0.0)
    start_all(one, filler.id)
    gang = elastic(one)
    cycle(one, 1.0)
    start_all(one, gang.id)
    submit(one, cpus=1, queue="small")
    end_pod(one, filler.id, 0, 0, at=5.0)
    cycle(one, 5.0)
    submit(one, cpus=1, queue="small", at=6.0)
    cycle(one, 6.0)
    assert len(names(one, gang)) == 3


def at_the_limit(*others: Any) -> tuple[State, Job]:
    """A gang of three that has grown up to the limit of its queue on a node with room to spare."""
    queues = (queue("root"), queue("main", parent="root", max={"cpu": 3}), queue("free", parent="root"))
    one = state([cluster(node("n", cpus=8)), *others], queues)
    gang = elastic(one)
    cycle(one, 0.0)
    start_all(one, gang.id)
    return one, gang


@pytest.mark.feature("S16")
def test_workers_go_to_a_job_that_waits_for_the_limit_they_use_and_come_back_after_it() -> None:
    one, gang = at_the_limit()
    waits = submit(one, queue="main", cpus=1, at=1.0)
    turn = cycle(one, 1.0)
    worker = f"{gang.id}-1-worker-2"
    assert turn.instructions == [StopPods(gang.id, 1, (worker,), 30.0)]
    assert live(one, gang).pods[-1].given_back_why == "given back to a job that waits for quota of queue main"
    assert one.waits[waits.id].why is Why.QUOTA
    assert cycle(one, 2.0).instructions == [], "what was told to go is enough"
    told(one, ev.PodEnded(gang.id, 1, worker, 143, "Stopped"), 3.0)
    assert cycle(one, 3.0).instructions == [LaunchGang(waits.id, 1)]
    start_all(one, waits.id, at=3.0)
    assert schedule(one.snapshot(), 4.0).events == ()
    end_pod(one, waits.id, 0, 0, at=5.0)
    assert cycle(one, 5.0).instructions == [LaunchGang(gang.id, 1)]
    assert len(names(one, gang)) == 3


def test_a_limit_further_up_is_shared_with_other_queues() -> None:
    queues = (queue("root", max={"cpu": 3}), queue("main", parent="root"), queue("other", parent="root"))
    one = state([cluster(node("n", cpus=8))], queues)
    gang = elastic(one)
    cycle(one, 0.0)
    start_all(one, gang.id)
    waits = submit(one, queue="other", cpus=2, at=1.0)
    (shrunk,) = schedule(one.snapshot(), 1.0).events
    assert isinstance(shrunk, ev.GangShrunk)
    assert (shrunk.job_id, len(shrunk.pods)) == (gang.id, 2)
    assert one.jobs[waits.id].phase is JobPhase.QUEUED


@pytest.mark.parametrize(("cpus", "taken"), [(3, 0), (2, 6)])
def test_nobody_gives_workers_back_in_vain(cpus: int, taken: int) -> None:
    """One keeps its last worker, so that a job of three cores has no quota; one of two cores would have no room."""
    one, gang = at_the_limit()
    if taken:
        # The rest of the node, and a core of the two that would be given back is not enough for two.
        blocker = submit(one, queue="free", cpus=5)
        cycle(one, 0.5)
        start_all(one, blocker.id)
        one.handle(ev.ClusterObserved(cluster(node("n", cpus=7))), 0.6)
    submit(one, queue="main", cpus=cpus, at=1.0)
    assert schedule(one.snapshot(), 1.0).shrunk == ()
    assert len(names(one, gang)) == 3


@pytest.mark.parametrize("limit", [4, 5])
def test_nobody_grows_into_quota_that_a_job_needs_which_waits_for_room_elsewhere(limit: int) -> None:
    queues = (queue("root", max={"cpu": limit}), queue("main", parent="root"), queue("other", parent="root"))
    one = state([cluster(node("n", cpus=4), name="here"), cluster(node("m", cpus=1), name="there")], queues)
    blocker, filler = submit(one, queue="other", cluster="there"), submit(one, queue="main", cpus=limit - 2, cluster="here")
    cycle(one, 0.0)
    for each in (blocker, filler):
        start_all(one, each.id)
    pods = (PodRequest(role="worker", count=3, min_count=1),)
    gang = submit(one, queue="main", pods=pods, cluster="here", at=1.0)
    cycle(one, 1.0)
    start_all(one, gang.id)
    waits = submit(one, queue="other", cpus=1, cluster="there", at=2.0)
    cycle(one, 2.0)
    assert one.waits[waits.id].why is Why.QUOTA
    end_pod(one, filler.id, 0, 0, at=3.0)
    cycle(one, 3.0)
    assert one.waits[waits.id].why is Why.NO_ROOM
    # One core is in use elsewhere and one is waited for; the gang may have the rest of the limit.
    assert len(names(one, gang)) == limit - 2
    one.check_invariants()


def small_on_two_clusters() -> tuple[State, Job, Job]:
    """A gang that has one worker on a cluster of three cores, and the job that has the other two; a second cluster."""
    one = state([cluster(node("n", cpus=3), name="here"), cluster(node("m", cpus=2), name="there")])
    other = submit(one, cpus=2, cluster="here")
    pods = (PodRequest(role="worker", count=3, min_count=1),)
    gang = submit(one, pods=pods, cluster="here")
    cycle(one, 0.0)
    for each in (other, gang):
        start_all(one, each.id)
    assert names(one, gang) == ["-1-worker-0"]
    return one, gang, other


def test_a_job_that_can_never_start_keeps_nobody_from_growing() -> None:
    one, gang, other = small_on_two_clusters()
    submit(one, cpus=3, cluster="here")
    cycle(one, 1.0)
    # The node comes back smaller: what was submitted for the larger one fits nowhere any more.
    one.handle(ev.ClusterObserved(cluster(node("n", cpus=2), name="here")), 2.0)
    end_pod(one, other.id, 0, 0, at=3.0)
    turn = cycle(one, 3.0)
    assert [wait.why for wait in one.waits.values()] == [Why.NEVER_FITS]
    assert turn.instructions == [LaunchGang(gang.id, 1)]
    assert len(names(one, gang)) == 2


def test_nor_does_one_that_waits_for_a_cluster_that_does_not_answer() -> None:
    one, gang, other = small_on_two_clusters()
    one.handle(ev.ClusterLost("there"), 1.0)
    submit(one, cpus=1, cluster="there")
    end_pod(one, other.id, 0, 0, at=3.0)
    cycle(one, 3.0)
    assert [wait.why for wait in one.waits.values()] == [Why.CLUSTER_DOWN]
    assert len(names(one, gang)) == 3


@pytest.mark.parametrize(("where", "size"), [("there", 3), (None, 1)])
def test_one_that_waits_for_room_keeps_those_from_growing_whose_room_it_could_use(where: str | None, size: int) -> None:
    one, gang, other = small_on_two_clusters()
    # Two cores on the other cluster are taken; one that may go to either waits for three on this one.
    blocker = submit(one, cpus=2, cluster="there")
    cycle(one, 1.0)
    start_all(one, blocker.id)
    submit(one, cpus=2 if where else 3, cluster=where)
    end_pod(one, other.id, 0, 0, at=3.0)
    cycle(one, 3.0)
    assert [wait.why for wait in one.waits.values()] == [Why.NO_ROOM]
    assert len(names(one, gang)) == size


def test_a_rank_comes_again_as_another_pod_and_one_that_had_done_its_work_does_not() -> None:
    one, gang, waits, going = shrunk()
    told(one, ev.PodEnded(gang.id, 1, going[0], 0, "Completed"), 11.0)
    told(one, ev.PodEnded(gang.id, 1, going[1], 0, "Stopped"), 11.0)
    cycle(one, 12.0)
    end_pod(one, waits.id, 0, 0, at=13.0)
    cycle(one, 14.0)
    assert names(one, gang) == ["-1-worker-0", "-1-worker-2-g1"]


def test_the_last_to_end_may_be_one_that_was_given_back() -> None:
    one, gang, _, going = shrunk()
    told(one, ev.PodEnded(gang.id, 1, going[0], 143, "Stopped"), 11.0)
    told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-worker-0", 0, "Completed"), 12.0)
    assert one.jobs[gang.id].phase is JobPhase.ACTIVE
    assert live(one, gang).phase is AttemptPhase.STOPPING
    told(one, ev.PodEnded(gang.id, 1, going[1], 143, "Stopped"), 13.0)
    told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-master", 0, "Completed"), 13.0)
    attempt = one.attempts[gang.id, 1]
    assert (one.jobs[gang.id].phase, attempt.phase, attempt.exit_code) == (JobPhase.SUCCEEDED, AttemptPhase.SUCCEEDED, 0)
    assert [pod.rank for pod in attempt.left] == [1, 2]


def test_a_gang_whose_last_member_on_its_way_never_starts_has_succeeded() -> None:
    one, gang = grown()
    for rank in (1, 2):
        told(one, ev.PodEnded(gang.id, 1, gang.id + GROWN.format(rank, 1), 143, "NeverStarted"), 12.0)
        if rank == 1:
            told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-worker-0", 0, "Completed"), 12.0)
    assert live(one, gang).phase is AttemptPhase.STOPPING
    assert told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-master", 0, "Completed"), 13.0) == [ForgetPods(gang.id, 1)]
    assert one.jobs[gang.id].phase is JobPhase.SUCCEEDED


def test_a_cancel_meanwhile_ends_all_of_it() -> None:
    one, gang, _, going = shrunk()
    one.handle(ev.JobCancelRequested(gang.id, "ann"), 11.0)
    for name in (*going, f"{gang.id}-1-worker-0", f"{gang.id}-1-master"):
        told(one, ev.PodEnded(gang.id, 1, name, 143, "Stopped"), 12.0)
    assert (one.jobs[gang.id].phase, one.live()) == (JobPhase.CANCELLED, [])


def test_what_was_committed_and_not_carried_out_is_done_again() -> None:
    one, gang = grown()
    first = [PodState(gang.id, 1, pod.name, pod.uid or "", PodPhase.RUNNING) for pod in live(one, gang).pods[:2]]
    assert list(instructions_to_repeat(one, "here", first)) == [LaunchGang(gang.id, 1)]
    told(one, ev.GrowthFailed(gang.id, 1, (gang.id + GROWN.format(1, 1), gang.id + GROWN.format(2, 1)), "no room"), 12.0)
    (stop,) = instructions_to_repeat(one, "here", first)
    assert stop == StopPods(gang.id, 1, (gang.id + GROWN.format(1, 1), gang.id + GROWN.format(2, 1)), 30.0)
    one.handle(ev.JobCancelRequested(gang.id, "ann"), 13.0)
    assert [type(each) for each in instructions_to_repeat(one, "here", first)] == [StopGang]


def test_the_plan_makes_what_joins_and_nothing_that_was_given_back() -> None:
    one, gang = grown()
    addresses, keys = Addresses("http://here", None, ""), Secrets(b"k" * 32)
    plan = plan_of(one.jobs[gang.id], live(one, gang), keys, addresses, 300.0)
    assert [(pod.rank, pod.was_made, pod.joins) for pod in plan.pods] == [
        (-1, True, False), (0, True, False), (1, False, True), (2, False, True),
    ]  # fmt: skip
    assert (plan.min_members, plan.max_members, plan.is_growth) == (1, 3, True)
    told(one, ev.GrowthFailed(gang.id, 1, (gang.id + GROWN.format(2, 1),), "no room"), 12.0)
    again = plan_of(one.jobs[gang.id], live(one, gang), keys, addresses, 300.0)
    assert [(pod.rank, pod.was_made) for pod in again.pods] == [(-1, True), (0, True), (1, False), (2, True)]
    assert (again.digest, again.pods[2].digest) == (plan.digest, plan.pods[2].digest)


def test_news_of_a_pod_that_left_changes_nothing() -> None:
    one, gang, _, going = shrunk()
    told(one, ev.PodEnded(gang.id, 1, going[1], 143, "Stopped"), 11.0)
    assert list(pod_events(one, PodState(gang.id, 1, going[1], f"uid-{going[1]}", PodPhase.ENDED, 143, "Stopped"))) == []


def test_a_pod_that_left_and_is_shown_alive_is_stopped_again() -> None:
    one, gang, _, going = shrunk()
    told(one, ev.PodEnded(gang.id, 1, going[1], None, "Lost"), 11.0)
    alive = [PodState(gang.id, 1, name, f"uid-{name}", PodPhase.RUNNING) for name in (f"{gang.id}-1-worker-0", going[1])]
    assert list(orphan_cleanups(one, "here", alive)) == [StopPods(gang.id, 1, (going[1],), ORPHAN_GRACE_S)]
    assert list(orphan_cleanups(one, "here", alive[:1])) == []


def test_a_decision_is_sought_while_a_gang_lacks_pods_and_not_otherwise() -> None:
    one, gang = grown()
    assert not one.has_demand()
    told(one, ev.PodEnded(gang.id, 1, gang.id + GROWN.format(2, 1), None, "Lost"), 12.0)
    assert one.has_demand()


def test_an_attempt_remembers_the_last_that_left_and_all_that_had_done_their_work() -> None:
    one = state([Cluster("here", "fake")])
    gang = elastic(one)
    done = Pod("done", "worker", 1, "here", "n", Resources.of({}), phase=PodPhase.ENDED, exit_code=0, reason="Completed")
    attempt = Attempt(gang.id, 1, AttemptPhase.RUNNING, "here", (done,), Resources.of({}), 0.0, 1)
    attempt = without_pod(attempt, "done")
    for number in range(LEFT_KEPT + 5):
        gone = replace(done, name=f"gone{number}", exit_code=143, reason="Stopped")
        attempt = without_pod(replace(attempt, pods=(gone,), charge=attempt.charge), gone.name)
    assert (len(attempt.left), attempt.left[0].name, attempt.left[-1].name) == (LEFT_KEPT + 1, "done", f"gone{LEFT_KEPT + 4}")


def test_a_gang_of_a_queue_that_moved_away_is_given_no_more_pods_on_its_old_cluster() -> None:
    for clusters, more in (((), 2), (("west",), 0)):
        one = state([cluster(node("e", cpus=3), name="east")])
        other = submit(one, cpus=2)
        cycle(one, 0.0)
        start_all(one, other.id)
        job = elastic(one)
        cycle(one, 0.0)
        start_all(one, job.id)
        one.handle(ev.QueuesConfigured((queue("main", clusters=clusters),)), 1.0)
        end_pod(one, other.id, 0, 0, 2.0, "Completed")
        decision = schedule(one.snapshot(), 2.0)
        assert sum(len(grown.placements) for grown in decision.grown) == more
