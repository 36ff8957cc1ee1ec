"""The writer of a pod's log and its reader: whatever is dropped, a line keeps its number."""

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tuttilab.scheduler.clusters.base import LogChunk
from tuttilab.scheduler.clusters.kept.logs import PodLog as Reader
from tuttilab.sidecar.log import LINE_BYTES, PodLog
from tuttilab.sidecar.log_times import MOST, Times

CAP = 4096


def lines(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"line {number:04d}" for number in range(first, last))


def written(folder: Path, count: int, block: int = 7, cap: int = CAP) -> Reader:
    log = PodLog(str(folder), cap)
    text = "".join(f"{line}\n" for line in lines(0, count)).encode()
    for at in range(0, len(text), block):
        log.write(text[at : at + block])
    log.close()
    return Reader(folder, cap)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("log*"))


def test_short_log_is_whole(tmp_path: Path) -> None:
    reader = written(tmp_path, 50)

    assert reader.read(0, 100, is_over=True) == LogChunk(0, lines(0, 50), True)
    assert reader.read(10, 5, is_over=True) == LogChunk(10, lines(10, 15), False)
    assert reader.read(45, 5, is_over=True) == LogChunk(45, lines(45, 50), True)
    assert reader.read(50, 5, is_over=True) == LogChunk(50, (), True)


def test_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    reader = written(tmp_path, 5000)

    assert 3 * CAP // 4 < size(tmp_path) <= CAP
    assert reader.read(0, 20, is_over=True) == LogChunk(0, lines(0, 20), False)
    assert reader.read(4990, 20, is_over=True) == LogChunk(4990, lines(4990, 5000), True)


def test_gap_is_one_line_with_the_number_of_the_last_dropped(tmp_path: Path) -> None:
    reader = written(tmp_path, 5000)
    head = reader.read(0, 5000, is_over=True)

    gap = reader.read(len(head.lines), 3, is_over=True)

    assert head == LogChunk(0, lines(0, 102), False)
    dropped = (gap.start + 1 - 102) * 10
    assert gap.lines == (
        f"[... {dropped} bytes dropped: a pod keeps 0.00390625 MiB of log ...]",
        *lines(gap.start + 1, gap.start + 3),
    )
    assert reader.read(3000, 3, is_over=True) == gap


def test_reading_on_from_each_chunk_shows_every_kept_line_once(tmp_path: Path) -> None:
    reader = written(tmp_path, 5000)
    at, shown, is_end = 0, [], False
    while not is_end:
        chunk = reader.read(at, 17, is_over=True)
        shown += [line for line in chunk.lines if line.startswith("line")]
        at, is_end = chunk.start + len(chunk.lines), chunk.is_end

    first_after_gap = int(shown[102][5:])
    assert tuple(shown) == (*lines(0, 102), *lines(first_after_gap, 5000))
    assert at == 5000


def test_line_without_line_feed_is_shown_when_the_pod_is_over(tmp_path: Path) -> None:
    log, reader = PodLog(str(tmp_path)), Reader(tmp_path, CAP)
    log.write(b"whole\nhalf")

    assert reader.read(0, 10, is_over=False) == LogChunk(0, ("whole",), False)
    log.close()
    assert reader.read(1, 10, is_over=True) == LogChunk(1, ("half",), True)
    assert reader.read(0, 10, is_over=True) == LogChunk(0, ("whole", "half"), True)


def test_follower_sees_what_came_since(tmp_path: Path) -> None:
    log, reader = PodLog(str(tmp_path)), Reader(tmp_path, CAP)
    log.write(b"a\nb\n")

    assert reader.read(0, 10, is_over=False).lines == ("a", "b")
    assert reader.read(2, 10, is_over=False).lines == ()
    log.write(b"c\n")
    assert reader.read(2, 10, is_over=False) == LogChunk(2, ("c",), False)


@pytest.mark.parametrize("block", [1, 1000, 100_000])
def test_line_is_cut(tmp_path: Path, block: int) -> None:
    log = PodLog(str(tmp_path))
    text = b"x" * 20_000 + b"\nnext\n"
    for at in range(0, len(text), block):
        log.write(text[at : at + block])
    log.close()

    assert Reader(tmp_path, CAP).read(0, 10, is_over=True) == LogChunk(0, ("x" * LINE_BYTES, "next"), True)


@pytest.mark.parametrize("raw", [b"\xff" * 8000, "ä".encode() * 5000, b"ok \xff\xfe", b"a\x00b\rc"])
def test_line_is_valid_utf8_of_at_most_8_kib(tmp_path: Path, raw: bytes) -> None:
    log = PodLog(str(tmp_path))
    log.write(raw + b"\n")
    log.close()

    (line,) = Reader(tmp_path, CAP).read(0, 10, is_over=True).lines
    assert len(line.encode()) <= LINE_BYTES
    shown = raw.rpartition(b"\r")[2]
    assert line == shown.decode(errors="replace")[: len(line)]
    assert len(line.encode()) >= min(len(shown), LINE_BYTES) - 4


def test_note_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    log = PodLog(str(tmp_path))
    log.write(b"half")
    log.note("told to stop.")
    log.write(b"rest\n")
    log.close()

    assert Reader(tmp_path, CAP).read(0, 10, is_over=True).lines == ("half", "tuttilab: told to stop.", "rest")


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    log = PodLog(str(tmp_path))
    log.close()
    log.write(b"late\n")

    assert (tmp_path / "log").read_bytes() == b""


def test_pod_that_printed_nothing(tmp_path: Path) -> None:
    assert Reader(tmp_path, CAP).read(0, 10, is_over=False) == LogChunk(0, (), False)
    assert Reader(tmp_path, CAP).read(5, 10, is_over=True) == LogChunk(5, (), True)


def test_disk_on_which_no_segment_can_begin_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PodLog(str(tmp_path), CAP)
    monkeypatch.setattr(PodLog, "_open", staticmethod(_no_space))
    log.write(text(0, 500))
    monkeypatch.undo()
    log.write(text(500, 520))
    log.close()

    reader = Reader(tmp_path, CAP)
    assert reader.read(0, 1000, is_over=True) == LogChunk(0, lines(0, 102), False)
    mark = f"[... {10 * (500 - 102)} bytes dropped: the disk was full ...]"
    assert reader.read(102, 1000, is_over=True) == LogChunk(499, (mark, *lines(500, 520)), False)
    assert reader.read(520, 1000, is_over=True) == LogChunk(520, (), True)


def text(first: int, last: int) -> bytes:
    return "".join(f"{line}\n" for line in lines(first, last)).encode()


def _no_space(_name: str) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_many_lines_are_found_by_number(tmp_path: Path) -> None:
    reader = written(tmp_path, 3000, block=1000, cap=2**22)

    for start in (0, 1, 511, 512, 513, 1023, 1024, 2047, 2999):
        assert reader.read(start, 2, is_over=True).lines == lines(start, min(start + 2, 3000))


def test_of_a_progress_bar_only_the_newest_state_is_kept_however_long_it_ran(tmp_path: Path) -> None:
    log = PodLog(str(tmp_path), CAP)
    for step in range(2000):
        log.write(b"\r%3d%% of a bar" % (step // 20))
    log.write(b"\r100% of a bar\nnext\r\n")
    log.write(b"0%\r1%\r")
    log.write(b"2%\r")
    log.write(b"\n")
    log.close()

    assert Reader(tmp_path, CAP).read(0, 10, is_over=True) == LogChunk(0, ("100% of a bar", "next", "2%"), True)


def test_the_unfinished_line_is_readable_while_it_changes(tmp_path: Path) -> None:
    log, reader = PodLog(str(tmp_path), CAP), Reader(tmp_path, CAP)
    log.write(b"begin\n\r10%")
    assert log.show_partial()
    assert reader.read(0, 10, is_over=False) == LogChunk(0, ("begin",), False, "10%")
    assert reader.read(1, 10, is_over=False) == LogChunk(1, (), False, "10%")
    assert reader.read(0, 0, is_over=False).partial == "", "there is a line before it"

    log.write(b"\r20%")
    while not log.show_partial():
        time.sleep(0.01)
    assert reader.read(1, 10, is_over=False) == LogChunk(1, (), False, "20%")

    log.write(b"\n")
    assert log.show_partial()
    assert reader.read(1, 10, is_over=False) == LogChunk(1, ("20%",), False, "")

    log.write(b"last state")
    log.close()
    assert reader.read(2, 10, is_over=True) == LogChunk(2, ("last state",), True)


def test_an_unfinished_line_of_the_first_seconds_is_readable_too(tmp_path: Path) -> None:
    log = PodLog(str(tmp_path), CAP)
    log.write(b"loading")
    assert log.show_partial()

    assert Reader(tmp_path, CAP).read(0, 10, is_over=False) == LogChunk(0, (), False, "loading")


@pytest.mark.parametrize(
    "make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/etc/passwd"), lambda path: path.mkdir()]
)
def test_what_a_job_puts_in_place_of_the_unfinished_line_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    PodLog(str(tmp_path), CAP).write(b"line\n")
    make(tmp_path / "partial")

    assert Reader(tmp_path, CAP).read(0, 10, is_over=False) == LogChunk(0, ("line",), False, "")


def test_lines_have_the_time_of_the_write_that_they_came_with(tmp_path: Path) -> None:
    clock = iter([100.0, 100.05, 100.2, 200.0])
    times = Times(str(tmp_path), lambda: next(clock))
    for line in (0, 3, 5, 9):
        times.note(line)
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in lines(0, 12)))
    reader = Reader(tmp_path, CAP)

    # Line 3 came so soon after line 0 that it has the same time.
    assert reader.read(0, 12, is_over=True).times == ((0, 100.0), (5, 100.2), (9, 200.0))
    assert reader.read(4, 3, is_over=True).times == ((0, 100.0), (5, 100.2))
    assert reader.read(9, 3, is_over=True).times == ((9, 200.0),)


def test_times_stay_few_however_long_the_log_is(tmp_path: Path) -> None:
    now = 0.0
    times = Times(str(tmp_path), lambda: now)
    for line in range(50_000):
        now = line * 0.5
        times.note(line)
    (tmp_path / "log").write_text("x\n" * 50_000)

    found = Reader(tmp_path, CAP).read(0, 50_000, is_over=True).times

    assert 1000 < len(found) <= MOST
    assert all(0 <= at - line * 0.5 < 0.001 for line, at in found)
    assert max(later[0] - earlier[0] for earlier, later in itertools.pairwise(found)) <= 64


def test_times_that_user_code_wrote_over_are_no_harm(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\nb\nc\n")
    (tmp_path / "times").write_text("0 5000\nx y\n1 4000\n1 9000\n2 99999999999999999999999999999999999999\n-1 3")

    found = Reader(tmp_path, CAP).read(0, 3, is_over=True)

    assert (found.lines, found.times) == (("a", "b", "c"), ((0, 5.0), (1, 5.0)))


def test_a_real_log_has_times(tmp_path: Path) -> None:
    before = time.time()
    found = written(tmp_path, 50).read(0, 50, is_over=True)

    assert found.times[0][0] == 0
    assert before - 0.001 <= found.times[0][1] <= time.time()
