"""Servers of the hub in the ledger: a charge that lives as long as the server, and that silence ends only before and after it."""

from dataclasses import replace
from typing import Any

import pytest

from tests import builders as b
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.kinds.notebook import TTL_S, events_of_report, request_of
from tuttilab.scheduler.core.rows.lifecycle import due_timers
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import AboveMax, Forbidden
from tuttilab.scheduler.domain.model import AttemptPhase, Job, JobPhase, Profile
from tuttilab.scheduler.domain.requests import JobRequest, NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.scheduler.domain.wire import to_json
from tuttilab.scheduler.service.notebook_leases import NotebookLeases
from tuttilab.scheduler.service.reconcile import instructions_to_repeat
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.usecases.notebooks import apply_renewal, build_server, refusal_of, submit_server

RUNNING = RenewRequest(phase="running")
ENDED = RenewRequest(phase="ended", exit_code=0)


def site_of(state: State) -> Site:
    return Site(state.queues, state.clusters, "main")


def hub_state(gpus: int = 4, **given: Any) -> State:
    """One queue of at most two GPUs, and the profile `gpu` of one GPU, `pair` of two."""
    state = b.state([b.cluster(b.node("a", cpus=64, gpus=gpus))], [b.queue(max={"nvidia.com/gpu": 2}, **given)])
    for name, count in (("gpu", 1), ("pair", 2), ("huge", 3)):
        body = to_json(ProfileRequest(name=name, gpus=count)).decode()
        state.handle(ev.ProfileApplied(Profile(name, body, "root", 0.0)), 0.0)
    return state


def start(state: State, owner: str = "ann", profile: str = "gpu", server: str = "", at: float = 0.0) -> Job:
    asked = NotebookRequest(owner=owner, groups=("research",), server=server, profile=profile)
    number = len(state.jobs) + 1
    job = build_server(asked, state, site_of(state), job_id=f"nb{number}", order=number, now=at)
    turn = Turn(state, at)
    placed = submit_server(turn, job)
    turn.apply_decision(schedule(turn.state.snapshot(), turn.now), turn.state.version)
    return state.jobs[placed.id]


def say(state: State, job: Job, said: RenewRequest, at: float = 0.0) -> None:
    apply_renewal(Turn(state, at), state.jobs[job.id], said)
    state.check_invariants()


def use(state: State) -> int:
    return state.use("main")["nvidia.com/gpu"]


def test_server_is_charged_from_its_admission_to_its_end() -> None:
    state = hub_state()

    job = start(state)
    assert (job.phase, use(state)) == (JobPhase.ACTIVE, 1)

    say(state, job, RUNNING)
    attempt = state.live_attempt(job.id)
    assert attempt is not None
    assert (attempt.phase, use(state)) == (AttemptPhase.RUNNING, 1)

    say(state, job, ENDED)
    assert (state.jobs[job.id].phase, use(state)) == (JobPhase.SUCCEEDED, 0)


def test_what_the_hub_repeats_changes_nothing() -> None:
    state = hub_state()
    job = start(state)
    say(state, job, RUNNING)

    assert list(events_of_report(job, state.live_attempt(job.id), RUNNING)) == []
    assert list(events_of_report(job, state.live_attempt(job.id), RenewRequest(phase="waiting"))) == []


def test_server_that_crashed_has_failed_and_does_not_come_back() -> None:
    state = hub_state()
    job = start(state)
    say(state, job, RUNNING)

    say(state, job, RenewRequest(phase="ended", exit_code=137))

    ended = state.jobs[job.id]
    assert (ended.phase, ended.reason, ended.exit_code) == (JobPhase.FAILED, "it was killed by SIGKILL", 137)
    assert state.queued() == []


@pytest.mark.feature("N12")
def test_server_that_did_not_start_has_failed_with_what_the_hub_says() -> None:
    state = hub_state()
    job = start(state)

    say(state, job, RenewRequest(phase="ended", exit_code=1, reason="image 'x' cannot be pulled on this cluster"))

    ended = state.jobs[job.id]
    assert (ended.phase, ended.exit_code) == (JobPhase.FAILED, 1)
    assert ended.reason == "image 'x' cannot be pulled on this cluster"
    assert (state.queued(), use(state)) == ([], 0)


@pytest.mark.parametrize("profile", ["gpu", "pair"])
def test_server_that_never_ran_leaves_nothing(profile: str) -> None:
    state = hub_state()
    job = start(state, profile=profile)

    say(state, job, ENDED)

    assert (state.jobs[job.id].phase, use(state)) == (JobPhase.CANCELLED, 0)


def test_server_that_waits_leaves_its_queue() -> None:
    state = hub_state()
    start(state, "amy", "pair")
    job = start(state)
    assert job.phase is JobPhase.QUEUED

    say(state, job, ENDED)

    assert state.jobs[job.id].phase is JobPhase.CANCELLED


def test_cancelled_server_holds_its_charge_until_the_hub_has_stopped_it() -> None:
    state = hub_state()
    job = start(state)
    say(state, job, RUNNING)

    state.handle(ev.JobCancelRequested(job.id, "ann"), 5.0)
    assert use(state) == 1

    say(state, job, ENDED)
    assert (state.jobs[job.id].phase, use(state)) == (JobPhase.CANCELLED, 0)


def test_lost_server_is_not_queued_again() -> None:
    state = hub_state()
    job = start(state)
    say(state, job, RUNNING)

    state.handle(ev.HeartbeatMissed(job.id, 1, f"{job.id}-1-notebook-0"), 5.0)
    b.end_all(state, job.id, None, 6.0)

    assert state.jobs[job.id].phase is JobPhase.CANCELLED


# --- silence ---------------------------------------------------------------------------------------------------------


def expired(state: State, leases: NotebookLeases, at: float) -> list[str]:
    due, _ = leases.expired(state, at)
    for event in due:
        state.handle(event, at)
    state.check_invariants()
    return [event.job_id for event in due]


@pytest.mark.parametrize("is_full", [True, False], ids=["waits", "starts"])
def test_server_that_nobody_waits_for_is_given_up_after_ten_minutes(is_full: bool) -> None:
    state, leases = hub_state(), NotebookLeases()
    if is_full:
        say(state, start(state, "amy", "pair"), RUNNING)
    job = start(state, at=100.0)
    leases.renew(job.id, 100.0)

    assert leases.expired(state, 100.0 + TTL_S - 1) == ([], 100.0 + TTL_S)
    leases.renew(job.id, 200.0)
    assert expired(state, leases, 100.0 + TTL_S) == []
    assert expired(state, leases, 200.0 + TTL_S) == [job.id]

    ended = state.jobs[job.id]
    assert (ended.phase, ended.reason) == (JobPhase.CANCELLED, "nobody waited for it any more")
    assert use(state) == (2 if is_full else 0)


def test_server_that_runs_is_never_given_up_for_silence() -> None:
    state, leases = hub_state(), NotebookLeases()
    job = start(state)
    leases.renew(job.id, 0.0)
    say(state, job, RUNNING)

    assert leases.expired(state, 1e9) == ([], None)
    assert state.handle(ev.NotebookExpired(job.id), 1e9) == []
    assert use(state) == 1


def test_stop_is_waited_for_from_when_it_was_asked_for() -> None:
    state, leases = hub_state(), NotebookLeases()
    job = start(state)
    leases.renew(job.id, 0.0)
    say(state, job, RUNNING)
    state.handle(ev.JobCancelRequested(job.id, "ann"), 5000.0)

    assert expired(state, leases, 5000.0 + TTL_S - 1) == []
    assert expired(state, leases, 5000.0 + TTL_S) == [job.id]
    assert use(state) == 0


def test_every_server_counts_as_just_renewed_after_a_restart() -> None:
    state = hub_state()
    waiting = start(state, "amy", "pair")
    again = State.load(state.jobs.values(), state.attempts.values(), state.queues.values(), 2, profiles=state.profiles.values())
    leases = NotebookLeases()

    leases.reset(again, 9000.0)

    assert again.use("main")["nvidia.com/gpu"] == 2
    assert leases.expires_at(waiting.id, again.live_attempt(waiting.id)) == 9000.0 + TTL_S


def test_no_cluster_and_no_barrier_is_asked_about_a_server() -> None:
    state = hub_state()
    job = start(state)

    assert list(instructions_to_repeat(state, "here", [])) == []
    assert due_timers(state.live(), state.clusters, 1e9, 300.0) == ([], None)
    state.handle(ev.JobCancelRequested(job.id, "ann"), 0.0)
    assert list(instructions_to_repeat(state, "here", [])) == []


# --- who may have what -----------------------------------------------------------------------------------------------


def test_hub_that_lost_its_start_finds_the_place_kept() -> None:
    state = hub_state()
    start(state, "amy", "pair")
    first = start(state)
    start(state, "abe")

    assert start(state).id == first.id


def test_other_wish_for_the_same_server_takes_the_place_of_the_first() -> None:
    state = hub_state()
    first = start(state)

    second = start(state, profile="pair")

    assert (state.jobs[first.id].phase, state.jobs[second.id].phase) == (JobPhase.CANCELLED, JobPhase.ACTIVE)
    assert use(state) == 2


def test_named_servers_are_jobs_of_their_own() -> None:
    state = hub_state()
    first, second = start(state), start(state, server="two")

    assert (first.name, second.name, use(state)) == ("notebook", "notebook two", 2)


@pytest.mark.feature("N04")
def test_refusal_names_what_is_asked_free_and_held_in_ones_own_group() -> None:
    state = hub_state(groups=("research", "quant"))
    say(state, start(state, "amy"), RUNNING)
    job = start(state, profile="pair")

    assert refusal_of(state, job, ("research",)) == (
        "asks for 2 GPU; queue main has 1 of 2 GPU free; notebook server 'notebook' of amy holds 1 GPU"
    )
    stranger = replace(job, owner="zoe")
    assert refusal_of(state, stranger, ("other",)) == "asks for 2 GPU; queue main has 1 of 2 GPU free; other groups hold 1 GPU"


@pytest.mark.feature("N04")
def test_more_than_the_max_is_refused_at_once_with_what_is_free() -> None:
    state = hub_state()
    say(state, start(state), RUNNING)

    with pytest.raises(AboveMax) as refused:
        start(state, profile="huge", server="two")

    assert str(refused.value) == (
        "notebook two: asks for 3 GPU, but queue 'main' may never use more than 2 GPU; ask for less or use another queue. "
        "Now queue main has 1 of 2 GPU free; your notebook server 'notebook' holds 1 GPU (stop it on the hub to free it)."
    )
    assert len(state.jobs) == 1


def test_only_the_hub_submits_servers() -> None:
    request = JobRequest(kind="notebook")

    with pytest.raises(Forbidden, match="a notebook server is started on the hub"):
        build(request, Who("ann", ("research",)), site_of(hub_state()), job_id="x", order=1, now=0.0)


def test_user_without_a_queue_is_told_so() -> None:
    state = hub_state(groups=("research",))
    asked = request_of(NotebookRequest(owner="zoe"), ProfileRequest(name="gpu"), None)

    with pytest.raises(Forbidden, match="you are in no group that has one"):
        build(asked, Who("zoe", is_hub=True), site_of(state), job_id="x", order=1, now=0.0)


@pytest.mark.feature("N20")
def test_profile_is_replaced_and_deleted() -> None:
    state = hub_state()
    state.take_changes()
    state.handle(ev.ProfileApplied(Profile("gpu", "{}", "root", 1.0)), 1.0)
    state.handle(ev.ProfileDeleted("pair"), 1.0)
    state.handle(ev.ProfileDeleted("unknown"), 1.0)

    changes = state.take_changes()

    assert [profile.body for profile in changes.profiles] == ["{}"]
    assert changes.deleted_profiles == ("pair",)
    assert sorted(state.profiles) == ["gpu", "huge"]


def test_server_is_charged_what_its_profile_says() -> None:
    state = hub_state()
    (charge,) = [one.resources for one in state.charges()] if start(state) else []

    assert charge == Resources.parse({"cpu": 1, "memory": "2Gi", "nvidia.com/gpu": 1})
