"""A first start on a full disk names the cause and leaves no partial files, so the next start succeeds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_machine import UserMachine

pytestmark = pytest.mark.requires("mounts")


@pytest.fixture
def small(machine: UserMachine) -> Iterator[UserMachine]:
    """A machine whose state folder is a file system of 8 MB."""
    machine.state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(machine.state)], check=True)
    try:
        yield machine
        machine.run("down", "--now")
    finally:
        subprocess.run(["umount", "--lazy", str(machine.state)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk except for ``leave`` blocks of 4 KiB; returns the file."""
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - 4096 * leave))
    return filler


@pytest.mark.parametrize("leave", [0, 1, 2, 3, 8])
def test_a_start_on_a_full_disk_names_the_cause_and_the_next_one_has_a_whole_key(small: UserMachine, leave: int) -> None:
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
