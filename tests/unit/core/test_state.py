"""Events in, instructions out: how jobs, attempts and pods move, and what late or doubled events do (nothing)."""

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import cluster, end_all, end_pod, node, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.rows.invariants import check as check_invariants
from tuttilab.scheduler.core.rows.lifecycle import due_timers
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import DropJob, ForgetPods, StopGang
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Ends, Job, JobPhase, PodPhase, StopReason
from tuttilab.scheduler.domain.requests import PodRequest


@pytest.fixture
def one() -> State:
    return state([cluster(node("a", cpus=8, gpus=4), node("b", cpus=8))])


def started(one: State, **given: Any) -> Job:
    job = submit(one, **given)
    run_cycle(one)
    start_all(one, job.id)
    return job


def newest(one: State, job: Job) -> Attempt:
    return one.attempts[job.id, one.jobs[job.id].attempts]


def test_a_job_runs_when_user_code_runs_in_every_member(one: State) -> None:
    job = submit(one, workers=2)
    run_cycle(one)
    attempt = newest(one, job)
    assert attempt.phase is AttemptPhase.LAUNCHING
    one.handle(ev.PodStarted(job.id, 1, attempt.members[0].name), 1.0)
    assert newest(one, job).phase is AttemptPhase.LAUNCHING
    one.handle(ev.PodStarted(job.id, 1, attempt.members[1].name), 2.0)
    assert (newest(one, job).phase, newest(one, job).started_at) == (AttemptPhase.RUNNING, 2.0)
    assert one.jobs[job.id].started_at == 2.0


def test_a_gang_succeeds_when_every_member_exited_0_and_the_master_is_told_to_end(one: State) -> None:
    job = started(one, workers=2)
    assert end_pod(one, job.id, 1, 0) == []
    assert end_pod(one, job.id, 0, 0) == [StopGang(job.id, 1, 30.0, StopReason.REQUIRED_DONE)]
    assert end_pod(one, job.id, -1, 0, at=5.0) == [ForgetPods(job.id, 1)]
    ended = one.jobs[job.id]
    assert (ended.phase, ended.exit_code, ended.ended_at) == (JobPhase.SUCCEEDED, 0, 5.0)
    assert one.charges() == []


def test_the_masters_good_end_may_be_seen_before_its_members(one: State) -> None:
    job = started(one, workers=2)
    assert end_pod(one, job.id, -1, 0) == []
    assert end_pod(one, job.id, 0, 0) == []
    assert end_pod(one, job.id, 1, 0) == [ForgetPods(job.id, 1)]
    assert one.jobs[job.id].phase is JobPhase.SUCCEEDED


@pytest.mark.feature("C01")
def test_a_master_that_is_lost_takes_its_gang_with_it(one: State) -> None:
    job = started(one, workers=2)
    assert end_pod(one, job.id, -1, None, reason="Lost") == [StopGang(job.id, 1, 30.0, StopReason.MEMBER_LOST)]


def test_a_member_that_fails_stops_the_gang_and_its_code_is_the_jobs(one: State) -> None:
    job = started(one, workers=2)
    assert end_pod(one, job.id, 1, 3) == [StopGang(job.id, 1, 30.0, StopReason.MEMBER_FAILED)]
    end_pod(one, job.id, 0, 143, reason="Stopped")
    end_pod(one, job.id, -1, 0)
    ended = one.jobs[job.id]
    assert (ended.phase, ended.exit_code, ended.reason) == (JobPhase.FAILED, 3, "worker 1 exited with code 3")


@pytest.mark.parametrize(
    ("code", "reason", "sentence"),
    [
        (3, "Error", "it exited with code 3"),
        (137, "Error", "it was killed by SIGKILL"),
        (255, "Error", "it exited with code 255"),
        (200, "Error", "it exited with code 200"),
        (137, "OOMKilled", "it used more memory than it asked for (1Gi) and was killed; ask for more with --memory"),
        (127, "CommandNotFound", "it could not start: the command does not exist in its environment"),
    ],
)
def test_how_a_pod_ended_is_one_sentence(one: State, code: int, reason: str, sentence: str) -> None:
    job = started(one)
    end_all(one, job.id, code, reason=reason)
    assert (one.jobs[job.id].phase, one.jobs[job.id].reason) == (JobPhase.FAILED, sentence)


def test_a_pod_that_used_too_much_is_told_its_memory_as_people_write_it(one: State) -> None:
    job = started(one, memory="64Mi")
    end_all(one, job.id, 137, reason="OOMKilled")
    assert one.jobs[job.id].reason.startswith("it used more memory than it asked for (64Mi) and was killed")


def test_a_site_says_how_long_the_first_back_off_is(one: State) -> None:
    one.rules = replace(one.rules, back_off_s=2.0)
    job = started(one, retries=1)
    end_all(one, job.id, 1, at=100.0)
    assert one.jobs[job.id].not_before == 102.0


def test_a_failed_job_with_retries_waits_out_its_back_off_and_runs_again(one: State) -> None:
    job = started(one, retries=1)
    end_all(one, job.id, 1, at=100.0)
    queued = one.jobs[job.id]
    assert (queued.phase, queued.failures, queued.not_before) == (JobPhase.QUEUED, 1, 110.0)
    assert run_cycle(one, at=105.0)[0].admitted == ()
    assert one.waits[job.id].sentence == "tries again in 5s: it exited with code 1"
    run_cycle(one, at=110.0)
    start_all(one, job.id, at=111.0)
    end_all(one, job.id, 1, at=120.0)
    assert (one.jobs[job.id].phase, one.jobs[job.id].attempts) == (JobPhase.FAILED, 2)


@pytest.mark.feature("S03")
def test_a_lost_pod_requeues_the_gang_without_using_a_retry(one: State) -> None:
    job = started(one)
    end_all(one, job.id, None, at=10.0, reason="Lost")
    assert newest(one, job).phase is AttemptPhase.LOST
    assert (one.jobs[job.id].phase, one.jobs[job.id].failures) == (JobPhase.QUEUED, 0)


def test_a_job_of_which_something_may_still_run_is_not_started_again(one: State) -> None:
    job = started(one, retries=3)
    end_all(one, job.id, 137, at=10.0, reason="Untraced")
    ended = one.jobs[job.id]
    assert (ended.phase, ended.attempts) == (JobPhase.FAILED, 1)
    assert ended.reason == (
        "it was lost with the processes that watch it, its side-car and keeper, and without a cgroup nobody can say whether "
        "something it started still runs; so it is not started again"
    )


def test_a_gang_that_lost_a_member_is_not_started_again_while_another_may_still_run(one: State) -> None:
    job = started(one, workers=2, retries=3)
    end_pod(one, job.id, 0, None, reason="Lost")
    end_pod(one, job.id, 1, 137, reason="Untraced")
    end_pod(one, job.id, -1, 143, reason="Stopped")
    assert (one.jobs[job.id].phase, one.jobs[job.id].attempts) == (JobPhase.FAILED, 1)


def test_J11_a_queued_job_is_cancelled_at_once_and_a_running_one_when_its_pods_ended(one: State) -> None:
    running, queued = started(one), submit(one)
    assert one.handle(ev.JobCancelRequested(queued.id, "ann"), 1.0) == []
    assert one.jobs[queued.id].phase is JobPhase.CANCELLED
    assert one.handle(ev.JobCancelRequested(running.id, "ann"), 1.0) == [StopGang(running.id, 1, 30.0, StopReason.CANCELLED)]
    assert one.jobs[running.id].phase is JobPhase.ACTIVE
    end_all(one, running.id, 143, reason="Stopped")
    assert (one.jobs[running.id].phase, one.jobs[running.id].reason) == (JobPhase.CANCELLED, "cancelled by ann")


def test_a_cancel_is_heard_while_the_gang_stops_for_another_reason(one: State) -> None:
    job = started(one, workers=2, retries=3)
    end_pod(one, job.id, 0, 1)
    one.handle(ev.JobCancelRequested(job.id, "ann"), 1.0)
    end_pod(one, job.id, 1, 143, reason="Stopped")
    end_pod(one, job.id, -1, 0)
    assert one.jobs[job.id].phase is JobPhase.CANCELLED


def test_past_its_limit_a_job_fails_and_says_so(one: State) -> None:
    job = started(one, timeout="10m", retries=5)
    assert one.handle(ev.RunTimedOut(job.id, 1), 600.0) == [StopGang(job.id, 1, 30.0, StopReason.TIMEOUT)]
    end_all(one, job.id, 143, reason="Stopped")
    assert (one.jobs[job.id].phase, one.jobs[job.id].reason) == (
        JobPhase.FAILED,
        "ran past its limit of 10m; raise --timeout or do less",
    )


def test_five_failed_launches_in_a_row_end_the_job_with_the_last_reason(one: State) -> None:
    job = submit(one)
    for number in range(1, 6):
        run_cycle(one, at=number * 1000.0)
        one.handle(ev.LaunchFailed(job.id, number, "no such image"), number * 1000.0)
        end_all(one, job.id, None, at=number * 1000.0, reason="NeverStarted")
    assert (one.jobs[job.id].phase, one.jobs[job.id].reason) == (JobPhase.FAILED, "could not be launched: no such image")
    assert one.jobs[job.id].attempts == 5


def test_a_wrong_image_ends_the_job_at_once(one: State) -> None:
    job = submit(one)
    run_cycle(one)
    one.handle(ev.LaunchFailed(job.id, 1, "no such image", permanent=True), 1.0)
    end_all(one, job.id, None, reason="NeverStarted")
    assert one.jobs[job.id].phase is JobPhase.FAILED


def test_the_time_of_the_barrier_begins_when_the_cluster_answers_again(one: State) -> None:
    job = submit(one)
    run_cycle(one)
    name = one.attempts[job.id, 1].cluster

    def timers(now: float) -> tuple[list[object], float | None]:
        due, upcoming = due_timers(one.live(), one.clusters, now, 300.0)
        return list(due), upcoming

    assert timers(100.0)[0] == []
    one.handle(ev.ClusterLost(name, "it does not answer"), 100.0)
    assert timers(5000.0) == ([], None)

    one.handle(ev.ClusterBack(name), 6000.0)
    assert timers(6299.0) == ([], 6300.0)
    assert timers(6300.0)[0] == [ev.BarrierTimedOut(job.id, 1)]
    one.handle(ev.ClusterObserved(replace(one.clusters[name], nodes=one.clusters[name].nodes[:1], reachable_since=None)), 6301.0)
    assert timers(6299.0) == ([], 6300.0), "a change of nodes is no outage"


@pytest.mark.feature("S15")
def test_a_barrier_that_stays_shut_releases_everything(one: State) -> None:
    job = submit(one, workers=2)
    run_cycle(one)
    pods = newest(one, job).pods
    one.handle(ev.PodReady(job.id, 1, pods[1].name), 1.0)
    assert one.handle(ev.BarrierTimedOut(job.id, 1), 300.0) == [StopGang(job.id, 1, 30.0, StopReason.BARRIER_TIMEOUT)]
    end_all(one, job.id, None, at=301.0, reason="NeverStarted")
    assert one.jobs[job.id].phase is JobPhase.QUEUED
    assert one.jobs[job.id].reason == f"not all pods were ready after 5m: {pods[2].name}"


def test_parameter_servers_end_with_the_job(one: State) -> None:
    pods = (PodRequest(role="worker", count=1), PodRequest(role="ps", count=1, ends=Ends.WITH_JOB))
    job = started(one, pods=pods)
    assert end_pod(one, job.id, 0, 0) == [StopGang(job.id, 1, 30.0, StopReason.REQUIRED_DONE)]
    end_pod(one, job.id, 1, 143, reason="Stopped")
    end_pod(one, job.id, -1, 0)
    assert (one.jobs[job.id].phase, one.jobs[job.id].exit_code) == (JobPhase.SUCCEEDED, 0)


def test_a_job_after_one_that_failed_is_cancelled_and_says_why(one: State) -> None:
    first = started(one)
    second = submit(one, after=(first.id,))
    third = submit(one, after=(second.id,))
    end_all(one, first.id, 1)
    assert (one.jobs[second.id].phase, one.jobs[second.id].reason) == (
        JobPhase.CANCELLED,
        f"job '{first.name}' ({first.id}), which it comes after, failed",
    )
    assert one.jobs[third.id].reason == f"job '{second.name}' ({second.id}), which it comes after, was cancelled"


@pytest.mark.feature("J09")
def test_I12_an_event_twice_or_late_changes_nothing(one: State) -> None:
    job = started(one)
    pod = newest(one, job).pods[0]
    end_all(one, job.id, 0, at=9.0)
    rows = (dict(one.jobs), dict(one.attempts))
    for late in (
        ev.JobSubmitted(job),
        ev.PodSeen(job.id, 1, pod.name, "other-uid"),
        ev.PodStarted(job.id, 1, pod.name),
        ev.PodEnded(job.id, 1, pod.name, 1, "Error"),
        ev.LaunchFailed(job.id, 1, "late"),
        ev.BarrierTimedOut(job.id, 1),
        ev.RunTimedOut(job.id, 1),
        ev.HeartbeatMissed(job.id, 1, pod.name),
        ev.JobCancelRequested(job.id, "ann"),
        ev.GangAdmitted(job.id, 1, "here", (ev.Placement("worker", 0, "a"),), 1),
    ):
        assert one.handle(late, 10.0) == []
    assert (dict(one.jobs), dict(one.attempts)) == rows


def test_a_pods_identity_never_changes(one: State) -> None:
    job = started(one)
    pod = newest(one, job).pods[0]
    one.handle(ev.PodSeen(job.id, 1, pod.name, "another"), 2.0)
    assert newest(one, job).pods[0].uid == f"uid-{pod.name}"


@pytest.mark.parametrize("stale", ["epoch", "attempt", "node", "cancelled"])
def test_a_stale_admission_is_dropped(one: State, stale: str) -> None:
    job = submit(one, cpus=8)
    (admitted,) = schedule(one.snapshot(), 0.0).admitted
    if stale == "epoch":
        admitted = replace(admitted, epoch=0)
    elif stale == "attempt":
        admitted = replace(admitted, attempt=2)
    elif stale == "node":
        one.handle(ev.ClusterObserved(cluster(node("c"))), 0.0)
    else:
        one.handle(ev.JobCancelRequested(job.id, "ann"), 0.0)
    assert one.handle(admitted, 1.0) == []
    assert one.live() == []


def test_an_ended_job_is_deleted_with_its_attempts_and_a_live_one_is_not(one: State) -> None:
    job = started(one)
    assert one.handle(ev.JobDeleted(job.id), 1.0) == []
    end_all(one, job.id, 0)
    assert one.handle(ev.JobDeleted(job.id), 2.0) == [DropJob(job.id, 1)]
    assert (job.id in one.jobs, (job.id, 1) in one.attempts) == (False, False)
    assert one.take_changes().deleted_jobs == (job.id,)


def test_changes_name_each_row_once_with_its_last_value(one: State) -> None:
    one.take_changes()
    job = started(one)
    changes = one.take_changes()
    assert [(j.id, j.phase) for j in changes.jobs] == [(job.id, JobPhase.ACTIVE)]
    assert [(a.job_id, a.phase) for a in changes.attempts] == [(job.id, AttemptPhase.RUNNING)]
    assert one.take_changes().jobs == ()


def test_J09_a_state_loaded_from_its_rows_goes_on_where_it_was(one: State) -> None:
    job, waiting = started(one, cpus=8), submit(one, workers=2, cpus=8)
    rows = one.take_changes()
    again = State.load(rows.jobs, rows.attempts, one.queues.values(), epoch=2)
    again.clusters = one.clusters
    assert (again.charges(), [j.id for j in again.queued()]) == (one.charges(), [waiting.id])
    assert again.live_attempt(job.id) == one.live_attempt(job.id)
    end_all(again, job.id, 0)
    assert [a.job_id for a in run_cycle(again)[0].admitted] == [waiting.id]
    again.check_invariants()


def test_the_phase_of_a_pod_never_goes_back(one: State) -> None:
    job = started(one)
    pod = newest(one, job).pods[0]
    one.handle(ev.PodReady(job.id, 1, pod.name), 2.0)
    assert newest(one, job).pods[0].phase is PodPhase.RUNNING


@pytest.mark.parametrize(("ran_s", "ends"), [(None, True), (60.0, True), (3600.0, False)])
def test_a_job_that_is_lost_again_and_again_ends_unless_it_runs_for_long_in_between(
    one: State, ran_s: float | None, ends: bool
) -> None:
    job, at = submit(one, retries=0), 0.0
    for number in range(1, 21):
        at += 10_000.0
        run_cycle(one, at)
        assert newest(one, job).number == number
        if ran_s is not None:
            start_all(one, job.id, at)
        end_all(one, job.id, None, at + (ran_s or 0.0), reason="NodeLost")

    found = one.jobs[job.id]
    assert (found.failures, found.attempts) == (0, 20), "no retry is used up"
    assert found.phase is (JobPhase.FAILED if ends else JobPhase.QUEUED)
    if ends:
        assert found.reason == (
            f"was lost 20 times in a row, each time within 1h of its start; the last time: pod {newest(one, job).pods[0].name} was "
            "lost (NodeLost: its node does not answer). See whether what it does brings its nodes down, then submit it again"
        )
    check_invariants(one)


def test_preemptions_are_no_losses(one: State) -> None:
    job = started(one)
    one.handle(ev.GangPreempted(job.id, 1, "another", "for another"), 1.0)
    end_all(one, job.id, 143, reason="Stopped")

    assert (one.jobs[job.id].phase, one.jobs[job.id].losses) == (JobPhase.QUEUED, 0)
