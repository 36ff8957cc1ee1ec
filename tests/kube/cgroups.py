"""A root of its own in every cgroup hierarchy for each node, below which its kubelet makes those of its pods."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

MOUNTED = Path("/sys/fs/cgroup")
LIMIT_S = 150.0


def make(name: str) -> None:
    for folder in _hierarchies():
        root = folder / name
        root.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # of version 1, where a new group has none of either
            if (folder / setting).exists():
                (root / setting).write_text((folder / setting).read_text())


def remove(pattern: str) -> None:
    """All whose name matches, as soon as the processes in them, killed by then, are gone; OSError when one is not after 10 s."""
    end = time.monotonic() + LIMIT_S
    for root in left(pattern):
        for folder in [*sorted(root.glob("**/"), reverse=True), root]:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)


def left(pattern: str) -> list[Path]:
    return [root for folder in _hierarchies() for root in folder.glob(pattern)]


def _hierarchies() -> Iterator[Path]:
    """The one of version 2, or each of version 1 (of which the one of systemd limits nothing, and is used by runc all the same)."""
    if (MOUNTED / "cgroup.controllers").exists():
        yield MOUNTED
    elif MOUNTED.is_dir():
        yield from (folder for folder in sorted(MOUNTED.iterdir()) if folder.is_dir() and not folder.is_symlink())
