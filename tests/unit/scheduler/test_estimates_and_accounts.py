"""What history says about run times, and the account of who was overtaken: values by hand."""

from dataclasses import replace
from math import exp, log

import pytest

from tests.builders import cluster, end_all, job, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.accounts import Accounts, Use
from tuttilab.scheduler.core.estimates import PRIOR_S, History, predicted_end
from tuttilab.scheduler.core.protection import protection
from tuttilab.scheduler.model import Overtaking, Prediction, RunHistory


def test_B05_without_history_the_prior_stands_in() -> None:
    assert History().predict(job()).seconds == pytest.approx(PRIOR_S)
    assert History().predict(job()).basis == "no run is known yet"


def test_B05_a_prediction_is_never_above_the_jobs_own_limit() -> None:
    found = History().predict(job(timeout="5m"))
    assert (found.seconds, found.basis) == (300.0, "its own limit")
    assert found.spread == pytest.approx(6.0)


def test_B05_the_median_of_a_name_counts_as_much_as_its_history_is_worth() -> None:
    history = History.of(
        [RunHistory("queue/main", (100.0, 100.0, 10_000.0), ()), RunHistory("name/main/ann/train", (10_000.0,) * 3)]
    )
    # Three runs, trusted a half each before repeats were measured: Z = 3 x 0.5 / (1 + 2 x 0.5) = 0.75.
    expected = exp(log(100) + 0.75 * (log(10_000) - log(100)))
    assert history.predict(job(name="train")).seconds == pytest.approx(expected)
    assert history.predict(job(name="train")).basis == "3 earlier runs of this name"
    assert history.predict(job(name="other")).basis == "the last 3 runs in the queue"


def test_B05_names_that_say_nothing_give_everybody_the_prior() -> None:
    history = History()
    lengths = [10.0, 1000.0, 100_000.0]
    for number in range(120):
        history.learn(job(name=f"n{number % 10}"), lengths[(number * 7 + number // 10) % 3])
    told = {round(history.predict(job(name=f"n{number}")).seconds) for number in range(10)}
    assert told == {1000}


def test_B05_repeats_that_agree_are_believed() -> None:
    history = History()
    for number in range(120):
        history.learn(job(name=f"n{number % 10}"), 60.0 * 3.0 ** (number % 10))
    assert history.predict(job(name="n0")).seconds == pytest.approx(60.0, rel=0.1)
    assert history.predict(job(name="n9")).seconds == pytest.approx(60.0 * 3.0**9, rel=0.1)


def test_B05_a_run_past_its_prediction_is_expected_to_take_as_long_again() -> None:
    guess = Prediction(100.0, 2.0, "")
    assert predicted_end(0.0, guess, None, 50.0) == 100.0
    assert predicted_end(0.0, guess, None, 400.0) == 800.0
    assert predicted_end(0.0, guess, 500.0, 400.0) == 500.0


def test_B05_history_is_learned_from_runs_that_end_by_themselves() -> None:
    one = state([cluster(node("a"))])
    done = submit(one, name="train")
    run_cycle(one)
    start_all(one, done.id, at=10.0)
    end_all(one, done.id, 0, at=310.0)
    assert one.history.rows["name/main/ann/train"].runs == (300.0,)
    assert {row.key for row in one.take_changes().history} == {"name/main/ann/train", "queue/main"}


LANE = ("main", 0)
QUEUES = {"main": queue("main")}


def test_S06_what_an_ended_gang_used_counts_for_every_earlier_one() -> None:
    first, second = job(), job()
    accounts = Accounts()
    for one in (first, second):
        accounts.begin(one, 0.0, (), QUEUES)
    accounts.ended(Use("later", second.order + 5, LANE, "here", 0.5, 100.0), QUEUES)
    accounts.ended(Use("between", second.order - 0, LANE, "here", 1.0, 10.0), QUEUES)
    assert accounts.used_since(first, (), QUEUES)[0] == (("here", 60.0),)
    assert accounts.used_since(second, (), QUEUES)[0] == (("here", 50.0),)


def test_S06_an_account_outlives_the_gangs_behind_it() -> None:
    first, second = job(), job()
    accounts = Accounts()
    for one in (first, second):
        accounts.begin(one, 0.0, (), QUEUES)
    accounts.ended(Use("later", second.order + 5, LANE, "here", 0.5, 100.0), QUEUES)
    accounts.leave(second)
    assert accounts.used_since(first, (), QUEUES)[0] == (("here", 50.0),)
    assert accounts.take_changes()[1] == (second.id,)


def test_S06_a_gang_that_waits_again_starts_a_new_account() -> None:
    first, second = job(), job()
    accounts = Accounts()
    for one in (first, second):
        accounts.begin(one, 0.0, (), QUEUES)
    accounts.leave(first)
    running = [Use("later", second.order + 5, LANE, "here", 0.5, 100.0)]
    accounts.begin(first, 100.0, running, QUEUES)
    assert accounts.rows[first.id].base == (("here", 50.0),)
    now = protection([first], accounts.rows, [replace(running[0], seconds=140.0)], QUEUES, {"here": 1.0}, {}, 180.0)
    assert now.overtaken_s == {first.id: pytest.approx(20.0)}


@pytest.mark.parametrize(
    ("used", "is_protected", "is_strict"),
    [(719.0, False, False), (721.0, True, False), (3239.0, True, False), (3241.0, True, True)],
)
def test_S06_protected_by_two_thirds_of_the_allowance_and_strictly_by_three_times_it(
    used: float, is_protected: bool, is_strict: bool
) -> None:
    waiting = job(now=0.0)
    # The allowance: 0.15 x 1200 s + 900 s = 1080 s of the whole room.
    rows = {waiting.id: Overtaking(waiting.id, 0.0, (("here", used),))}
    own = {"main": queue("main", overtaking=0.15, overtaking_s=900.0)}
    found = protection([waiting], rows, [], own, {"here": 1.0}, {}, 1200.0)
    assert (waiting.id in found.protected, waiting.id in found.strict) == (is_protected, is_strict)


def test_S07_after_the_cap_a_lower_class_is_lifted() -> None:
    waiting = job(now=0.0)
    rows = {waiting.id: Overtaking(waiting.id, 0.0, (), (("here", 10.0),))}
    before = protection([waiting], rows, [], QUEUES, {"here": 1.0}, {}, 86_399.0)
    after = protection([waiting], rows, [], QUEUES, {"here": 1.0}, {}, 86_401.0)
    assert (set(before.lifted), set(after.lifted)) == (set(), {waiting.id})
    assert before.next_at == pytest.approx(86_400.0, abs=0.01)
