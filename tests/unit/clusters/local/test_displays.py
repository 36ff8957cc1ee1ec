"""What a cell displayed, read while its job may write anything there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tuttilab.scheduler.clusters.base import DisplayChunk
from tuttilab.scheduler.clusters.local import displays
from tuttilab.scheduler.clusters.local.displays import NAME, read_displays


def test_whole_lines_are_read_on_from_where_the_last_read_ended(tmp_path: Path) -> None:
    file = tmp_path / NAME
    file.write_text('{"a": 1}\n{"b"')
    assert read_displays(tmp_path, 0) == DisplayChunk(('{"a": 1}',), 9)
    assert read_displays(tmp_path, 9) == DisplayChunk((), 9)
    file.write_text('{"a": 1}\n{"b": 2}\n')
    assert read_displays(tmp_path, 9) == DisplayChunk(('{"b": 2}',), 18)
    assert read_displays(tmp_path, 2**70) == DisplayChunk((), 2**70)


def test_nothing_is_there_before_the_first_output(tmp_path: Path) -> None:
    assert read_displays(tmp_path, 0) == DisplayChunk((), 0)


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), Path.mkdir], ids=["fifo", "link", "folder"]
)
def test_another_kind_of_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / NAME)
    assert read_displays(tmp_path, 0) == DisplayChunk((), 0)


def test_a_line_without_an_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "LARGEST", 10)
    (tmp_path / NAME).write_text("x" * 25 + "\n{}\n")
    assert read_displays(tmp_path, 0) == DisplayChunk((), 10)
    assert read_displays(tmp_path, 20) == DisplayChunk(("xxxxx", "{}"), 29)
