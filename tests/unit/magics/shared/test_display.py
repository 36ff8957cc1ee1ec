"""One output area, its pace, and what a terminal gets instead."""

from itertools import pairwise

import pytest

from tests.unit.magics.builders import NOW, a_job
from tuttilab.magics.shared.box import MIME
from tuttilab.magics.shared.display import Area, Shown, bar, count, show_duration, table
from tuttilab.magics.shared.job_text import progress


class Recorder:
    def __init__(self) -> None:
        self.now = 0.0
        self.shown: list[tuple[float, str]] = []
        self.area = Area(lambda shown: self.shown.append((self.now, shown.text)), lambda: self.now)

    def update_at(self, at: float, text: str) -> None:
        self.now = at
        self.area.update(Shown(text))


@pytest.mark.feature("M10")
def test_updates_come_at_most_twice_a_second() -> None:
    recorder = Recorder()
    for tick in range(200):
        recorder.update_at(tick * 0.05, f"{tick}")
    times = [at for at, _ in recorder.shown]
    assert len(times) == 20
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))


def test_the_last_state_is_shown_whatever_the_pace() -> None:
    recorder = Recorder()
    recorder.update_at(0.0, "running")
    recorder.update_at(0.1, "running 2")
    recorder.area.finish(Shown("done"))
    assert [text for _, text in recorder.shown] == ["running", "done"]


def test_what_did_not_change_is_not_shown_again() -> None:
    recorder = Recorder()
    recorder.update_at(0.0, "same")
    recorder.update_at(5.0, "same")
    recorder.area.finish(Shown("same"))
    assert [text for _, text in recorder.shown] == ["same"]


def test_a_header_stays_above_whatever_is_shown() -> None:
    shown: list[Shown] = []
    area = Area(shown.append, now=iter([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).__next__, header="sends: <x> 5 B")
    area.update(Shown("a"))
    area.finish(Shown("b"))
    assert [each.text for each in shown] == ["sends: <x> 5 B\na", "sends: <x> 5 B\nb"]
    assert shown[-1].html == "<div>sends: &lt;x&gt; 5 B</div><pre>b</pre>"


def test_a_terminal_gets_a_line_for_news_only(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter(float(second) for second in range(100))
    area = Area(now=lambda: next(now))
    area.update(Shown("Queued (1 s)", change_key="Queued"))
    area.update(Shown("Queued (2 s)", change_key="Queued"))
    area.update(Shown("Running (3 s)", change_key="Running"))
    area.finish(Shown("Succeeded (4 s)", change_key="Succeeded"))
    assert capsys.readouterr().out.splitlines() == ["Queued (1 s)", "Running (3 s)", "Succeeded (4 s)"]


def test_a_table_aligns_its_text_and_escapes_its_html() -> None:
    shown = table(("a", "b"), [("1", "<b>"), ("22", "x")])
    assert shown.text.splitlines() == ["a   b", "1   <b>", "22  x"]
    assert "&lt;b&gt;" in shown.html


def test_a_bar_is_never_longer_than_full() -> None:
    assert [bar(0, 0), bar(1, 2), bar(5, 2)] == ["░" * 20, "█" * 10 + "░" * 10, "█" * 20]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (273600, "3 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert text == show_duration(seconds)


def test_counted_words() -> None:
    assert [count(1, "job"), count(1200, "job"), count(2, "query", "queries")] == ["1 job", "1,200 jobs", "2 queries"]


def test_a_box_names_its_job_for_lab_beside_its_texts() -> None:
    bundle = progress(a_job(), NOW)._repr_mimebundle_()
    box = {"version": 1, "id": a_job().id, "name": "train", "phase": "Running", "is_ended": False, "at": NOW}
    assert bundle[MIME] == box
    assert set(bundle) == {MIME, "text/html", "text/plain"}
    assert set(Shown("x")._repr_mimebundle_()) == {"text/html", "text/plain"}


def test_a_box_is_the_box_of_its_job_under_a_header_and_after_an_error() -> None:
    drawn: list[Shown] = []
    area = Area(drawn.append, lambda: 0.0, header="sent x")
    area.finish(progress(a_job(), NOW))
    area.finish(Shown("the service does not answer"))
    assert [shown.box and shown.box["id"] for shown in drawn] == [a_job().id, a_job().id]


def test_time_alone_does_not_draw_a_box_again() -> None:
    drawn: list[Shown] = []
    area = Area(drawn.append, lambda: 0.0)
    area.finish(progress(a_job(), NOW))
    area.finish(progress(a_job(), NOW + 0.1))
    assert len(drawn) == 1
