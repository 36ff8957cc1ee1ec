"""Views of a job, a queue and a Spark session; an event as a sentence; metrics."""

from dataclasses import replace

import pytest

from tests.contract.building import SMALL, a_job, an_attempt, an_ended_job
from tuttilab.scheduler.api.event_text import sentence
from tuttilab.scheduler.api.health import gauges
from tuttilab.scheduler.api.views import is_session_ready, job_view, queue_views, use_views
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import AttemptPhase, Cluster, JobPhase, Node, Queue, StopReason, Wait, Why
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.scheduler.domain.wire import to_json

CPU4 = Resources.of({"cpu": 4000})


def state_of(*jobs_and_attempts: object, **clusters: Cluster) -> State:
    jobs = [one for one in jobs_and_attempts if hasattr(one, "work")]
    attempts = [one for one in jobs_and_attempts if hasattr(one, "pods")]
    queues = (Queue("root", max=CPU4), Queue("research", "root", groups=("research",)))
    state = State.load(jobs, attempts, queues, epoch=77)  # type: ignore[arg-type]  # told apart above
    state.clusters = dict(clusters)
    return state


@pytest.mark.parametrize(
    ("attempt_phase", "shown"),
    [(AttemptPhase.LAUNCHING, "Launching"), (AttemptPhase.RUNNING, "Running"), (AttemptPhase.STOPPING, "Stopping")],
)
def test_phase_is_that_of_the_live_attempt(attempt_phase: AttemptPhase, shown: str) -> None:
    job = a_job(phase=JobPhase.ACTIVE, attempts=2)
    attempts = [an_attempt(job, 1, AttemptPhase.LOST), an_attempt(job, 2, attempt_phase)]

    view = job_view(job, attempts, state_of(job, *attempts))

    assert (view.phase, view.cluster, [a.phase for a in view.attempts]) == (shown, "here", ["Lost", shown])


def test_phase_is_the_jobs_own_when_no_attempt_is_live() -> None:
    job = an_ended_job(phase=JobPhase.FAILED, reason="Error", exit_code=3)
    attempt = an_attempt(job, phase=AttemptPhase.FAILED)

    view = job_view(job, [attempt], state_of())

    assert (view.phase, view.reason, view.exit_code, view.is_ended, view.wait) == ("Failed", "Error", 3, True, None)


def test_waiting_job_shows_its_cause_and_its_charge() -> None:
    job = a_job()
    here = Cluster("here", "fake", sidecar_cost=Resources.of({"cpu": 10}), master_cost=Resources.of({"cpu": 100}))
    state = state_of(job, here=here)
    state.waits[job.id] = Wait(job.id, Why.NO_ROOM, "no node has 1 GPU free", 1, short=Resources.of({"nvidia.com/gpu": 1}))

    view = job_view(job, [], state)

    assert (view.phase, view.reason, view.wait and view.wait.sentence) == ("Queued", "no-room", "no node has 1 GPU free")
    assert view.charge == {"cpu": "3120m", "memory": "4Gi", "nvidia.com/gpu": "2"}
    assert [(p.role, p.count, p.cpus, p.memory, p.gpus) for p in view.pods] == [("worker", 2, "1500m", "2Gi", 1)]


def test_stopping_job_shows_its_reason_and_its_unreachable_cluster() -> None:
    job = a_job(phase=JobPhase.ACTIVE, attempts=1)
    attempt = an_attempt(job, phase=AttemptPhase.STOPPING, stop_reason=StopReason.TIMEOUT)
    state = state_of(job, attempt, here=Cluster("here", "fake", unreachable_since=12.5))

    view = job_view(job, [attempt], state)

    assert (view.reason, view.unreachable_since, view.attempts[0].reason) == ("Timeout", 12.5, "Timeout")


def test_view_of_a_job_holds_nothing_private() -> None:
    job = a_job(phase=JobPhase.ACTIVE, attempts=1)
    attempt = an_attempt(job, epoch=77)
    pod = replace(attempt.pods[0], uid="secret-uid", endpoints={"connect": "10.1.2.3:15002"})
    attempt = replace(attempt, pods=(pod,))

    text = to_json(job_view(job, [attempt], state_of(job, attempt))).decode()

    assert [word for word in ("secret-uid", "epoch", "77", "10.1.2.3", "endpoints") if word in text] == []


def test_queue_counts_include_its_children() -> None:
    waiting, running = a_job(1), a_job(2, phase=JobPhase.ACTIVE, attempts=1)
    state = state_of(waiting, running, an_attempt(running))

    root, research = queue_views(state, Who("ana", ("research",)))

    assert [(q.name, q.waiting, q.running, q.mine) for q in (root, research)] == [("root", 1, 1, False), ("research", 1, 1, True)]
    assert [(use.resource, use.used, use.max_text) for use in root.use] == [
        ("cpu", 3000, "4"),
        ("memory", 2**32, ""),
        ("nvidia.com/gpu", 2, ""),
    ]
    assert not queue_views(state, Who("ben"))[1].mine


def test_use_without_a_limit_shows_no_maximum() -> None:
    (use,) = use_views(CPU4, Resources.of({"cpu": 500}), Resources.of({}))

    assert (use.used_text, use.guaranteed_text, use.max, use.max_text) == ("4", "500m", None, "")


def test_session_is_ready_when_it_runs_and_offers_its_endpoint() -> None:
    job = a_job()
    attempt = an_attempt(job)
    offering = replace(attempt, pods=(replace(attempt.pods[0], endpoints={"connect": "127.0.0.1:1"}),))

    assert [is_session_ready([one]) for one in (attempt, offering)] == [False, True]
    assert not is_session_ready([replace(offering, phase=AttemptPhase.STOPPING)])


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ev.JobSubmitted(a_job(retry_of="old")), "submitted to queue research, as a retry of old"),
        (ev.JobCancelRequested("j", "ben"), "ben asked to cancel"),
        (
            ev.GangAdmitted("j", 2, "here", (ev.Placement("worker", 0, "b"), ev.Placement("worker", 1, "a")), 77),
            "attempt 2: 2 pods admitted to cluster here, nodes a, b",
        ),
        (ev.PodSeen("j", 1, "p", "secret-uid"), "attempt 1: pod p was created"),
        (ev.PodOffers("j", 1, "p", {"connect": "10.1.2.3:1"}), "attempt 1: pod p offers connect"),
        (ev.PodEnded("j", 1, "p", None, "Lost"), "attempt 1: pod p ended, exit code unknown (Lost)"),
        (ev.LaunchFailed("j", 1, "no image", permanent=True), "attempt 1 cannot start: no image (a retry cannot help)"),
        (ev.RunTimedOut("j", 1), "attempt 1: the run-time limit has passed"),
        (ev.JobDeleted("j"), ""),
    ],
)
def test_event_as_a_sentence(event: ev.Event, text: str) -> None:
    assert sentence(event) == text


def test_gauges_escape_special_characters_in_labels() -> None:
    odd = Cluster('a"b\\c\nd', "fake", (Node("n", "x", SMALL),))

    lines = list(gauges(state_of(odd=odd), 5))

    assert 'tuttilab_cluster_reachable{cluster="a\\"b\\\\c\\nd"} 1' in lines
    assert "tuttilab_journal_seq 5" in lines
    assert 'tuttilab_queue_max{queue="root",resource="cpu"} 4000' in lines


def test_B30_a_history_names_members_and_not_ids() -> None:
    job_id = "0123456789abcdefghijklmnop"
    assert sentence(ev.PodStarted(job_id, 1, f"{job_id}-1-worker-0")) == "attempt 1: worker 0 runs"
    assert sentence(ev.PodEnded(job_id, 2, f"{job_id}-2-master", 0)) == "attempt 2: master ended, exit code 0"
    assert sentence(ev.GangShrunk(job_id, 1, (f"{job_id}-1-my-role-3",), "given back")) == "attempt 1: stops my-role 3, given back"
