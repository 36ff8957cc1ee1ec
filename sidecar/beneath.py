"""Opens files in folders that a job can change: below a given folder, without following links, regular files only, without waiting.

A job may put a FIFO, a device, a link or a huge file in the place of any file of its pod. Opening a FIFO waits for a writer, a link
leads out of the folder, a device never ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""Of a folder that is only passed through: it may be one that we cannot list."""
_MOST_LINKS = 40
"""As the kernel's own limit."""
_TRIES = 5
"""For a file that somebody else makes again and again."""


class NotRegular(OSError):
    """Something else than a regular file is in its place."""


class Outside(OSError):
    """A path, or a link on its way, leads out of the folder."""


def open_folder(root: str, path: str = "", *, is_made: bool = False) -> int:
    """Descriptor of the folder at ``path`` below ``root``, which is trusted. Raises OSError, for a link too.

    ``is_made``: folders that are missing below ``root`` are made.
    """
    names = path.split("/") if path else []
    folder = os.open(root, _ON_THE_WAY if names else os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, name in enumerate(names, 1):
        if name in ("", ".", ".."):
            os.close(folder)
            raise ValueError(f"{path!r} is no path below a folder")
        try:
            if is_made:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
            inner = os.open(name, _FOLDER if number == len(names) else _ON_THE_WAY | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def open_inside(folder: int, path: str, root: str) -> BinaryIO:
    """The regular file at ``path`` in the folder, whose own path is ``root``; unbuffered, for reading.

    Links are followed as long as they lead to places in the folder. Raises Outside, NotRegular, OSError.
    """
    if os.path.isabs(path):
        raise Outside(f"{path} is no path in the folder")
    steps = path.split("/")[::-1]
    way = [os.dup(folder)]
    links = 0
    try:
        while steps:
            name = steps.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(way) == 1:
                    raise Outside(f"{path} leads out of the folder")
                os.close(way.pop())
                continue
            try:
                target = os.readlink(name, dir_fd=way[-1])
            except OSError as error:
                if error.errno != errno.EINVAL:  # which says that it is no link
                    raise
                if not steps:
                    return open_in(way[-1], name)
                way.append(os.open(name, _FOLDER, dir_fd=way[-1]))
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if os.path.isabs(target):
                if os.path.commonpath((root, os.path.normpath(target))) != os.path.normpath(root):
                    raise Outside(f"{path} leads out of the folder")
                target = os.path.relpath(target, root)
                while len(way) > 1:
                    os.close(way.pop())
            steps += target.split("/")[::-1]
        raise Outside(f"{path} is the folder itself") if len(way) == 1 else NotRegular(f"{path} is no regular file")
    finally:
        for descriptor in way:
            os.close(descriptor)


def create(path: str, flags: int = 0) -> int:
    """Descriptor of a new file at ``path`` for writing, mode 0600; what is there is not opened but put away. Raises OSError."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | flags, 0o600)
        put_away(path)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def put_away(path: str) -> None:
    """Removes the file at ``path``; a folder gets another name, because it may hold any number of files. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        os.rename(path, f"{path}.{os.urandom(8).hex()}.away")


@contextlib.contextmanager
def replacing(folder: int, name: str) -> Iterator[BinaryIO]:
    """A new file of mode 0600 that takes the place of ``name`` in the folder when the block ends; with an error it is removed.

    Whatever is there, also under the name of an earlier new file, is not opened. Raises OSError.
    """
    fresh = f".{os.getpid()}.{os.urandom(8).hex()}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh, dir_fd=folder)
        raise


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
