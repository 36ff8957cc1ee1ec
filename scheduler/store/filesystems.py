"""Detects the file system of a path: SQLite's locks do not work on some of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

Detector = Callable[[Path], str]
"""The type of the file system that holds a path, as /proc/self/mounts names it; empty when unknown."""

SHARED: Final = frozenset(
    [
        "nfs",
        "nfs4",
        "ceph",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "beegfs",
        "coda",
        "glusterfs",
        "gpfs",
        "lustre",
        "ocfs2",
        "gfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "virtiofs",
        "vboxsf",
        "wekafs",
    ]
)
"""File systems that other machines (or the host of a virtual one) also write, or whose locks and fsync are not the kernel's."""

_OCTAL = re.compile(r"\\([0-7]{3})")


def is_shared(kind: str) -> bool:
    """Whether a database must not be stored there: network file systems, and everything that a FUSE process serves."""
    return kind in SHARED or kind == "fuseblk" or kind.split(".")[0] == "fuse"


def kind_in(mounts: Iterable[str], path: Path) -> str:
    """The type of the mount that holds the absolute ``path``: the deepest one, and of two on the same mount point the later."""
    best, kind = -1, ""
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def detect(path: Path) -> str:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            return kind_in(file, Path(os.path.realpath(path)))
    except OSError:
        return ""
