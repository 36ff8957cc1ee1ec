"""The order of gangs in a queue, what is predicted for those that wait, and the array forms of both."""

import gc
import random

import pytest

from tests.builders import cluster, end_all, job, node, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.backfill import EndDistribution, end_of
from tuttilab.scheduler.core.candidates import Candidate, CandidateArrays, sort_candidates
from tuttilab.scheduler.core.ordering.run_times import History
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.rules import SERVICE_RULES
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.domain.model import Prediction

SITE = cluster(node("a", cpus=64))


def candidates(seed: int, count: int = 60) -> list[Candidate]:
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        one = job(cpus=chance.choice((1, 2, 8)), workers=chance.choice((1, 3)), priority=chance.choice((0, 0, 5)))
        is_class_exempt = chance.random() < 0.1
        guess = Prediction(chance.choice((60.0, 600.0, 6000.0)), chance.choice((1.5, 6.0)), "")
        shape = Shape.of(one, (SITE,), SITE.nodes[0].allocatable)
        found.append(Candidate(one, shape, guess, is_class_exempt or chance.random() < 0.2, is_class_exempt))
    chance.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_short", [False, True])
def test_class_then_protected_largest_first_then_submission_and_deferral(seed: int, is_short: bool) -> None:
    line = candidates(seed)
    known = CandidateArrays.of(line)
    deferrals = known.deferral_s(SERVICE_RULES).tolist()
    keys = {id(c): c.job.submitted_at + later for c, later in zip(line, deferrals, strict=True)}

    def rank(c: Candidate) -> tuple[int, bool, float, int]:
        if c.is_protected:
            return (-c.job.priority, False, -c.shape.share if c.job.gang.size > 1 else 0.0, c.job.order)
        return (-c.job.priority, True, keys[id(c)] if is_short else 0.0, c.job.order)

    expected = sorted(line, key=rank)
    sort_candidates({"main": line}, {"main": deferrals} if is_short else {})
    assert [c.job.id for c in line] == [c.job.id for c in expected]
    assert [c.place for c in line] == list(range(1, len(line) + 1))


def test_a_gang_that_waits_is_predicted_anew_when_a_run_of_its_queue_has_ended() -> None:
    s = state([SITE])
    first = submit(s, name="train", cpus=64)
    run_cycle(s)
    start_all(s, first.id)
    waiting = submit(s, at=1.0, name="train", cpus=64)
    before = s.snapshot().predictions[waiting.id]
    end_all(s, first.id, 0, 100.0)
    after = s.snapshot().predictions[waiting.id]
    assert before.basis == "no run is known yet"
    assert after == s.history.predict(waiting)
    assert after.basis == "1 earlier run of this name"


def test_a_dry_run_is_predicted_beside_those_that_wait() -> None:
    s = state([SITE])
    waiting = submit(s, name="train")
    asked = job(name="train", timeout="5m")
    predictions = s.snapshot(also=asked).predictions
    assert set(predictions) == {waiting.id, asked.id}
    assert predictions[asked.id].seconds == 300.0


def test_guesses_are_kept_no_longer_than_somebody_asks_for_them() -> None:
    history = History()
    kept = history.entry(job(name="kept"))
    assert history.entry(job(name="kept")) is kept
    for number in range(1000):
        history.predict(job(name=f"n{number}"))
    gc.collect()
    assert [len(guesses) for guesses in history._entries.values()] == [1]


@pytest.mark.parametrize("seed", range(5))
def test_ends_of_all_at_once_are_those_of_each(seed: int) -> None:
    chance = random.Random(seed)
    running = []
    for _ in range(50):
        one = job(timeout=chance.choice((None, "10m", "2h")))
        guess = Prediction(chance.uniform(1, 10_000), chance.uniform(1, 6), "")
        started = chance.uniform(0, 5000)
        cost = one.gang.pod_sets[0].resources
        is_stopping = chance.random() < 0.2
        running.append(Running(one, 1, "here", (), cost, started, started, None, guess, is_stopping=is_stopping))
    assert EndDistribution.of(running, 5000.0).ends.tolist() == [end_of(one, 5000.0) for one in running]
