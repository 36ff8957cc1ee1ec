"""What a sweep shows of itself."""

import pytest

from tests.unit.magics.builders import NOW, a_job, a_pod, a_wait, an_ended_job
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import MapHandle
from tuttilab.scheduler.domain.wire import JobView


def sweep(*views: JobView) -> MapHandle:
    return MapHandle([JobHandle.of(view) for view in views])


@pytest.mark.feature("J20")
def test_the_bar_is_over_all_elements_with_their_pace_and_the_first_failures() -> None:
    failed = an_ended_job(a_pod(phase="Ended", exit_code=1, reason="Error"))
    views = [an_ended_job(a_pod(phase="Ended", exit_code=0), phase="Succeeded")] * 5 + [failed] * 5
    lines = sweep(*views, *[a_job()] * 10).shown(NOW).text.splitlines()
    assert lines[0] == "██████████░░░░░░░░░░ 10 of 20 elements done in 30 s (0.3 a second): 5 Failed, 10 Running, 5 Succeeded"
    assert [line[:3] for line in lines[1:4]] == ["[5]", "[6]", "[7]"]
    assert lines[4:] == ["5 elements failed: [5], [6], [7], [8], [9]"]


def test_while_nothing_runs_it_says_why_the_first_one_waits() -> None:
    waiting = a_job(phase="Queued", started_at=None, wait=a_wait(place=1))
    assert "first in line: place 1; research is at its max of 4 GPU" in sweep(waiting, waiting).shown(NOW).text


def test_its_html_is_escaped() -> None:
    evil = an_ended_job(a_pod(phase="Ended", exit_code=1, reason="Error"), name="<script>")
    assert "<script>" not in sweep(evil).shown(NOW, note="<script>").html


def test_it_is_a_sequence_of_handles() -> None:
    handle = sweep(a_job(), a_job(id="b" * 32))
    assert [len(handle), handle[1].id, handle.ids[0][:4]] == [2, "b" * 32, "3f2a"]
    assert repr(handle) == "<2 jobs: 2 Running>"
