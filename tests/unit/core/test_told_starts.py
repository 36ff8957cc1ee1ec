"""When a waiting gang is told to start: a range with its basis that stays until something moves it, or nothing and why."""

from dataclasses import replace

import numpy as np
import pytest

from tests.builders import cluster, end_all, job, node, queue, start_all, state, submit
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds.spark import SESSION_LABEL
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.core.told.accuracy import FEW_SCORES, KINDS, Accuracy, widened
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Job, JobKind, Prediction, StartForecast, StartKind, Wait, Why
from tuttilab.scheduler.domain.requests import Who

BOB = Who("bob", ("research",))
EVE = Who("eve", ("others",))


def cycle(of: State, at: float) -> None:
    """A cycle as the service does it: what it told is kept."""
    decision = schedule(of.snapshot(), at)
    for event in decision.events:
        of.handle(event, at)
    of.record_decision(decision.waits, at, None, False)


def with_runs(*seconds: float, name: str = "job") -> State:
    """One node of four cores, and earlier runs of a job."""
    one = state([cluster(node("a", cpus=4))])
    for took in seconds:
        run = submit(one, cpus=4, name=name, sidecar=False)
        cycle(one, 0.0)
        start_all(one, run.id, 0.0)
        end_all(one, run.id, 0, took)
    return one


def running(of: State, at: float, **given: object) -> Job:
    run = submit(of, at=at, **{"cpus": 4, "sidecar": False, **given})
    cycle(of, at)
    start_all(of, run.id, at)
    return run


def told(of: State, waiting: Job, at: float) -> Wait:
    cycle(of, at)
    return of.waits[waiting.id]


def told_range(forecast: StartForecast, accuracy: Accuracy) -> tuple[float, float]:
    """Seconds until the earliest and the latest start that would be told of the forecast now."""
    kind = np.array([KINDS.index(forecast.kind)])
    low, high = widened(np.array([forecast.earliest_s]), np.array([forecast.latest_s]), kind, accuracy.factors())
    return float(low[0]), float(high[0])


def shown(wait: Wait) -> tuple[float | None, float | None, str]:
    return wait.earliest, wait.latest, wait.basis


def test_B02_the_told_range_holds_the_end_that_past_runs_predict() -> None:
    one = with_runs(*[600.0] * 8)
    running(one, 1000.0)
    wait = told(one, submit(one, cpus=4, at=1010.0, sidecar=False), 1010.0)
    assert wait.basis == "past run times of 1 job ahead"
    assert wait.earliest is not None
    assert wait.latest is not None
    assert 1010.0 < wait.earliest < 1600.0 < wait.latest < 2200.0


def test_B02_without_past_runs_or_a_limit_no_start_is_told_and_it_says_why() -> None:
    one = state([cluster(node("a", cpus=4))])
    run = running(one, 0.0, name="first")
    wait = told(one, submit(one, cpus=4, at=1.0, sidecar=False), 1.0)
    assert (wait.estimated_start, wait.earliest, wait.latest) == (None, None, None)
    assert wait.basis == f"no start is told: your job 'first' ({run.id[:8]}) has no time limit and no past run to go by"


def test_B02_a_time_limit_is_a_basis() -> None:
    one = state([cluster(node("a", cpus=4))])
    running(one, 0.0, timeout="10m")
    wait = told(one, submit(one, cpus=4, at=1.0, sidecar=False), 1.0)
    assert wait.basis == "time limits of 1 job ahead"
    assert wait.latest is not None
    assert wait.latest >= 600.0


def test_B02_what_was_told_does_not_drift_while_nothing_happens() -> None:
    one = with_runs(400.0, 900.0, 600.0, 300.0, 1200.0, 700.0)
    running(one, 2000.0)
    waiting = submit(one, cpus=4, at=2010.0, sidecar=False)
    first = told(one, waiting, 2010.0)
    assert first.latest is not None
    for at in (2068.0, 2130.0, 2221.0, 2400.0):
        assert shown(told(one, waiting, at)) == shown(first)


def test_B02_a_run_that_outlives_its_estimate_moves_it() -> None:
    one = with_runs(*[600.0] * 8)
    running(one, 1000.0)
    waiting = submit(one, cpus=4, at=1010.0, sidecar=False)
    first = told(one, waiting, 1010.0)
    assert first.latest is not None
    again = told(one, waiting, first.latest + 60.0)
    assert again.latest is None or again.latest > first.latest + 60.0


def test_B02_a_job_ahead_that_is_cancelled_moves_it() -> None:
    one = with_runs(*[3600.0] * 8)
    running(one, 5000.0)
    ahead = [submit(one, cpus=4, at=5010.0, sidecar=False) for _ in range(4)]
    waiting = submit(one, cpus=4, at=5011.0, sidecar=False)
    first = told(one, waiting, 5012.0)
    for each in ahead:
        one.handle(ev.JobCancelRequested(each.id, "ann"), 5020.0)
    again = told(one, waiting, 5020.0)
    assert first.latest is not None
    assert again.latest is not None
    assert again.latest < first.latest
    assert again.basis == "past run times of 1 job ahead"


def test_B02_a_later_job_does_not_move_what_was_told() -> None:
    one = with_runs(*[600.0] * 8)
    running(one, 1000.0)
    waiting = submit(one, cpus=4, at=1010.0, sidecar=False)
    first = told(one, waiting, 1010.0)
    submit(one, cpus=4, at=1020.0, sidecar=False)
    assert shown(told(one, waiting, 1030.0)) == shown(first)


def test_B02_nobody_predicts_when_a_session_ends() -> None:
    one = with_runs(*[600.0] * 8, name="spark-default")
    session = replace(job(name="spark-default", cpus=4, sidecar=False), kind=JobKind.SPARK, labels={SESSION_LABEL: "default"})
    one.handle(ev.JobSubmitted(session), 1000.0)
    cycle(one, 1000.0)
    wait = told(one, submit(one, cpus=4, at=1001.0, sidecar=False), 1001.0)
    assert wait.latest is None
    assert wait.basis.startswith("no start is told: your Spark session 'default' has no time limit")


def test_B30_a_reason_names_what_holds_the_room_and_what_frees_it() -> None:
    one = state([cluster(node("a", cpus=4))], [queue("main", groups=("research",))])
    session = replace(job(name="spark-default", cpus=2, sidecar=False), kind=JobKind.SPARK, labels={SESSION_LABEL: "default"})
    one.handle(ev.JobSubmitted(session), 0.0)
    train = submit(one, cpus=2, name="train", who=BOB, sidecar=False)
    cycle(one, 0.0)
    wait = told(one, submit(one, cpus=2, at=1.0, sidecar=False), 1.0)
    assert wait.why is Why.NO_ROOM
    assert wait.sentence.startswith("no room: short of 2 CPU; held by your Spark session 'default'")
    assert f"(`%spark stop` frees it now) and job 'train' ({train.id[:8]}) of bob; no node takes a worker pod" in wait.sentence


def test_B30_jobs_of_other_groups_are_a_number_and_many_own_ones_too() -> None:
    one = state([cluster(node("a", cpus=8))], [queue("main", groups=("research", "others"))])
    own = [submit(one, cpus=1, name=f"mine-{number}", sidecar=False) for number in range(4)]
    for _ in range(4):
        submit(one, cpus=1, name="secret", who=EVE, sidecar=False)
    cycle(one, 0.0)
    wait = told(one, submit(one, cpus=8, at=1.0, sidecar=False), 1.0)
    assert "secret" not in wait.sentence + " ".join(wait.held_by)
    assert (
        f"held by your job 'mine-0' ({own[0].id[:8]}), your job 'mine-1' ({own[1].id[:8]}), 2 more jobs of yours and 4 jobs of"
        in (wait.sentence)
    )
    assert wait.held_by[-1] == "4 more jobs of other groups"
    assert len(wait.held_by) == 5


def test_B30_the_list_of_holders_has_the_time_they_have_left() -> None:
    one = with_runs(*[3600.0] * 8, name="train")
    run = running(one, 5000.0, name="train")
    wait = told(one, submit(one, cpus=4, at=5000.0 + 1800, sidecar=False), 5000.0 + 1800)
    assert wait.held_by == (f"your job 'train' ({run.id[:8]}), about 30m left",)


def test_B30_a_dependency_is_named() -> None:
    one = state([cluster(node("a", cpus=4))])
    first = running(one, 0.0, name="prep")
    after = submit(one, after=(first.id,))
    assert told(one, after, 1.0).sentence == f"waits for job 'prep' ({first.id[:8]}) to succeed"


@pytest.mark.parametrize("kind", list(StartKind))
def test_ranges_learn_from_how_far_the_last_ones_were_off(kind: StartKind) -> None:
    accuracy, forecast = Accuracy(), StartForecast(100.0, 200.0, kind)
    narrow = told_range(forecast, accuracy)
    assert 0.0 <= narrow[0] < 100.0
    assert 200.0 < narrow[1] < 600.0
    for number in range(3 * FEW_SCORES):
        accuracy.record([f"j{number}"], lambda _: forecast, 0.0)
        accuracy.started(f"j{number}", 2000.0)
    learnt = told_range(forecast, accuracy)
    assert learnt[1] == pytest.approx(2000.0, rel=0.01)
    for other in set(StartKind) - {kind}:
        unlike = forecast._replace(kind=other)
        assert told_range(unlike, accuracy) == told_range(unlike, Accuracy())


def test_a_gang_that_still_waits_past_its_range_counts_at_once() -> None:
    accuracy, forecast = Accuracy(), StartForecast(100.0, 200.0, StartKind.LINE)
    before = told_range(forecast, accuracy)
    waiting = [f"j{number}" for number in range(2 * FEW_SCORES)]
    accuracy.record(waiting, lambda _: forecast, 0.0)
    accuracy.record(waiting, lambda _: forecast, 5000.0)
    assert told_range(forecast, accuracy)[1] > 4 * before[1]


def test_B02_who_starts_beside_gangs_that_wait_for_whole_nodes_is_not_told_to_wait_for_them() -> None:
    one = state([cluster(node("a", cpus=4), node("b", cpus=4))])
    exact = Prediction(600.0, 1.0, "5 earlier runs of this name")
    for _ in range(8):
        running(one, 0.0, cpus=1)
    wide = [submit(one, cpus=4, at=1.0, sidecar=False) for _ in range(6)]
    small = submit(one, cpus=1, at=2.0, sidecar=False)
    queued = dict.fromkeys((*[each.id for each in wide], small.id), exact)
    snapshot = one.snapshot()
    runs = tuple(replace(run, prediction=exact) for run in snapshot.running)
    waits = {wait.job_id: wait for wait in schedule(replace(snapshot, predictions=queued, running=runs), 2.0).waits}
    forecasts = [wait.forecast for wait in (waits[small.id], waits[wide[1].id], waits[wide[-1].id])]
    assert [each.kind for each in forecasts if each is not None] == [StartKind.LINE, StartKind.WIDE, StartKind.WIDE]
    after = [each.latest_s for each in forecasts if each is not None]
    # The first wide gang gets one node at 600 s; the small one may start on the other then.
    assert after[0] < 1200.0 < 1800.0 < after[2]
    assert after[0] < after[1] < after[2]
