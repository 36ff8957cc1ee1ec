"""When a hold's gang may be expected to start, who may pass it, and what waiting gangs are told: values by hand."""

from dataclasses import replace
from math import exp, log, pi, sqrt
from typing import Any

import pytest

from tests.builders import cluster, end_all, job, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.admission import Admission
from tuttilab.scheduler.core.backfill import Hold, Releases, hold_for
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.holds import Holds
from tuttilab.scheduler.core.placement.fit import Demand
from tuttilab.scheduler.core.placement.node_arrays import NodeArrays
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.rules import SERVICE_RULES, EndEstimate, Rules
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.model import Job, Overtaking, Prediction, Why
from tuttilab.scheduler.domain.requests import PodRequest

SITE = cluster(node("a", cpus=4))
LAYOUT = NodeArrays.of(SITE)


def runner(seconds: float, spread: float, started_at: float = 0.0, limit: str | None = None) -> Running:
    one = job(cpus=1, timeout=limit) if limit else job(cpus=1)
    guess = Prediction(seconds, spread, "")
    cost = one.gang.pod_sets[0].resources
    return Running(one, 1, "here", ((("here", "a"), cost),), cost, started_at, started_at, None, guess)


def demand(cpus: int) -> tuple[Job, Demand]:
    big = job(cpus=cpus)
    return big, Shape.of(big, (SITE,), LAYOUT.total).demand(LAYOUT)


def ended_by(seconds: float, guess: Prediction, age: float) -> float:
    """P(X <= age + seconds | X > age) of the log-logistic law with the guess's middle and scatter, written out."""
    k = pi / sqrt(3) / log(guess.spread)
    survives = [1 / (1 + (x / guess.seconds) ** k) for x in (age, age + seconds)]
    return float(1 - survives[1] / survives[0])


def test_room_for_two_is_expected_when_the_chances_of_four_add_up_to_one_and_a_half() -> None:
    running = [runner(100.0, 3.0), runner(100.0, 3.0), runner(1000.0, 3.0), runner(1000.0, 3.0)]
    releases = Releases.of(LAYOUT, running, 10.0)
    start = releases.expected_by(2) - 10.0
    assert sum(ended_by(start, r.prediction, 10.0) for r in running) == pytest.approx(1.5, rel=0.01)
    # The middles of the two that end first say 90 s: by then little more than one of the four may be expected to have ended.
    assert start > 90.0


def test_exact_predictions_are_taken_at_their_word() -> None:
    running = [runner(100.0, 1.0), runner(250.0, 1.0), runner(700.0, 1.0)]
    for how in EndEstimate:
        releases = Releases.of(LAYOUT, running, 10.0, how)
        assert [releases.expected_by(count) for count in range(4)] == pytest.approx([10.0, 100.0, 250.0, 700.0], rel=0.03)


def test_a_limit_ends_a_run_for_sure() -> None:
    releases = Releases.of(LAYOUT, [runner(50_000.0, 8.0, limit="10m")], 60.0)
    assert releases.expected_by(1) == pytest.approx(600.0)


def test_what_ran_long_is_expected_to_run_long() -> None:
    young, old = (Releases.of(LAYOUT, [runner(100.0, 4.0, started_at=at)], 5000.0).expected_by(1) - 5000.0 for at in (4990.0, 0.0))
    assert young == pytest.approx(105.0, rel=0.1)
    assert old == pytest.approx(5000.0, rel=0.5)


def test_uncertain_room_is_not_promised_to_others() -> None:
    """Two run on four CPUs, one of them of two: room for three comes with the second, and leaves one CPU over, if it comes."""
    small, large = runner(100.0, 3.0), runner(200.0, 3.0)
    large = replace(large, allocations=(((("here", "a")), job(cpus=2).gang.pod_sets[0].resources),))
    big, asks = demand(3)
    free = LAYOUT.allocatable - sum(LAYOUT.vector(cost) for r in (small, large) for _, cost in r.allocations)  # type: ignore[misc]
    spare = {}
    for how in EndEstimate:
        hold = hold_for(big, asks, LAYOUT, free, Releases.of(LAYOUT, [small, large], 0.0, how), None)
        assert hold is not None
        spare[how] = int(hold.after[0, LAYOUT.cpu])
    assert spare == {EndEstimate.PROBABILISTIC: 0, EndEstimate.CORRECTED: 1000}


def waiting_behind(used: float) -> tuple[State, Job, dict[str, Job]]:
    """A gang of five CPUs that was overtaken for ``used`` seconds of the room, waits 100 s, and has three of the five free.

    What runs ends for sure at 1000 s; those that want to pass are predicted to take 100 s, with spreads of 4 and of 40, or have a
    limit.
    """
    one = state([cluster(node("a", cpus=5))])
    submit(one, cpus=2, timeout="1000s")
    run_cycle(one)
    start_all(one, one.snapshot().running[0].job_id)
    big = submit(one, cpus=5)
    one.accounts.rows[big.id] = Overtaking(big.id, 0.0, (("here", used),))
    passing = {
        "wide": submit(one, cpus=1, name="wide"),
        "narrow": submit(one, cpus=1, name="narrow"),
        "limited": submit(one, cpus=1, name="limited", timeout="5m"),
    }
    return one, big, passing


@pytest.mark.parametrize(
    ("used", "who"),
    [
        (0.0, ["wide", "narrow", "limited"]),
        (1800.0, ["wide", "narrow", "limited"]),
        (7300.0, ["wide", "narrow", "limited"]),
        (7400.0, ["limited"]),
    ],
)
def test_the_more_a_gang_was_overtaken_the_less_its_hold_trusts_predictions(used: float, who: list[str]) -> None:
    """The allowance after 100 s is 915 s: protected at 1830 s, strict at 7320 s."""
    holds_against(used, who)


def test_a_site_may_let_holds_add_a_margin_to_predictions_first() -> None:
    holds_against(1900.0, ["narrow", "limited"], replace(SERVICE_RULES, overdue_at=2.0))


def holds_against(used: float, who: list[str], rules: Rules | None = None) -> None:
    one, big, passing = waiting_behind(used)
    if rules is not None:
        one.rules = rules
    spreads = {"wide": 40.0, "narrow": 4.0, "limited": 1.0}
    snapshot = one.snapshot()
    known = {passing[name].id: Prediction(100.0, spread, "") for name, spread in spreads.items()}
    guesses = {**snapshot.predictions, **known, big.id: Prediction(10.0, 1.0, "")}
    decision = schedule(replace(snapshot, predictions=guesses), 100.0)
    names = {job.id: name for name, job in passing.items()}
    admitted = {names[admission.job_id] for admission in decision.admitted}
    assert admitted == set(who)
    told = {wait.job_id: wait for wait in decision.waits}
    assert told[big.id].estimated_start == pytest.approx(1000.0, rel=0.01)
    assert {told[passing[name].id].why for name in passing if name not in who} <= {Why.HOLD, Why.NO_ROOM, Why.BEHIND}


def test_least_expected_work_goes_first_not_the_least_middle() -> None:
    one = state([cluster(node("a", cpus=1))])
    unknown, known = submit(one, name="unknown"), submit(one, name="known")
    guesses = {unknown.id: Prediction(100.0, exp(2.0), ""), known.id: Prediction(300.0, 1.5, "")}
    trusting = replace(one.snapshot(), predictions=guesses, trusts={"main": 1.0})
    assert [admitted.job_id for admitted in schedule(trusting, 0.0).admitted] == [known.id]
    # Predictions that were no better than the middle of all runs decide no order.
    wary = replace(trusting, trusts={"main": 0.1})
    assert [admitted.job_id for admitted in schedule(wary, 0.0).admitted] == [unknown.id]


def test_nobody_stands_behind_gangs_that_come_more_than_the_longest_deferral_later() -> None:
    one = state([cluster(node("a", cpus=1))])
    long, short = submit(one, name="long"), submit(one, name="short", at=1000.0)
    guesses = {long.id: Prediction(1e6, 1.0, ""), short.id: Prediction(10.0, 1.0, "")}
    for most_s, first in ((500.0, long), (5000.0, short)):
        rules = replace(SERVICE_RULES, longest_deferral_s=most_s)
        snapshot = replace(one.snapshot(), predictions=guesses, trusts={"main": 1.0}, rules=rules)
        assert [admitted.job_id for admitted in schedule(snapshot, 1000.0).admitted] == [first.id]


def test_B02_gangs_are_told_when_the_room_has_served_those_before_them() -> None:
    """Four CPUs, four runs of 100 s, and twelve gangs of 100 s in line, all known exactly: four start every 100 s."""
    one = state([SITE])
    exact = Prediction(100.0, 1.0, "")
    jobs = [submit(one, cpus=1, name=f"n{number}") for number in range(16)]
    snapshot = replace(one.snapshot(), predictions={job.id: exact for job in jobs})
    first = schedule(snapshot, 0.0)
    assert [admitted.job_id for admitted in first.admitted] == [job.id for job in jobs[:4]]
    waits = {wait.job_id: wait for wait in first.waits}
    told = [waits[job.id].estimated_start for job in jobs[4:]]
    assert told == sorted(told, key=lambda start: start or 0.0)
    for number, start in enumerate(told):
        assert start is not None
        # Four really start at 100 s, at 200 s and at 300 s; as one stream they would start every 25 s.
        assert 0.8 * 100.0 * (1 + number // 4) <= start <= 1.5 * 100.0 * (1 + number // 4) + 25.0 * (number % 4)
    assert waits[jobs[-1].id].basis == "past run times of 19 jobs ahead"


# --- what a hold keeps ---------------------------------------------------------------------------------------------------


def overtaken(**limits: Any) -> tuple[State, Job, Job]:
    """A queue with limits, a gang of it that waits for the GPUs another queue holds, which trusts no prediction by now."""
    one = state([cluster(node("a", cpus=64, gpus=4))], [queue("q", overtaking=0.0, overtaking_s=0.0, **limits), queue("o")])
    runs = submit(one, queue="o", gpus=4, timeout="5000s", sidecar=False)
    run_cycle(one)
    start_all(one, runs.id)
    held = submit(one, queue="q", gpus=4, cpus=4, timeout="600s", at=1.0, sidecar=False)
    passing = submit(one, queue="q", cpus=4, timeout="100s", at=2.0, sidecar=False)
    assert [admitted.job_id for admitted in run_cycle(one, at=3.0)[0].admitted] == [passing.id]
    start_all(one, passing.id, 3.0)
    end_all(one, passing.id, 0, 103.0)
    return one, runs, held


@pytest.mark.parametrize("limits", [{"max_jobs": 1}, {"max_pods": 1}, {"max": {"cpu": 4}}], ids=["jobs", "pods", "cpu"])
def test_a_hold_on_room_keeps_the_quota_its_gang_will_need(limits: dict[str, Any]) -> None:
    one, runs, held = overtaken(**limits)
    long = submit(one, queue="q", cpus=4, timeout="100000s", at=103.0, sidecar=False)
    assert run_cycle(one, at=104.0)[0].admitted == ()
    wait = one.waits[long.id]
    assert wait.why is Why.HOLD
    assert wait.sentence.startswith(f"quota is kept for your job '{held.name}' ({held.id}), which goes first")
    short = submit(one, queue="q", cpus=4, timeout="100s", at=105.0, sidecar=False)
    assert [admitted.job_id for admitted in run_cycle(one, at=106.0)[0].admitted] == [short.id]
    start_all(one, short.id, 106.0)
    end_all(one, short.id, 0, 200.0)
    end_all(one, runs.id, 0, 5000.0)
    assert [admitted.job_id for admitted in run_cycle(one, at=5000.0)[0].admitted] == [held.id]


def test_a_hold_on_room_leaves_the_quota_its_gang_does_not_need() -> None:
    one, _, _ = overtaken(max={"cpu": 8}, max_jobs=3)
    first, second = (submit(one, queue="q", cpus=4, timeout="100000s", at=at, sidecar=False) for at in (103.0, 104.0))
    assert [admitted.job_id for admitted in run_cycle(one, at=105.0)[0].admitted] == [first.id]
    assert one.waits[second.id].why is Why.HOLD


@pytest.mark.parametrize("has_misfit", [False, True])
def test_a_gang_that_does_not_start_uses_up_nothing_of_what_a_hold_leaves(has_misfit: bool) -> None:
    typed = {"gpu-model": "x"}
    one = state([cluster(node("a", cpus=64), node("b", cpus=2, labels=typed))], [queue("q", max={"cpu": 10}), queue("o")])
    on_b = (PodRequest(role="worker", cpus=2, gpu_type="x"),)
    for given in ({"queue": "o", "pods": on_b}, {"queue": "q", "cpus": 8, "timeout": "1000s"}):
        submit(one, sidecar=False, **given)
    run_cycle(one)
    submit(one, queue="q", cpus=8, timeout="1000s", at=1.0, sidecar=False)
    if has_misfit:
        submit(one, queue="q", pods=on_b, at=1.0, sidecar=False)
    last = submit(one, queue="q", cpus=2, at=2.0, sidecar=False)
    assert [admitted.job_id for admitted in run_cycle(one, at=3.0)[0].admitted] == [last.id]


def test_a_gang_that_one_hold_stops_uses_up_nothing_of_the_room_that_comes_for_another() -> None:
    one = state([cluster(node("a", cpus=8))])
    waiting, claimant, holder = submit(one, cpus=2), job(cpus=6), job(cpus=8)
    working_set = WorkingSet.of(one.snapshot(), 1.0)
    holds = Holds(working_set)
    admission = Admission.of(working_set, holds)
    (line,) = working_set.lines.by_queue.values()
    free = working_set.room.free["here"]
    holds.for_claimants["here"] = Hold(claimant, "here", 5.0, free.copy(), margin=None)
    holds.on_room["here"] = Hold(holder, "here", 5.0, free - free)
    admission.admit_next(line, 0)
    assert admission.admitted == []
    cause = line[0].cause
    assert cause is not None
    assert (line[0].job, cause.why, cause.hold) == (waiting, Why.HOLD, holds.on_room["here"])
    assert (holds.for_claimants["here"].after == free).all()
