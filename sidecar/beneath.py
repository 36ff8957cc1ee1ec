"""Opens files in folders that a job can change: below a given folder, without following links, regular files only, without waiting.

A job may put a FIFO, a device, a link or a huge file in the place of any file of its pod. Opening a FIFO waits for a writer, a link
leads out of the folder, a device never ends.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotRegular(OSError):
    """Something else than a regular file is in its place."""


def open_folder(root: str, path: str = "") -> int:
    """Descriptor of the folder at ``path`` below ``root``, which is trusted. Raises OSError, for a link too."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in path.split("/") if path else ():
        if name in ("", ".", ".."):
            os.close(folder)
            raise ValueError(f"{path!r} is no path below a folder")
        try:
            inner = os.open(name, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def open_in(folder: int, name: str) -> BinaryIO:
    """The regular file of that name in the folder, unbuffered, for reading. Raises OSError, NotRegular for anything else."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular(f"{name} is no regular file")
        return open(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def read_file(root: str, path: str, limit: int, start: int = 0) -> bytes:
    """Up to ``limit`` bytes from ``start`` of the file at ``path`` below ``root``. Raises OSError, NotRegular."""
    parent, _, name = path.rpartition("/")
    folder = open_folder(root, parent)
    try:
        with open_in(folder, name) as file:
            return os.pread(file.fileno(), limit, start)
    finally:
        os.close(folder)
