"""How a job reads: live, ended in every way there is, listed, and a queue's use."""

import html
import re
import time
from typing import Any

import pytest

from tests.unit.magics.builders import NOW, a_job, a_pod, a_wait, an_attempt, an_ended_job
from tuttilab.magics.shared.job_text import (
    end_sentence,
    explanation,
    job_detail,
    job_table,
    progress,
    quota_table,
    short_id,
    waiting,
)
from tuttilab.scheduler.domain.wire import KeptView, PassedView, QueueView, UseView


@pytest.mark.feature("B02")
def test_a_waiting_job_shows_reason_place_and_estimate() -> None:
    wait = a_wait(earliest=NOW + 250, latest=NOW + 900, basis="past run times of 3 jobs ahead")
    view = a_job(phase="Queued", started_at=None, wait=wait)
    first, last = (time.strftime("%H:%M", time.localtime(at)) for at in (NOW + 250, NOW + 900 + 59))
    assert progress(view, NOW).text == (
        f"job 3f2a9c12 'train': Waiting, starts between {first} and {last}, from past run times of 3 jobs ahead; place 2; "
        "research is at its max of 4 GPU (waited 30 s)"
    )


def test_B02_a_job_without_a_basis_is_told_no_start() -> None:
    wait = a_wait(sentence="short", place=1, basis="no start is told: a job ahead has no time limit and no past run to go by")
    assert waiting(wait, NOW) == "place 1; short"
    assert "no time limit and no past run" in explanation(a_job(phase="Queued", wait=wait), wait, NOW).text


def test_a_time_is_never_glued_to_the_reason_in_html() -> None:
    failed = an_ended_job(a_pod(phase="Ended", exit_code=1), reason="it exited with code 1")
    assert (
        html.unescape(re.sub("<.*?>", "", progress(failed, NOW).html))
        == "job 3f2a9c12 'train': Failed, it exited with code 1 (10 s)"
    )


def test_a_running_job_shows_its_time_and_last_lines_without_colours() -> None:
    shown = progress(a_job(), NOW, ["\x1b[31mred\x1b[0m\x07\x1b]0;title\x07", " 10%\r 50%\r100%"])
    assert shown.text == "job 3f2a9c12 'train': Running (10 s)\n  | red\n  | 100%"


@pytest.mark.feature("M10")
def test_a_gang_shows_how_many_members_are_how_far() -> None:
    attempt = an_attempt(a_pod(0), a_pod(1, phase="Ready"), a_pod(2), a_pod(-1, role="master"))
    assert "Running, 1 Ready, 2 Running (10 s)" in progress(a_job(attempts=(attempt,)), NOW).text


def test_a_silent_cluster_is_said() -> None:
    assert "its cluster has not answered for 1 min 05 s" in progress(a_job(unreachable_since=NOW - 65), NOW).text


def test_html_is_made_of_escaped_text_only() -> None:
    evil = "<img src=x onerror=alert(1)>"
    view = a_job(name=evil, reason=evil, wait=a_wait(sentence=evil), attempts=(an_attempt(a_pod(node=evil, reason=evil)),))
    for shown in (
        progress(view, NOW, [evil], evil),
        job_table([view], NOW, True),
        job_detail(view, NOW),
        explanation(view, view.wait, NOW),
    ):
        assert "<img" not in shown._repr_mimebundle_()["text/html"]


ENDS: list[tuple[Any, dict[str, Any], str]] = [
    (None, {"phase": "Succeeded"}, "job 3f2a9c12 'train' succeeded."),
    (None, {"phase": "Cancelled"}, "job 3f2a9c12 'train' was cancelled; `%job 3f2a9c12 retry` runs it again."),
    (
        a_pod(phase="Ended", exit_code=137, reason="OOMKilled"),
        {},
        "job 3f2a9c12 'train' ran out of memory (it asked for 1Gi a pod); give it more with --memory, or send and load less.",
    ),
    (
        a_pod(phase="Ended", exit_code=143, reason="Stopped"),
        {"attempt_reason": "Timeout", "timeout_s": 600.0},
        "job 3f2a9c12 'train' passed its time limit of 10 min 00 s and was stopped; give it more with --timeout.",
    ),
    (
        a_pod(phase="Ended", exit_code=139, reason="Error"),
        {},
        "job 3f2a9c12 'train' was killed by SIGSEGV; `%job 3f2a9c12 logs` shows what it printed last.",
    ),
    (
        a_pod(phase="Ended", exit_code=None, reason="Lost"),
        {},
        "job 3f2a9c12 'train' was lost: its process or node went away and nobody can tell how it ended; "
        "`%job 3f2a9c12 retry` runs it again, and --retries does so by itself.",
    ),
    (
        a_pod(phase="Ended", exit_code=127, reason="CommandNotFound"),
        {},
        "job 3f2a9c12 'train' found no Python to run the cell with; --image must name an image that has one.",
    ),
    (
        a_pod(phase="Ended", exit_code=78, reason="Error"),
        {},
        "job 3f2a9c12 'train' could not read the cell: its Python or cloudpickle differs from this notebook's; "
        "`%job 3f2a9c12 logs` names both, and --python or --image must have the same Python minor version.",
    ),
    (
        a_pod(phase="Ended", exit_code=3, reason="Error"),
        {"job_reason": "Error"},
        "job 3f2a9c12 'train' ended with exit code 3; `%job 3f2a9c12 logs` shows what it printed.",
    ),
    (
        None,
        {"job_reason": "no node has 8 GPU"},
        "job 3f2a9c12 'train' could not start: no node has 8 GPU.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("pod", "more", "sentence"), ENDS, ids=[sentence[20:44] for *_, sentence in ENDS])
def test_every_end_is_one_sentence_with_what_to_do(pod: Any, more: dict[str, Any], sentence: str) -> None:
    assert sentence == end_sentence(an_ended_job(pod, **more))


def test_in_a_gang_the_first_that_failed_by_itself_is_named() -> None:
    pods = (
        a_pod(0, phase="Ended", exit_code=143, reason="Stopped", ended_at=NOW),
        a_pod(1, phase="Ended", exit_code=139, reason="Error", ended_at=NOW - 1),
        a_pod(2, phase="Ended", exit_code=1, reason="Error", ended_at=NOW - 0.5),
    )
    view = a_job(phase="Failed", is_ended=True, ended_at=NOW, attempts=(an_attempt(*pods),))
    assert "killed by SIGSEGV on rank 1;" in end_sentence(view)


def test_jobs_are_a_table_with_the_reason_of_the_waiting_ones() -> None:
    shown = job_table([a_job(), a_job(id="aaaabbbbcccc", phase="Queued", started_at=None, wait=a_wait())], NOW, False)
    assert shown.text.splitlines()[0].split() == ["id", "name", "queue", "phase", "time", "why"]
    assert shown.text.splitlines()[2] == "aaaabbbb  train  research  Waiting  waited 30 s  place 2; research is at its max of 4 GPU"
    assert job_table([], NOW, False).text == "No live jobs; `%jobs -a` lists those that ended."


@pytest.mark.feature("B02")
def test_explain_says_what_is_missing_and_who_holds_it() -> None:
    wait = a_wait(
        short={"nvidia.com/gpu": "2"}, held_by=("your job 'prep' (aaaabbbb), about 20m left", "2 more jobs of other groups")
    )
    text = explanation(a_job(phase="Queued", wait=wait), wait, NOW).text
    assert text.splitlines() == [
        "job 3f2a9c12 'train': place 2; research is at its max of 4 GPU.",
        "missing: 2 nvidia.com/gpu",
        "held by: your job 'prep' (aaaabbbb), about 20m left; 2 more jobs of other groups",
    ]


@pytest.mark.feature("B02")
def test_explain_says_what_is_held_for_it_and_who_was_started_past_that() -> None:
    late = PassedView(
        job="job 'prep' (aaaabbbb) of ben",
        promise="was predicted to end before its start",
        started_at=NOW - 60,
        kept_start=NOW - 5,
        nodes=("n3",),
        must_end=True,
    )
    kept = KeptView(cluster="gpu", nodes=("n3", "n5"), start=NOW - 5, trusts="predictions")
    wait = a_wait(kept=kept, passed=(late,), overtaken_s=120.0, allowed_s=1860.0)
    first, held, passed, overtaken = explanation(a_job(phase="Queued", wait=wait), wait, NOW).text.splitlines()
    assert first.startswith("job 3f2a9c12 'train': place 2")
    assert held == (
        "kept for it: n3, n5 on cluster gpu, from now on; "
        "until then others may use it as far as predictions say that they will be gone"
    )
    assert passed.startswith("passed by job 'prep' (aaaabbbb) of ben at ")
    assert passed.endswith(", too late")
    assert " on n3: was predicted to end before its start (" in passed
    assert overtaken == (
        "jobs submitted later used as much as all of the site for 2m while it waited; it goes before them from 31m on"
    )


def test_quota_has_a_bar_for_each_resource() -> None:
    use = UseView(resource="nvidia.com/gpu", used=3, guaranteed=2, max=4, used_text="3", guaranteed_text="2", max_text="4")
    queue = QueueView(name="research", parent="root", weight=1, priority=0, groups=(), waiting=1, running=2, use=(use,), mine=True)
    shown = quota_table([queue])
    assert shown.text.splitlines()[1] == "research  nvidia.com/gpu  ███████████████░░░░░  3 of 4  2"
    assert shown.text.splitlines()[2] == "research: 2 jobs running, 1 waiting"
    assert '<progress max="4" value="3"></progress>' in shown.html


def test_short_ids_are_long_enough_for_the_service() -> None:
    assert len(short_id("0" * 32)) == 8
