"""The progress line: quiet for short cells, at most two updates a second, never backwards."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tuttilab.magics.spark.progress import ProgressLine, Status


@dataclass
class Stage:
    num_tasks: int
    num_completed_tasks: int


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def line() -> tuple[ProgressLine, list[Status], Clock]:
    shown: list[Status] = []
    clock = Clock()
    return ProgressLine(shown.append, clock), shown, clock


def test_a_cell_under_half_a_second_shows_nothing() -> None:
    progress, shown, clock = line()
    clock.time = 0.4
    progress([Stage(10, 1)], 2, "op", False)
    progress([Stage(10, 10)], 0, "op", True)
    progress.finish("done")
    assert shown == []


@pytest.mark.feature("M10")
def test_a_thousand_events_in_ten_seconds_give_at_most_twenty_updates_and_an_end() -> None:
    progress, shown, clock = line()
    for event in range(1000):
        clock.time = event / 100
        progress([Stage(1000, event)], 2, "op", False)
    progress.finish("done")
    assert 18 <= len(shown) <= 21
    assert str(shown[-1]) == repr(Status("Spark: done, 999 tasks, 10.0 s", None))


def test_the_bar_stays_where_it_is_while_totals_grow() -> None:
    progress, shown, clock = line()
    for second, (total, complete) in enumerate([(10, 8), (100, 10), (100, 50), (100, 90), (200, 200)], 1):
        clock.time = float(second)
        progress([Stage(total, complete)], 1, "op", False)
    assert [status.fraction for status in shown] == [0.8, 0.8, 0.8, 0.9, 0.99]


def test_operations_of_one_cell_are_added_up() -> None:
    progress, shown, clock = line()
    clock.time = 1
    progress([Stage(4, 4)], 0, "first", False)
    clock.time = 2
    progress([Stage(4, 0)], 3, "second", False)
    assert shown[-1].text == "99%  4 of 8 tasks, 1 of 2 stages, 3 running, 2 s"


def test_waiting_shows_its_reason_at_once() -> None:
    progress, shown, _clock = line()
    progress.wait_reason("queued: quota of research is used up")
    assert repr(shown[0]) == "queued: quota of research is used up"
    assert shown[0]._repr_mimebundle_()["text/html"] == "<div>queued: quota of research is used up</div>"


def test_a_status_reads_well_as_text_and_escapes_html() -> None:
    status = Status("50%  <1> of 2", 0.5)
    assert repr(status) == "██████████░░░░░░░░░░ 50%  <1> of 2"
    assert status._repr_mimebundle_()["text/html"] == ('<div><progress max="100" value="50"></progress> 50%  &lt;1&gt; of 2</div>')
