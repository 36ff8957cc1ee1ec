"""Which parameters of the decision rule are proposed on a site's own past: the choice, the floor, the two parts, the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tests.past import fill, long_and_short, two_nodes
from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.root import run
from tuttilab.scheduler.core.rows.tuning import tuned_queues
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import NotFound, Unavailable
from tuttilab.scheduler.domain.model import JobKind, JobPhase, Queue
from tuttilab.scheduler.simulation.past import Past, read_past
from tuttilab.scheduler.simulation.tune import Bounds, Group, Proposal, Waits, candidates, is_within, tune
from tuttilab.scheduler.simulation.tune_report import config_lines, lines, page
from tuttilab.scheduler.store.base import Batch, Entry
from tuttilab.scheduler.store.memory import MemoryStore
from tuttilab.scheduler.store.sql import SqlStore

MAIN = (Queue("main"),)
SUBMISSION = tuned_queues(MAIN, (("order", "submission"),), 0.0, "op", "")
BOTH = {"order": ("small-first", "submission")}


def past(jobs: int, queues: tuple[Queue, ...] = MAIN) -> Past:
    trace = tuple(long_and_short(jobs))
    return Past(trace, {job.job_id: job.job(order) for order, job in enumerate(trace)}, two_nodes(), (), queues, 0.0)


@pytest.fixture(scope="module")
def found() -> Proposal:
    return tune(past(120, SUBMISSION), bounds=BOTH, least_jobs=100, limit_s=600.0)


def test_what_is_better_on_the_part_it_was_not_chosen_on_is_proposed_and_told_by_queue_and_size(found: Proposal) -> None:
    assert found.values == ()
    assert found.now == (("order", "submission"),)
    assert (found.jobs, found.judged) == (120, 48)
    assert "the built-in rule is better: mean completion" in found.text
    every, queue, small, big = found.groups
    assert [(group.kind, group.name) for group in found.groups] == [
        ("all", "all jobs"),
        ("queue", "main"),
        ("size", "1 GPU or pod"),
        ("size", "4 to 7"),
    ]
    assert every.proposed.done_s < every.now.done_s
    assert every.proposed.is_above(every.easy)
    assert queue.now == every.now
    assert small.better == small.now.jobs == 40
    assert big.now.jobs == 8


def test_a_proposal_is_a_table_and_a_page_without_scripts_with_its_names_escaped(found: Proposal) -> None:
    hostile = replace(found.groups[1], name="<script>alert(1)</script>")
    named = replace(found, groups=(found.groups[0], hostile), values=(("overtaking", 0.3),))
    text = "\n".join(lines(named))
    assert "120 jobs in 0.1 days; in force is order submission." in text
    assert "rule" in text
    assert "proposed" in text
    assert "EASY" in text
    assert config_lines(named) == ["policy: {overtaking: 0.3}"]
    drawn = page(named)
    assert "<script" not in drawn
    assert "&lt;script&gt;alert(1)" in drawn
    assert drawn.count("<svg") == 2
    assert drawn.count("<table") == 2
    assert "prefers-color-scheme:dark" in drawn
    assert "http" not in drawn


def test_too_little_history_is_said_and_nothing_is_replayed() -> None:
    few = tune(past(118), bounds={}, least_jobs=500, limit_s=60.0, progress=lambda text: pytest.fail(text))
    assert few.text == "118 jobs in 1 day; at least 500 are needed."
    assert few.values is None


def test_the_rule_in_force_stays_where_nothing_is_better() -> None:
    stays = tune(past(60), bounds=BOTH, least_jobs=10, limit_s=600.0)
    assert stays.values is None
    assert stays.text == "None of 1 candidates is better than the rule in force, which stays."


def test_a_run_ends_at_its_limit_with_what_it_has() -> None:
    seconds: Iterator[int] = count()
    with pytest.raises(Unavailable, match="over before the rule in force was replayed once"):
        tune(past(60), bounds=BOTH, least_jobs=10, limit_s=10.0, clock=lambda: float(next(seconds)))


def easy(done_s: float = 1000.0, p99_s: float = 5000.0, longest_s: float = 9000.0) -> Waits:
    return Waits(10, 100.0, p99_s, longest_s, done_s)


@pytest.mark.parametrize(
    ("waits", "is_above"),
    [
        (easy(), True),
        (easy(done_s=1000.4), True),
        (easy(done_s=1010.0), False),
        (easy(p99_s=5000 * 1.35 + 600), True),
        (easy(p99_s=5000 * 1.35 + 601), False),
        (easy(longest_s=9000 * 1.5 + 3601), False),
    ],
)
def test_the_floor_is_easy_with_the_same_predictions(waits: Waits, is_above: bool) -> None:
    assert waits.is_above(easy()) is is_above


def test_candidates_change_one_parameter_each_within_the_bounds() -> None:
    assert list(candidates({}, (), {"overtaking": (0.1, 0.2)})) == [("overtaking", 0.1), ("overtaking", 0.2)]
    assert list(candidates({"overtaking": 0.1}, (), {"overtaking": (0.1, 0.2)})) == [("overtaking", 0.15), ("overtaking", 0.2)]
    free = dict.fromkeys(name for name, _ in candidates({}, ("overtaking",), {}))
    assert "order" in free
    assert "overtaking_s" in free
    assert not {"overtaking", "protects", "preempts", "reservation", "explains_all"} & free.keys()


def test_bounds_say_what_a_nightly_run_may_change() -> None:
    bounds: Bounds = {"overtaking": (0.1, 0.2), "order": ("small-first",)}
    assert is_within((("overtaking", 0.2),), (), bounds)
    assert not is_within((("overtaking", 0.3),), (), bounds)
    assert not is_within((("order", "submission"),), (), bounds)
    assert not is_within((("overtaking_s", 300.0),), (), bounds)
    # What an admin set outside of them stays as it is.
    assert is_within((("overtaking_s", 300.0), ("overtaking", 0.1)), (("overtaking_s", 300.0),), bounds)


async def test_the_past_is_what_ran_on_the_nodes_there_were(tmp_path: Path) -> None:
    store = MemoryStore()
    trace = long_and_short(30)
    await fill(store, trace, two_nodes(), MAIN, 1_000_000.0)
    epoch = await store.open()
    last = (await store.load()).last_at
    smaller = replace(two_nodes()[0], nodes=two_nodes()[0].nodes[:1])
    row = await store.job("short-5")
    assert row is not None
    others = (
        replace(row, id="gone", order=900, queue="old"),
        replace(row, id="server", order=901, kind=JobKind.NOTEBOOK, after=("long-0",)),
        replace(row, id="waits", order=902, phase=JobPhase.QUEUED, started_at=None, ended_at=None),
    )
    await store.commit(
        Batch(
            epoch,
            (Entry(ev.ClusterObserved(smaller), 1_000_900.0, "here"), Entry(ev.ClusterLost("here", "no answer"), last, "here")),
            jobs=others,
        )
    )
    read = await read_past(store, 30)
    assert len(read.trace) == 31
    assert read.clusters == two_nodes()
    assert [(at, type(event)) for at, event in read.changes] == [
        (900.0, ev.ClusterObserved),
        (last - 1_000_000.0, ev.ClusterLost),
    ]
    assert read.left_out == ("1 of queue old, which is gone", "1 that had not ended")
    one = next(line for line in read.trace if line.job_id == "short-5")
    assert (one.submit_s, one.duration_s, one.gpus, one.owner, one.name) == (300.0, 120.0, 1, "bob", "<b>test</b>")
    server = read.jobs["server"]
    assert (server.kind, server.is_preemptible, server.after) == (JobKind.BATCH, False, ())
    first = await store.job("long-0")
    assert first is not None
    assert first.ended_at is not None
    assert next(line for line in read.trace if line.job_id == "server").submit_s == first.ended_at - 1_000_000.0


async def test_a_past_without_jobs_or_nodes_is_said() -> None:
    store = MemoryStore()
    await store.open()
    with pytest.raises(NotFound, match="no job that ran in the last 28 days"):
        await read_past(store, 28)


def tune_command(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setenv("TUTTILAB_STATE_DIR", str(folder))
    return run(["scheduler", "tune", *options])


def test_bad_input_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*options: str) -> str:
        assert tune_command(tmp_path, monkeypatch, *options) == 2
        return capsys.readouterr().err

    assert "There is no database sqlite:///" in said()
    assert f"the folder {tmp_path}/none does not exist" in said("--plot", f"{tmp_path}/none/x.html")
    assert "--reset: it replays nothing" in said("--reset", "--apply")
    assert "--limit: 'soon' is not a duration" in said("--limit", "soon")
    (tmp_path / "state.db").write_bytes(b"no database at all" * 100)
    assert "state.db" in said()


def test_what_is_to_be_set_is_refused_before_anything_is_replayed_where_nobody_can_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> None:
        raise Unavailable("nobody")

    monkeypatch.setattr(console, "connected_client", refused)
    assert tune_command(tmp_path, monkeypatch, "--apply") == Unavailable.exit_code
    assert capsys.readouterr().err == "tuttilab: nobody\n"


async def test_a_database_that_is_led_by_another_process_is_read_as_it_is_now(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    await fill(SqlStore(url), long_and_short(12), two_nodes(), MAIN, 1_000_000.0)
    leader, reader = SqlStore(url), SqlStore(url)
    epoch = await leader.open()
    assert await reader.attach()
    await reader.pin_snapshot()
    await leader.commit(Batch(epoch, (Entry(ev.ClusterLost("here", "x"), 2_000_000.0, "here"),)))
    read = await read_past(reader, 30)
    assert (len(read.trace), read.changes) == (12, ())
    await reader.close()
    await leader.close()


def test_a_group_where_nothing_ended_has_no_figures() -> None:
    assert Waits.of([]) == Waits(0, 0.0, 0.0, 0.0, 0.0)
    assert Group("all", "all jobs", Waits.of([]), Waits.of([]), Waits.of([]), 0, 0).better == 0
