"""What the owner of a waiting gang sees: the room that is held for it, and who was started past that by which promise."""

from dataclasses import replace

import pytest

from tests.builders import cluster, end_all, node, queue, start_all, state, submit
from tests.unit.core.test_told_starts import BOB, EVE, cycle
from tuttilab.scheduler.api.views import job_view
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.model import Job, Promise
from tuttilab.scheduler.domain.wire import WaitView
from tuttilab.scheduler.domain.words import kept_text, overtaken_text, passed_text


def with_a_hold() -> tuple[State, Job]:
    """Two nodes of four cores, one of them taken for an hour, and a gang that wants both."""
    one = state([cluster(node("a", cpus=4), node("b", cpus=4))], [queue("main", groups=("research", "others"))])
    first = submit(one, cpus=4, name="first", timeout="1h", sidecar=False)
    cycle(one, 0.0)
    start_all(one, first.id, 0.0)
    wide = submit(one, workers=2, cpus=4, name="wide", at=10.0, sidecar=False)
    cycle(one, 10.0)
    return one, wide


def wait_of(of: State, job: Job) -> WaitView:
    view = job_view(of.jobs[job.id], [], of).wait
    assert view is not None
    return view


@pytest.mark.feature("B02")
def test_the_room_that_is_held_is_told_with_its_nodes_and_start() -> None:
    one, wide = with_a_hold()
    behind = submit(one, cpus=4, at=11.0, sidecar=False)
    cycle(one, 11.0)
    kept = wait_of(one, wide).kept
    assert kept is not None
    assert (kept.cluster, set(kept.nodes), kept.trusts) == ("here", {"a", "b"}, "predictions")
    assert kept.start > 11.0
    assert wait_of(one, behind).kept is None
    assert kept_text(kept, kept.start).startswith("a, b on cluster here, from now on; until then others may use it as far as ")


@pytest.mark.feature("B02")
def test_who_was_started_past_a_hold_is_told_by_its_promise() -> None:
    one, wide = with_a_hold()
    small = submit(one, cpus=1, name="small", timeout="10m", at=20.0, sidecar=False, who=BOB)
    hidden = submit(one, cpus=1, name="secret", timeout="5m", at=21.0, sidecar=False, who=EVE)
    cycle(one, 22.0)
    other, mine = wait_of(one, wide).passed
    assert (mine.promise, mine.nodes, mine.started_at, mine.ends_by) == (Promise.PREDICTION.text, ("b",), 22.0, 622.0)
    assert mine.job == f"job 'small' ({small.id[:8]}) of bob"
    assert other.job == "a job of another group"
    assert mine.must_end
    assert "was predicted to end before its start (" in passed_text(mine, 30.0)
    assert "too late" not in passed_text(mine, 30.0)
    assert passed_text(mine, mine.kept_start + 1).endswith(", too late")
    for late in (small, hidden):
        start_all(one, late.id, 22.0)
    end_all(one, small.id, 0, 300.0)
    assert [each.ended_at for each in wait_of(one, wide).passed] == [None, 300.0]
    loaded = State.load(one.jobs.values(), one.attempts.values(), one.queues.values(), 1)
    assert {key[0] for key in loaded.passed[wide.id]} == {small.id, hidden.id}


def test_who_stood_before_it_in_line_is_no_one_that_was_started_past_its_hold() -> None:
    one, wide = with_a_hold()
    before = replace(wide, id="before", order=-1)
    assert wide.id not in one.passed
    decision = schedule(one.snapshot(also=before), 20.0)
    assert [admitted.past for admitted in decision.admitted] == []


def test_what_passed_a_gang_is_forgotten_when_it_starts() -> None:
    one, wide = with_a_hold()
    small = submit(one, cpus=1, name="small", timeout="10m", at=20.0, sidecar=False)
    cycle(one, 22.0)
    assert one.attempts[small.id, 1].past[0].job_id == wide.id
    start_all(one, small.id, 22.0)
    end_all(one, small.id, 0, 300.0)
    end_all(one, next(iter(one.jobs)), 0, 400.0)
    cycle(one, 400.0)
    assert one.live_attempt(wide.id) is not None
    assert one.passed == {}


def test_how_far_later_jobs_overtook_it_is_told_with_what_is_allowed() -> None:
    one, wide = with_a_hold()
    submit(one, cpus=4, name="small", timeout="10m", at=20.0, sidecar=False)
    cycle(one, 22.0)
    cycle(one, 422.0)
    wait = wait_of(one, wide)
    assert wait.overtaken_s == pytest.approx(200.0)
    assert wait.allowed_s == pytest.approx(2 * (0.15 * 412.0 + 900.0))
    assert overtaken_text(wait) == (
        "jobs submitted later used as much as all of the site for 3m20s while it waited; it goes before them from 32m04s on"
    )
    assert overtaken_text(replace(wait, is_protected=True)).endswith("; so it goes before them now")
