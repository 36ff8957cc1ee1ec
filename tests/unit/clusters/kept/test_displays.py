"""What a cell displayed, read while its job may write anything there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tuttilab.scheduler.clusters.base import DisplayChunk
from tuttilab.scheduler.clusters.kept import displays
from tuttilab.scheduler.clusters.kept.displays import NAME, read_displays
from tuttilab.scheduler.domain.errors import TooLarge


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


def test_lines_that_a_pod_sends_are_kept_in_order_and_whole(tmp_path: Path) -> None:
    assert displays.append(tmp_path, 0, b'{"a": 1}\n{"b"') == 9
    assert displays.append(tmp_path, 9, b'{"b": 2}\n') == 18
    assert displays.append(tmp_path, 0, b'{"a": 1}\n') == 18  # a side-car that was restarted hears where to go on
    assert displays.append(tmp_path, 99, b'{"z": 9}\n') == 18
    assert displays.append(tmp_path, 18, b"") == 18
    assert displays.read_displays(tmp_path, 0).lines == ('{"a": 1}', '{"b": 2}')


def test_no_more_is_kept_of_a_pod_than_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "MOST", 20)
    assert displays.append(tmp_path, 0, b"x" * 9 + b"\n") == 10
    with pytest.raises(TooLarge, match="21 bytes of one pod; at most 20 are shown before its end"):
        displays.append(tmp_path, 10, b"y" * 10 + b"\n")
    assert displays.read_displays(tmp_path, 0).lines == ("x" * 9,)


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / displays.NAME).symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        displays.append(tmp_path, 0, b"{}\n")
    assert (tmp_path / "other").read_text() == "kept"
