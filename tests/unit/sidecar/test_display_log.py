"""What the log says of an output that is more than text: one line where it was shown, none for its changes."""

import base64
import struct
import sys
from pathlib import Path

import pytest

from tuttilab.sidecar.cell.display import LARGEST, Displays
from tuttilab.sidecar.cell.log_line import MOST_LINES, LogLines

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 640, 480) + b"\x08" * 22_980).decode()
FIGURE = {"text/plain": "<Figure size 640x480 with 1 Axes>", "image/png": PNG}
HTML = {"text/plain": "<IPython.core.display.HTML object>", "text/html": "<b>bold</b>"}
FIRST = {"TUTTILAB_JOB_ID": "3f2a9c1200112233", "TUTTILAB_RANK": "0"}


def displays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Displays:
    """Of a process whose own output is what the test reads."""
    monkeypatch.setattr(sys, "__stdout__", sys.stdout)
    for name in ("TUTTILAB_JOB_ID", "TUTTILAB_RANK", "TUTTILAB_MAP_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return Displays(str(folder / "display.jsonl"))


def test_a_figure_has_its_size_and_the_ways_to_it() -> None:
    assert LogLines(FIRST).next_of(FIGURE) == (
        "[figure 1: image/png, 640x480, 23 kB; see the cell, the job's page in JupyterLab or %attach 3f2a9c12]"
    )


def test_html_is_not_on_the_page_of_the_job() -> None:
    assert LogLines(FIRST).next_of(HTML) == "[output 1: text/html, 11 B; see the cell or %attach 3f2a9c12]"


def test_figures_and_other_outputs_are_counted_apart() -> None:
    lines = LogLines({})

    assert [lines.next_of(data).partition(":")[0] for data in (FIGURE, HTML, {"text/plain": "'text'"}, FIGURE)] == [
        "[figure 1", "[output 1", "", "[figure 2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "ways"),
    [
        ({}, "see the cell or the job's page in JupyterLab]"),
        ({**FIRST, "TUTTILAB_RANK": "3"}, "see .displays(rank=3) of the handle]"),
        ({**FIRST, "TUTTILAB_MAP_INDEX": "7"}, "see the job's page in JupyterLab or [7].displays() of the handle]"),
    ],
)
def test_where_the_cell_shows_nothing_another_way_is_named(environ: dict[str, str], ways: str) -> None:
    assert LogLines(environ).next_of(FIGURE).partition("; ")[2] == ways


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"image/png": "no picture"}, "[figure 1: image/png, 7 B;"),
        ({"image/png": "%%%"}, "[figure 1: image/png, 2 B;"),
        ({"image/svg+xml": "<svg/>" * 250, "text/plain": ""}, "[figure 1: image/svg+xml, 1.5 kB;"),
        ({"application/json": {"a": [1]}}, "[output 1: application/json, 10 B;"),
        ({"text/html": "x" * 2_100_000}, "[output 1: text/html, 2.1 MB;"),
        ({"text/html": "<p>", "text/plain": "<pandas.io.formats.style.Styler object at 0x7f00>"}, "[output 1: text/html, 3 B;"),
    ],
)
def test_any_kind_is_named(data: dict[str, object], line: str) -> None:
    assert LogLines({}).next_of(data).startswith(line)


@pytest.mark.parametrize("data", [{}, {"text/plain": ""}, {"text/plain": "a  b", "text/html": "<table>"}])
def test_what_is_text_or_nothing_has_no_line(data: dict[str, object]) -> None:
    assert LogLines({}).next_of(data) == ""


def test_many_outputs_have_a_limited_number_of_lines() -> None:
    lines = LogLines(FIRST)
    found = [line for line in (lines.next_of(HTML) for _ in range(3 * MOST_LINES)) if line]

    assert len(found) == MOST_LINES + 1
    assert found[-1] == "[further figures and outputs have no line here; see the cell or %attach 3f2a9c12]"


def test_a_line_stands_where_the_output_was_shown_and_changes_leave_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = displays(tmp_path, monkeypatch)
    sys.stdout.write("before\n")
    shown.show(HTML, name="bar")
    for _ in range(50):
        shown.show(HTML, name="bar", update=True)
    sys.stdout.write("between\n")
    for step in range(50):
        shown.clear()
        shown.show(FIGURE)
        if step > 40:
            shown.show(FIGURE)
    shown.show({"text/plain": "'text'"}, name="said")
    shown.show({"text/plain": "'changed'"}, name="said", update=True)

    assert [line.partition(";")[0] for line in capsys.readouterr().out.splitlines()] == [
        "before", "[output 1: text/html, 11 B", "between", "[figure 1: image/png, 640x480, 23 kB",
        "[figure 2: image/png, 640x480, 23 kB", "'text'",
    ]  # fmt: skip


def test_an_output_that_is_too_large_is_not_named_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    displays(tmp_path, monkeypatch).show({"text/html": "x" * (LARGEST + 1)})

    told = capsys.readouterr()
    assert told.out == ""
    assert "an output of 8 MiB is not shown" in told.err
