"""The copy of a pod's log, also over a restart in the midst of it."""

import shutil
from pathlib import Path

from tuttilab.scheduler.clusters.kubernetes.logs import PLACE, WHOLE, LogCopy
from tuttilab.scheduler.clusters.local.logs import PodLog


def lines(*texts: str, first: int = 0) -> list[bytes]:
    return [f"2026-11-29T12:00:00.{first + number:09d}Z {text}".encode() for number, text in enumerate(texts)]


def read(folder: Path, cap: int = 2**20) -> tuple[str, ...]:
    return PodLog(folder, cap).read(0, 1000, is_over=True).lines


def test_lines_come_without_their_times_and_in_their_newest_state(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add(lines("a", "", "10 %\r20 %\r", "x" * 9000))
    copy.close()

    assert read(tmp_path) == ("a", "", "20 %", "x" * 8192)


def test_who_comes_back_goes_on_after_the_last_line_that_was_noted(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add(lines("a", "b"))
    copy.close()

    again = LogCopy(tmp_path)
    again.begin()
    again.add(lines("a", "b", "c"))
    again.close()

    assert read(tmp_path) == ("a", "b", "c")


def test_a_kill_between_the_copy_and_its_note_repeats_nothing(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add(lines("a"))
    noted = (tmp_path / PLACE).read_bytes()
    copy.add(lines("b", "c", first=1))
    copy.close()
    (tmp_path / PLACE).write_bytes(noted)
    with (tmp_path / "log").open("ab") as file:
        file.write(b"half a li")

    again = LogCopy(tmp_path)
    again.begin()
    again.add(lines("a", "b", "c", "d", "e"))
    again.close()

    assert read(tmp_path) == ("a", "b", "c", "d", "e")


def test_lines_of_one_instant_are_all_kept(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add([*lines("a"), *lines("b"), *lines("c")])
    copy.close()

    assert read(tmp_path) == ("a", "b", "c")


def test_a_log_that_is_too_long_says_so_and_still_takes_our_own_line(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path, cap=2**20)
    copy.begin()
    for number in range(200):
        copy.add(lines("x" * 8000, first=number))
    copy.finish("it did not end well")
    copy.close()

    shown = read(tmp_path, 2**22)
    assert shown[-2:] == ("tuttilab: the log is kept up to 1 MiB; what follows is not.", "tuttilab: it did not end well")
    assert (tmp_path / "log").stat().st_size < 2**20 + 200


def test_a_copy_whose_folder_was_erased_says_nothing_of_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "pod"
    old = LogCopy(folder)
    old.begin()
    old.add(lines("before"))
    shutil.rmtree(folder)
    new = LogCopy(folder)

    old.add(lines("late", first=1))
    old.finish("it was stopped")

    assert not (folder / WHOLE).exists()
    assert read(folder) == ()
    for copy in (old, new):
        copy.close()
