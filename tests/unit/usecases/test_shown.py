"""What a page shows of a cell's outputs: the last state of each, pictures as they are, and nothing that could run."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tuttilab.scheduler.usecases.shown import LONGEST_TEXT, MOST_SHOWN, Shown, lines_of, read_shown
from tuttilab.sidecar.cell.display import Displays

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()


def kept(folder: Path, *records: Any) -> Path:
    path = folder / "display.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_outputs_of_a_cell_in_their_last_state_and_its_value(tmp_path: Path) -> None:
    path = tmp_path / "display.jsonl"
    shown = Displays(str(path))
    shown.show({"text/plain": "gone"})
    shown.clear()
    shown.show({"text/plain": "epoch 1"}, name="bar")
    shown.show({"text/plain": "<Figure>", "image/png": PNG})
    shown.show({"text/plain": "epoch 9"}, name="bar", update=True)
    shown.show({"text/plain": "nobody's"}, name="other", update=True)
    path.open("a").write(json.dumps({"value": {"text/plain": "   a\n0  1", "text/html": "<table>"}}) + "\n")

    assert read_shown(lines_of(path)) == (
        [
            Shown("epoch 9"),
            Shown("<Figure>", "image/png", PNG),
            Shown("   a\n0  1", others=("text/html",), is_value=True),
        ],
        0,
    )


def test_no_more_than_a_page_bears(tmp_path: Path) -> None:
    big = "A" * (5 * 2**20)
    records = [{"data": {"text/plain": "x" * 100_000}} for _ in range(MOST_SHOWN)]
    pictures = [{"data": {"text/plain": "", "image/png": big}} for _ in range(3)]

    shown, more = read_shown(lines_of(kept(tmp_path, *records, *pictures)))

    assert (len(shown), more) == (MOST_SHOWN, 3)
    assert {len(one.text) for one in shown} == {LONGEST_TEXT, 0}
    assert [len(one.picture) for one in shown[-3:]] == [len(big), len(big), 0]


@pytest.mark.parametrize(
    "record",
    [
        {"data": {"image/png": 'x" onerror="alert(1)'}},
        {"data": {"image/png": ["a", "b"]}},
        {"data": {"image/svg+xml": "<svg onload=alert(1)>"}},
        {"data": {"text/html": "<script>alert(1)</script>", "text/plain": {"not": "text"}}},
        {"data": {"<script>": "x"}},
    ],
)
def test_nothing_that_could_run_gets_through(tmp_path: Path, record: dict[str, Any]) -> None:
    shown, more = read_shown(lines_of(kept(tmp_path, record)))

    assert more == 0
    assert [(one.text, one.picture, one.kind) for one in shown] == [("", "", "")]
    assert all("<" not in kind for one in shown for kind in one.others)


def test_other_bytes_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "display.jsonl"
    path.write_bytes(b"\xff\x00 no json\n[1]\n3\n" + b"[" * 100_000 + b"\n{}\n")

    assert read_shown(lines_of(path)) == ([], 0)
    assert read_shown(lines_of(tmp_path / "missing")) == ([], 0)
