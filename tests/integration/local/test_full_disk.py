"""A pod's log on a disk that is full: what could not be written is a gap that is shown, and nothing else about it is different."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuttilab.scheduler.clusters.kept.logs import PodLog as Reader
from tuttilab.sidecar.log import PodLog

LARGE = 64 * 2**20

pytestmark = pytest.mark.requires("mounts")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """To the last byte."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for piece in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * piece)
    return filler


def print_lines(log: PodLog, first: int, last: int, block: int = 1) -> None:
    for at in range(first, last, block):
        log.write("".join(f"line {number:04d}\n" for number in range(at, min(at + block, last))).encode())


def shown(reader: Reader) -> dict[int, str]:
    """Every line by its number, read in steps of 7."""
    found: dict[int, str] = {}
    at, is_end = 0, False
    while not is_end:
        chunk = reader.read(at, 7, is_over=True)
        found |= dict(enumerate(chunk.lines, chunk.start))
        at, is_end = chunk.start + len(chunk.lines), chunk.is_end
    return found


@pytest.mark.parametrize("block", [1, 50])
def test_a_full_disk_leaves_a_gap_that_is_marked_and_later_lines_keep_their_numbers(small_disk: Path, block: int) -> None:
    log = PodLog(str(small_disk))
    print_lines(log, 0, 10)
    filler = fill(small_disk)
    print_lines(log, 10, 1000, block)
    filler.unlink()
    print_lines(log, 1000, 1010)
    log.close()

    found = shown(Reader(small_disk, LARGE))
    kept = {number: line for number, line in found.items() if line.startswith("line")}
    ((number, mark),) = found.items() - kept.items()
    first_lost = max(n for n in kept if n < number) + 1
    assert kept == {n: f"line {n:04d}" for n in [*range(first_lost), *range(1000, 1010)]}
    assert (number, mark) == (999, f"[... {10 * (1000 - first_lost)} bytes dropped: the disk was full ...]")
    assert 10 <= first_lost < 1000


def test_lines_that_a_full_disk_cost_at_the_end_are_marked_too(small_disk: Path) -> None:
    log = PodLog(str(small_disk))
    print_lines(log, 0, 10)
    fill(small_disk)
    print_lines(log, 10, 1000)
    log.write(b"half")
    log.close()

    found = shown(Reader(small_disk, LARGE))
    assert found.popitem()[1].endswith(" bytes dropped: the disk was full ...]")
    assert found == {n: f"line {n:04d}" for n in range(len(found))}


def test_a_disk_that_is_full_by_turns_never_shows_a_line_under_another_number(small_disk: Path) -> None:
    log = PodLog(str(small_disk))
    for turn in range(40):
        print_lines(log, turn * 100, turn * 100 + 10)
        filler = fill(small_disk)
        print_lines(log, turn * 100 + 10, turn * 100 + 100, block=3)
        if turn % 2:
            filler.unlink()
    log.close()

    found = shown(Reader(small_disk, LARGE))
    kept = {number: line for number, line in found.items() if line.startswith("line")}
    assert kept == {number: f"line {number:04d}" for number in kept}
    assert {line.split(" bytes ")[1] for line in found.values() if line not in kept.values()} == {"dropped: the disk was full ...]"}
    assert set(range(10)) < set(kept), "the beginning is not pushed out"
    assert len(list(small_disk.glob("log*"))) <= 13
