"""What a sweep shows of itself."""

import pytest

from tests.unit.magics.builders import NOW, a_job, a_pod, a_wait, an_attempt, an_ended_job
from tuttilab.magics.handle import JobHandle
from tuttilab.magics.jobs_magic import manifest
from tuttilab.magics.map_handle import MapHandle
from tuttilab.scheduler.wire import JobView

pytestmark = pytest.mark.feature("J20")


def sweep(*views: JobView) -> MapHandle:
    return MapHandle([JobHandle.of(view) for view in views])


def test_the_bar_is_over_all_elements_with_their_pace_and_the_first_failures() -> None:
    failed = an_ended_job(a_pod(phase="Ended", exit_code=1, reason="Error"))
    views = [an_ended_job(a_pod(phase="Ended", exit_code=0), phase="Succeeded")] * 5 + [failed] * 5
    lines = sweep(*views, *[a_job()] * 10).shown(NOW).text.splitlines()
    assert lines[0] == "██████████░░░░░░░░░░ 10 of 20 elements done in 30 s (0.3 a second): 5 Failed, 10 Running, 5 Succeeded"
    assert [line[:3] for line in lines[1:4]] == ["[5]", "[6]", "[7]"]
    assert lines[4:] == ["… and 2 more"]


def test_while_nothing_runs_it_says_why_the_first_one_waits() -> None:
    waiting = a_job(phase="Queued", started_at=None, wait=a_wait(place=1))
    assert "first in line: research is at its max of 4 GPU; place 1" in sweep(waiting, waiting).shown(NOW).text


def test_its_html_is_escaped() -> None:
    evil = an_ended_job(a_pod(phase="Ended", exit_code=1, reason="Error"), name="<script>")
    assert "<script>" not in sweep(evil).shown(NOW, note="<script>").html


def test_it_is_a_sequence_of_handles() -> None:
    handle = sweep(a_job(), a_job(id="b" * 32))
    assert [len(handle), handle[1].id, handle.ids[0][:4]] == [2, "b" * 32, "3f2a"]
    assert repr(handle) == "<2 jobs: 2 Running>"


def test_the_manifest_leaves_out_what_may_be_secret() -> None:
    view = a_job(command=("python", "x.py"), timeout_s=90.0, attempts=(an_attempt(a_pod()),))
    assert manifest(view).splitlines() == [
        "kind: Job",
        "name: train",
        "queue: research",
        "pods:",
        "- role: worker",
        "  count: 1",
        "  cpus: '1'",
        "  memory: 1Gi",
        "command:",
        "- python",
        "- x.py",
        "timeout: 90s",
    ]
