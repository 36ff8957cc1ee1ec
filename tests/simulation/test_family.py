"""The named generators of traces: what each is made of, and how they are chosen."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, median, pstdev

import pytest

from tests.benchmarks.policy import OURS, PREDICTED, Line, Trace, measure_one
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.simulation import Recipe, generate, read_recipe, read_trace, trace_lines
from tuttilab.scheduler.simulation.family import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_B05_a_generator_makes_the_same_trace_of_the_same_seed_with_the_load_asked_for(name: str) -> None:
    trace = read_recipe(f"{name}:jobs=500,load=0.8,seed=5").make(64)
    assert trace == Recipe(name=name, jobs=500, load=0.8, seed=5).make(64)
    assert trace != Recipe(name=name, jobs=500, load=0.8, seed=6).make(64)
    assert len(trace) == len({job.job_id for job in trace}) == 500
    work = sum(min(job.duration_s, job.limit_s or math.inf) * job.gpus for job in trace)
    assert work / 64 / max(job.submit_s for job in trace) == pytest.approx(0.8, rel=0.15)
    assert read_trace("".join(trace_lines(trace))) == trace


@pytest.mark.parametrize("name", NAMES)
def test_no_job_of_a_generated_trace_wants_more_than_the_site_has(name: str) -> None:
    for gpus, node in ((16, 8), (6, 3), (4, 4)):
        trace = Recipe(name=name, jobs=500).make(gpus, node)
        assert max(job.gpus for job in trace) <= gpus
        if name != "generated":
            assert max(job.gpus / job.pods for job in trace) <= node
            assert all(job.gpus % job.pods == 0 for job in trace)
    with pytest.raises(BadInput, match="the site has none"):
        Recipe(name=name, jobs=5).make(0, 0)


def test_names_that_recur_run_about_as_long_each_time_and_are_as_wide_each_time() -> None:
    trace = Recipe(name="recurring", jobs=6000, seed=2, scatter=0.3, runs=20).make()
    runs = Counter(job.name for job in trace)
    assert fmean(runs.values()) == pytest.approx(20, rel=0.01)
    by_name = {name: [math.log(job.duration_s) for job in trace if job.name == name] for name, _ in runs.most_common(60)}
    assert median(pstdev(values) for values in by_name.values()) == pytest.approx(0.3, rel=0.1)
    assert all(len({job.gpus for job in trace if job.name == name}) == 1 for name in by_name)
    bases = [fmean(math.log(job.duration_s) for job in trace if job.name == name) for name in runs]
    assert pstdev(bases) == pytest.approx(1.9, rel=0.15)
    assert median(bases) == pytest.approx(math.log(1144), abs=0.35)


def test_each_generator_has_what_it_is_named_for() -> None:
    made = {name: Recipe(name=name, jobs=2000, seed=3).make() for name in NAMES}

    def share(name: str, gpus: int) -> float:
        return fmean(job.gpus >= gpus for job in made[name])

    assert share("whole-nodes", 8) == pytest.approx(0.2, abs=0.07)
    assert share("recurring", 8) < 0.06
    spans = {name: max(job.submit_s for job in made[name]) for name in NAMES}
    slots = {name: Counter(int(job.submit_s / spans[name] * 500) for job in made[name]) for name in NAMES}
    assert sum(count for _, count in slots["bursts"].most_common(50)) > 0.9 * 2000
    assert sum(count for _, count in slots["recurring"].most_common(50)) < 0.7 * 2000
    limits = [job.duration_s / job.limit_s for job in made["limits"] if job.limit_s is not None]
    assert len(limits) == 2000
    assert fmean(part > 1 for part in limits) == pytest.approx(0.1, abs=0.06)
    assert median(limits) < 0.1
    elastic = [job for job in made["elastic"] if job.min_count is not None]
    assert len(elastic) / 2000 == pytest.approx(0.2, abs=0.07)
    assert all(job.gpus == job.pods and job.min_count == max(1, job.pods // 4) for job in elastic)
    kinds = Counter(str(job.job(1).kind) for job in made["sessions"])
    assert kinds["notebook"] + kinds["spark"] == 500
    assert kinds["notebook"] == pytest.approx(300, abs=45)
    assert all(job.kind == "" for name in NAMES if name != "sessions" for job in made[name])


def test_shuffled_names_are_of_every_generator() -> None:
    plain, mixed = (read_recipe(f"bursts:jobs=300,shuffled={word}").make() for word in ("no", "yes"))
    assert [(j.submit_s, j.duration_s) for j in plain] == [(j.submit_s, j.duration_s) for j in mixed]
    assert Counter(j.name for j in plain) == Counter(j.name for j in mixed)
    assert [j.name for j in plain] != [j.name for j in mixed]


def test_what_a_recipe_leaves_out_is_as_the_options_say() -> None:
    assert read_recipe("recurring:load=0.8", Recipe(load=2.0, seed=4)) == Recipe(name="recurring", load=0.8, seed=4)
    assert read_recipe("generated:jobs=50,seed=3").make() == generate(50, seed=3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lottery:load=1", "'lottery' is no generator; expected one of generated, recurring,"),
        ("recurring:colour=1", "trace recurring: 'colour' is not known; expected some of jobs, load,"),
        ("recurring:load=nan", "trace recurring, load: 'nan' is no number or out of range; expected 0.01 to 100"),
        ("recurring:load=1,load=2", "load stands there twice"),
        ("recurring:jobs=0", "jobs: '0' is not whole or out of range; expected 1 to 1000000"),
        ("recurring:jobs=" + "9" * 5000, "jobs: '9999"),
        ("recurring:shuffled=1", "shuffled: '1' is neither; expected yes or no"),
        ("recurring:load", "load: '' is no number"),
        ("generated:runs=3", "trace generated: runs is of the other generators"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_recipe(text)
    assert says in str(caught.value)


SHORT = (
    (Trace("recurring:load=1.0", 2), 250),
    (Trace("recurring:load=1.3,shuffled=yes", 2), 200),
    (Trace("whole-nodes:load=0.8", 4), 200),
    (Trace("elastic:load=1.0", 2), 200),
    (Trace("sessions:load=1.0", 2), 250),
)
"""Of the family of `tests/benchmarks/policy.py`, a short form: trace and number of jobs."""


@pytest.mark.feature("S06", "B05")
@pytest.mark.timeout(700)
def test_over_unlike_traces_jobs_are_done_as_early_as_under_easy_with_the_same_predictions(tell: Callable[[str], None]) -> None:
    found = {OURS: 0.0, PREDICTED: 0.0}
    for trace, jobs in SHORT:
        rows = {policy: measure_one(trace, 21, jobs, policy, sample_every=0) for policy in found}
        for policy, row in rows.items():
            assert row.unended == 0
            found[policy] += row.mean_jct_s
        ours, easy = rows[OURS], rows[PREDICTED]
        waits = f"mean wait {ours.mean_wait_s / easy.mean_wait_s:.2f}"
        tell(f"{trace.label}: completion {ours.mean_jct_s / easy.mean_jct_s:.2f}, {waits}")
    assert found[OURS] <= 1.02 * found[PREDICTED]


def test_the_table_of_the_family_says_what_was_missed() -> None:
    trace = Trace("recurring:load=1.3", 2)
    good = measure_one(trace, 3, 20, PREDICTED)
    assert all(aim.is_within for aim in Line(trace, 3, replace(good, mean_jct_s=2 * good.mean_jct_s), good, good).aims())
    bad = replace(good, mean_jct_s=1.1 * good.mean_jct_s, max_wait_s=1.6 * good.max_wait_s + 3601, unended=1)
    line = Line(trace, 3, good, good, bad)
    missed = [aim.name.partition(": ")[2] for aim in line.aims() if not aim.is_within]
    assert missed == [
        "mean completion over EASY predicted",
        "longest wait",
        "jobs that do not end",
        "mean completion over EASY told",
    ]
    assert ", ".join(missed) == line.cells()[-1]
