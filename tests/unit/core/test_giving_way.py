"""An idle Spark session gives way to other work of its owner that waits for what it holds; only then, and to nobody else."""

from dataclasses import replace

import pytest

from tests.builders import ANN, cluster, end_all, node, start_all, state, submit
from tuttilab.scheduler.core.cycle import Decision, schedule
from tuttilab.scheduler.core.kinds import Site, build, spark
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction, StopGang
from tuttilab.scheduler.domain.model import AttemptPhase, Job, JobPhase, StopReason
from tuttilab.scheduler.domain.requests import SparkRequest, Who
from tuttilab.scheduler.domain.resources import CPU

BEN = Who("ben", ("research",))


@pytest.fixture
def machine() -> State:
    return state([cluster(node("n", cpus=2, memory="8Gi"))])


def decide(of: State, at: float = 0.0) -> tuple[Decision, list[Instruction]]:
    """Run a cycle and apply its events, as the service does."""
    decision = schedule(of.snapshot(), at)
    return decision, [instruction for event in decision.events for instruction in of.handle(event, at)]


def session(of: State, who: Who = ANN, *, name: str = "default", keep: bool = False, cpus: int = 1) -> Job:
    """A session that runs and is being used."""
    request = spark.request_of(SparkRequest(name=name, keep=keep, cpus=cpus), "python")
    number = len(of.jobs) + 1000
    one = build(request, who, Site(of.queues, of.clusters), job_id=f"spark{number}", order=number, now=0.0)
    of.handle(ev.JobSubmitted(one), 0.0)
    decide(of)
    start_all(of, one.id)
    tell(of, one, None)
    return one


def tell(of: State, one: Job, idle_since: int | None) -> None:
    attempt = of.live_attempt(one.id)
    assert attempt is not None
    idle = {} if idle_since is None else {spark.IDLE_SINCE: str(idle_since)}
    of.handle(ev.PodOffers(one.id, attempt.number, attempt.members[0].name, {"connect": "127.0.0.1:1", **idle}), 0.0)


def gave_way(of: State, at: float = 100.0) -> list[tuple[str, str]]:
    decision, _ = decide(of, at)
    return [(event.job_id, event.by) for event in decision.gave_way]


def test_an_idle_session_ends_for_its_owners_work_and_is_not_queued_again(machine: State) -> None:
    held = session(machine)
    wanted = submit(machine, cpus=2, name="train")
    assert gave_way(machine) == []  # It is used.
    tell(machine, held, 50)
    decision, instructions = decide(machine, 100.0)
    assert [(event.job_id, event.by) for event in decision.gave_way] == [(held.id, wanted.id)]
    assert StopGang(held.id, 1, held.work.grace_s, StopReason.CANCELLED) in instructions
    assert gave_way(machine) == []  # It ends already.
    end_all(machine, held.id, 0, at=101.0)
    assert machine.jobs[held.id].phase is JobPhase.CANCELLED
    assert machine.attempts[held.id, 1].phase is AttemptPhase.CANCELLED
    assert machine.jobs[held.id].reason == "was idle and gave way to your job train, which waited for what it held"
    decide(machine, 101.0)
    assert machine.jobs[wanted.id].phase is JobPhase.ACTIVE


def test_a_session_stays_for_work_of_others_for_what_fits_beside_it_and_for_what_would_not_fit_without_it(machine: State) -> None:
    tell(machine, session(machine), 50)
    submit(machine, cpus=1)
    assert gave_way(machine) == []
    full = state([cluster(node("n", cpus=4, memory="8Gi"))])
    blocker = submit(full, cpus=2)
    decide(full)
    start_all(full, blocker.id)
    tell(full, session(full), 50)
    submit(full, cpus=4)
    assert gave_way(full) == []
    other = state([cluster(node("n", cpus=2, memory="8Gi"))])
    tell(other, session(other, BEN), 50)
    submit(other, cpus=2)
    assert gave_way(other) == []


def test_the_session_that_is_idle_for_longest_goes_and_only_as_many_as_are_needed() -> None:
    one = state([cluster(node("n", cpus=4, memory="16Gi"))])
    sessions = [session(one, name=name) for name in ("a", "b", "c")]
    for held, since in zip(sessions, (70, 30, 50), strict=True):
        tell(one, held, since)
    wanted = submit(one, cpus=3)
    assert gave_way(one) == [(sessions[1].id, wanted.id), (sessions[2].id, wanted.id)]


def test_a_session_that_is_kept_stays_and_the_wait_says_what_ends_it(machine: State) -> None:
    kept = session(machine, keep=True)
    tell(machine, kept, 50)
    wanted = submit(machine, cpus=2)
    decision, _ = decide(machine, 100.0)
    assert decision.gave_way == ()
    (wait,) = decision.waits
    assert wait.job_id == wanted.id
    assert "held by your Spark session 'default', which you keep (`%spark stop` frees it);" in wait.sentence


def test_the_wait_says_that_a_session_in_use_gives_way_once_it_is_idle(machine: State) -> None:
    session(machine)
    submit(machine, cpus=2)
    (wait,) = decide(machine, 100.0)[0].waits
    ending = "which gives way once idle for 20 s (`%spark stop` frees it now);"
    assert f"held by your Spark session 'default', {ending}" in wait.sentence


def test_a_session_used_since_the_decision_stays(machine: State) -> None:
    held = session(machine)
    wanted = submit(machine, cpus=2)
    tell(machine, held, 50)
    late = ev.SessionGaveWay(held.id, 1, wanted.id, "was idle")
    tell(machine, held, None)
    assert machine.handle(late, 100.0) == []
    assert not machine.jobs[held.id].cancel_requested


@pytest.mark.parametrize(
    ("cpus", "memory", "size"), [(2, "8Gi", (1, "2048Mi")), (1, "1Gi", (1, "1024Mi")), (64, "512Gi", (2, "2048Mi"))]
)
def test_a_session_without_a_size_takes_at_most_half_of_the_machine(cpus: int, memory: str, size: tuple[int, str]) -> None:
    assert spark.default_size([node("n", cpus=cpus, memory=memory), node("small", cpus=0.5, memory="1Gi")]) == size


def test_what_a_pod_publishes_besides_a_number_is_not_an_idle_time(machine: State) -> None:
    held = session(machine)
    attempt = machine.live_attempt(held.id)
    assert attempt is not None
    for text in ("nan", "-1", "1e9", "9" * 400, "²", ""):
        odd = replace(attempt.members[0], endpoints={spark.IDLE_SINCE: text})
        assert spark.idle_since(held, replace(attempt, pods=(odd,))) is None
    assert held.gang.resources[CPU] == 1000
