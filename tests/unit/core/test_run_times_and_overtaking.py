"""What history says about run times, and the account of who was overtaken: values by hand."""

from math import e, exp, log

import numpy as np
import pytest

from tests.builders import cluster, end_all, job, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.ordering.overtaking import Accounts, GangUsage
from tuttilab.scheduler.core.ordering.protection import protection
from tuttilab.scheduler.core.ordering.run_times import PRIOR_S, History, corrected_end, expected_s, predicted_end
from tuttilab.scheduler.domain.model import Overtaking, Prediction, RunHistory


def test_without_history_the_prior_stands_in() -> None:
    assert History().predict(job()).seconds == pytest.approx(PRIOR_S)
    assert History().predict(job()).basis == "no run is known yet"


def test_a_prediction_is_never_above_the_jobs_own_limit() -> None:
    found = History().predict(job(timeout="5m"))
    assert (found.seconds, found.basis) == (300.0, "its own limit")
    assert found.spread == pytest.approx(6.0)


def test_the_median_of_a_name_counts_as_much_as_its_history_is_worth() -> None:
    history = History.of(
        [RunHistory("queue/main", (100.0, 100.0, 10_000.0), ()), RunHistory("name/main/ann/train", (10_000.0,) * 3)]
    )
    # Three runs, trusted a half each before repeats were measured: Z = 3 x 0.5 / (1 + 2 x 0.5) = 0.75.
    expected = exp(log(100) + 0.75 * (log(10_000) - log(100)))
    assert history.predict(job(name="train")).seconds == pytest.approx(expected)
    assert history.predict(job(name="train")).basis == "3 earlier runs of this name"
    assert history.predict(job(name="other")).basis == "the last 3 runs in the queue"


def test_names_that_say_nothing_give_everybody_the_prior() -> None:
    history = History()
    lengths = [10.0, 1000.0, 100_000.0]
    for number in range(120):
        history.record_run(job(name=f"n{number % 10}"), lengths[(number * 7 + number // 10) % 3])
    told = {round(history.predict(job(name=f"n{number}")).seconds) for number in range(10)}
    assert told == {1000}


def test_repeats_that_agree_are_believed() -> None:
    history = History()
    for number in range(120):
        history.record_run(job(name=f"n{number % 10}"), 60.0 * 3.0 ** (number % 10))
    assert history.predict(job(name="n0")).seconds == pytest.approx(60.0, rel=0.1)
    assert history.predict(job(name="n9")).seconds == pytest.approx(60.0 * 3.0**9, rel=0.1)


def test_trust_is_earned_by_predictions_that_were_right_before_the_runs_ended() -> None:
    history, useless = History(), History()
    for number in range(120):
        known, chance = job(name=f"n{number % 10}"), job(name=f"n{number * 7 % 11}")
        took = 60.0 * 3.0 ** (number % 10)
        history.record_run(known, took, history.predict(known))
        useless.record_run(chance, took, useless.predict(chance))
        if number < 29:
            assert history.trust("main") == 0.0
    assert history.trust("main") > 0.7
    assert useless.trust("main") < 0.3
    # A restart knows it, as it is in the rows.
    assert History.of(history.rows.values()).trust("main") == history.trust("main")


def test_a_run_past_its_prediction_is_expected_to_take_as_long_again() -> None:
    guess = Prediction(100.0, 2.0, "")
    assert predicted_end(0.0, guess, None, 50.0) == 100.0
    assert predicted_end(0.0, guess, None, 400.0) == 800.0
    assert predicted_end(0.0, guess, 500.0, 400.0) == 500.0


def test_easy_as_published_moves_a_prediction_on_by_growing_steps() -> None:
    guess = Prediction(100.0, 2.0, "")
    ends = [corrected_end(0.0, guess, None, now) for now in (50.0, 100.0, 159.0, 160.0, 500.0, 1e6)]
    steps = 60 + 300 + 900 + 1800 + 3600 + 7200 + 18000 + 36000 + 72000 + 180000 + 2 * 360000
    assert ends == [100.0, 160.0, 160.0, 460.0, 1360.0, 100.0 + steps]
    assert corrected_end(0.0, guess, 120.0, 110.0) == 120.0


def test_the_mean_of_what_scatters_is_above_its_middle() -> None:
    # Of a log-normal law: the middle times e to half the variance of the logarithm; at most e^4 times it.
    means = expected_s(np.full(3, 100.0), np.array([1.0, e, 1e9]))
    assert means == pytest.approx([100.0, 100.0 * exp(0.5), 100.0 * exp(4.0)])


def test_history_is_learned_from_runs_that_end_by_themselves() -> None:
    one = state([cluster(node("a"))])
    done = submit(one, name="train")
    run_cycle(one)
    start_all(one, done.id, at=10.0)
    end_all(one, done.id, 0, at=310.0)
    assert one.history.rows["name/main/ann/train"].runs == (300.0,)
    assert {row.key for row in one.take_changes().history} == {"name/main/ann/train", "queue/main"}


LANE = ("main", 0)
QUEUES = {"main": queue("main")}


def test_what_an_ended_gang_used_counts_for_every_earlier_one() -> None:
    first, second = job(), job()
    accounts = Accounts()
    for one in (first, second):
        accounts.start_waiting(one, 0.0, (), QUEUES)
    accounts.record_ended(GangUsage("later", second.order + 5, LANE, "here", 0.5, 100.0), QUEUES)
    accounts.record_ended(GangUsage("between", second.order - 0, LANE, "here", 1.0, 10.0), QUEUES)
    assert accounts.used_since(first, (), QUEUES)[0] == (("here", 60.0),)
    assert accounts.used_since(second, (), QUEUES)[0] == (("here", 50.0),)


def test_an_account_outlives_the_gangs_behind_it() -> None:
    first, second = job(), job()
    accounts = Accounts()
    for one in (first, second):
        accounts.start_waiting(one, 0.0, (), QUEUES)
    accounts.record_ended(GangUsage("later", second.order + 5, LANE, "here", 0.5, 100.0), QUEUES)
    accounts.stop_waiting(second)
    assert accounts.used_since(first, (), QUEUES)[0] == (("here", 50.0),)
    assert accounts.take_changes()[1] == (second.id,)


def test_a_gang_that_waits_again_starts_a_new_account() -> None:
    first, second = job(), job()
    accounts = Accounts()
    for one in (first, second):
        accounts.start_waiting(one, 0.0, (), QUEUES)
    accounts.stop_waiting(first)
    running = [GangUsage("later", second.order + 5, LANE, "here", 0.5, 100.0)]
    accounts.start_waiting(first, 100.0, running, QUEUES)
    assert accounts.rows[first.id].base == (("here", 50.0),)
    now = protection([first], accounts.rows, [running[0]._replace(seconds=140.0)], QUEUES, {"here": 1.0}, {}, 180.0)
    assert now.overtaken_s == {first.id: pytest.approx(20.0)}


@pytest.mark.parametrize(
    ("used", "reached"),
    [(2159.0, 0), (2161.0, 1), (8639.0, 1), (8641.0, 3)],
)
def test_protected_by_twice_the_allowance_overdue_and_strict_by_eight_times(used: float, reached: int) -> None:
    waiting = job(now=0.0)
    # The allowance: 0.05 x 1200 s + 1020 s = 1080 s of the whole room.
    rows = {waiting.id: Overtaking(waiting.id, 0.0, (("here", used),))}
    own = {"main": queue("main", overtaking=0.05, overtaking_s=1020.0)}
    found = protection([waiting], rows, [], own, {"here": 1.0}, {}, 1200.0)
    stages = (found.protected, found.overdue, found.strict)
    assert [waiting.id in stage for stage in stages] == [reached > number for number in range(3)]
    # It is looked at again when it comes to the next stage, were the whole room used by gangs submitted later from now on.
    assert found.next_at is None
    running = [GangUsage("later", waiting.order + 1, ("main", 0), "here", 1.0, 0.0)]
    then = protection([waiting], rows, running, own, {"here": 1.0}, {}, 1200.0).next_at
    if reached < 3:
        part = (2.0, 8.0)[reached]
        assert then == pytest.approx(1200.0 + (part * 1080.0 - used) / (1 - part * 0.05), abs=0.01)
    else:
        assert then is None


def test_after_the_cap_a_lower_class_is_lifted() -> None:
    waiting = job(now=0.0)
    rows = {waiting.id: Overtaking(waiting.id, 0.0, (), (("here", 10.0),))}
    before = protection([waiting], rows, [], QUEUES, {"here": 1.0}, {}, 86_399.0)
    after = protection([waiting], rows, [], QUEUES, {"here": 1.0}, {}, 86_401.0)
    assert (set(before.class_exempt), set(after.class_exempt)) == (set(), {waiting.id})
    assert before.next_at == pytest.approx(86_400.0, abs=0.01)
