"""`tuttilab jobs` on a terminal: lines that fit, times of day, and the screen of `--watch`."""

import time

import pytest

from tests.unit.magics.builders import a_job, a_wait
from tuttilab.scheduler.cli.console import when
from tuttilab.scheduler.cli.listing import cells, cut, fitted, screen, why
from tuttilab.scheduler.domain.wire import JobView

NOW = time.mktime((2026, 11, 29, 14, 5, 33, 0, 0, -1))


def jobs() -> list[JobView]:
    wait = a_wait(sentence="waits for 2 GPU of queue research, which 3 jobs of your group use; cancel one or ask for fewer GPUs")
    return [
        a_job(name="train", created_at=NOW - 60, started_at=NOW - 30),
        a_job(
            id="9" * 26,
            name="an-evaluation-with-a-long-name-of-its-own",
            phase="Queued",
            started_at=None,
            wait=wait,
            created_at=NOW,
        ),
        a_job(id="7" * 26, name="训练模型", created_at=NOW - 86400, started_at=NOW - 30, reason="line one\nline two \x1b[2J"),
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_every_job_has_one_line_that_fits_the_terminal(width: int) -> None:
    lines = fitted(jobs(), width, NOW)

    assert len(lines) == 4
    assert all(cells(line) <= width for line in lines), lines
    assert not any(character in line for line in lines for character in "\n\x1b")


def test_at_80_columns_stand_id_name_phase_time_and_why() -> None:
    head, first, second, third = fitted(jobs(), 80, NOW)

    assert head.split() == ["ID", "NAME", "PHASE", "TIME", "RAN", "WHY"]
    assert first.split()[1:4] == ["train", "Running", "14:04"]
    assert second.startswith("99999999  an-evaluation-with")
    assert "waits for 2 GPU" in second
    assert second.endswith("…")
    assert "训练模型" in third
    assert " Nov 28 " in third


def test_a_wide_terminal_shows_reasons_whole() -> None:
    assert "ask for fewer GPUs" in fitted(jobs(), 220, NOW)[2]


def test_the_date_is_there_when_the_day_is_another() -> None:
    assert when(NOW - 3600, NOW) == "13:05"
    assert when(NOW - 86400, NOW) == "Nov 28"
    assert when(NOW - 400 * 86400, NOW) == "2025-10-25"


def test_a_cut_text_counts_cells_and_not_letters() -> None:
    assert cut("训练模型", 6) == "训练…"
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"


def test_the_screen_of_watch_has_as_many_jobs_as_lines() -> None:
    lines = screen(jobs() * 10, 80, 12, NOW, "Nobody answers.")

    assert lines[0] == "14:05:33  20 Running, 10 Waiting  (Ctrl-C ends)"
    assert lines[1] == "Nobody answers."
    assert len(lines) <= 12
    assert lines[-1] == "… and 23 more"


def test_a_job_whose_cluster_does_not_answer_says_so_and_for_how_long() -> None:
    since = time.time() - 65

    assert why(a_job(unreachable_since=since, cluster="k")) == "cluster k has not answered for 1m05s"
    assert why(a_job(unreachable_since=since, cluster="k", reason="cancelled")).startswith("cancelled; cluster k has not answered")
    assert why(a_job(unreachable_since=since, is_ended=True, reason="exited with code 1")) == "exited with code 1"
