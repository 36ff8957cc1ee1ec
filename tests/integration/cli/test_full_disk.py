"""A first start on a full disk: it names the cause, leaves nothing that counts, and the next one is as good as a first."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desk import Desk

pytestmark = [pytest.mark.requires("mounts"), pytest.mark.feature("O08")]


@pytest.fixture
def small(desk: Desk) -> Iterator[Desk]:
    """Its state folder is a file system of 8 MB."""
    desk.state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(desk.state)], check=True)
    try:
        yield desk
        desk.run("down", "--now")
    finally:
        subprocess.run(["umount", "--lazy", str(desk.state)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that takes all room but ``leave`` blocks of 4 KiB."""
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - 4096 * leave))
    return filler


@pytest.mark.parametrize("leave", [0, 1, 2, 3, 8])
def test_a_first_start_without_room_says_so_and_the_next_one_has_a_whole_key(small: Desk, leave: int) -> None:
    filler = fill(small.state, leave)

    refused = small.run("up")
    left = small.processes()
    filler.unlink()
    again = small.run("up")

    assert (refused.code != 0, refused.out, left) == (True, "", []), refused
    assert "No space left on device" in refused.err or "the disk is full" in refused.err, refused
    assert again.code == 0, again
    assert len((small.state / "secret.key").read_bytes()) == 32
    assert sorted(path.name for path in small.state.glob(".*")) == []
