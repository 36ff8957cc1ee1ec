"""Disks of a test: a file as a block device, with a file system of its own. Made by root, unmounted at the end in any case."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    file: Path
    at: Path

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.file), str(self.at)], check=True, capture_output=True)

    def fail(self) -> None:
        """What the kernel does after an error of the disk: it is read-only from now on, below whatever is open."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.at)], check=True, capture_output=True)

    def repair(self) -> None:
        """As its admin: needs that nothing is open there any more."""
        subprocess.run(["umount", str(self.at)], check=True, capture_output=True)
        # Of a copy: another mount namespace of the machine may still have the failed one, which would be mounted again.
        copy = self.file.with_name(f"{self.file.name}.mended")
        shutil.copyfile(self.file, copy)
        checked = subprocess.run(["e2fsck", "-fy", str(copy)], capture_output=True, text=True)
        assert checked.returncode in (0, 1), checked
        copy.replace(self.file)
        self.mount()

    def fill(self, name: str = "filler") -> Path:
        """To the last byte; returns the file that takes it."""
        filler = self.at / name
        with open(filler, "ab", buffering=0) as file:
            for size in (2**16, 4096, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError:
                    pass
        return filler


@contextmanager
def made_disk(file: Path, at: Path, size: str = "24M") -> Iterator[Disk]:
    disk = Disk(file, at)
    at.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["truncate", "-s", size, str(file)], check=True)
    # Without room that only root may use: the control plane of these tests is root.
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(file)], check=True, capture_output=True)
    disk.mount()
    try:
        at.chmod(0o700)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)
        file.unlink()
