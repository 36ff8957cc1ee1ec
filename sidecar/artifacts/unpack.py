"""Unpacks a code bundle (tar or zip) in a process of its own with limited memory, files and time: a bundle is what somebody sent.

A few bytes can stand for gigabytes, in a header, in what they decompress to, or in the number of files. The process runs this file
by its path (``python -I -S unpack.py FOLDER BYTES MEMORY FILES``, the bundle as standard input), and says at its end on standard
output that it is done, or what is wrong. Whatever ends it otherwise is a bundle that cannot be unpacked too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from tuttilab.sidecar.accounts import Account

MOST_MEMBERS = 100_000
LARGEST_HEADER = 2**20
"""Bytes of one header, which is read as a whole. Longest paths and attributes have a few kilobytes."""
LEAST_MEMORY = 192 * 2**20
"""Address space of the process; a job that asks for more memory gets more, up to `MOST_MEMORY`."""
MOST_MEMORY = 2**30
CPU_S = 120
LIMIT_S = 300.0
"""After this it counts as stuck, as on a file system that does not answer."""
_DONE = b"done"
_ANSWER_BYTES = 2000
_ENVIRON = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def in_child(
    bundle: BinaryIO, folder: str, largest: int, memory: int, most: int = MOST_MEMBERS, owner: Account | None = None
) -> str:
    """Unpacks into ``folder``, at most ``largest`` bytes and ``most`` files, for a job of so much memory.

    ``owner``: as whom, if not as this process. Returns what is wrong, or an empty text. What was unpacked before that is removed.
    """
    import select
    import signal

    answers, answering = os.pipe()
    try:
        arguments = [sys.executable, "-I", "-S", __file__, folder, *map(str, (largest, memory, most))]
        start = _spawn if owner is None else partial(_fork, owner)
        pid = start(arguments, bundle.fileno(), answering)
    except OSError as error:
        os.close(answers)
        return f"the process for it does not start: {error}"
    finally:
        os.close(answering)
    answer, until = b"", time.monotonic() + LIMIT_S
    with open(answers, "rb", buffering=0) as pipe:
        while len(answer) < _ANSWER_BYTES:
            if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                os.kill(pid, signal.SIGKILL)  # it lives, as it has the other end of the pipe
                answer = f"it takes longer than {LIMIT_S:g} s".encode()
                break
            if not (more := pipe.read(_ANSWER_BYTES)):
                break
            answer += more
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # whoever waits for all children was faster
    if answer == _DONE:
        return ""
    _empty(folder)
    said = answer.removesuffix(_DONE).decode(errors="replace")
    shown = "".join(character if character.isprintable() else "?" for character in said)
    return shown or f"it takes more than its {_memory(memory) >> 20} MiB of memory or {CPU_S} s of computing"


def _spawn(arguments: list[str], bundle: int, answering: int) -> int:
    return os.posix_spawn(
        arguments[0],
        arguments,
        _ENVIRON,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, bundle, 0),
            (os.POSIX_SPAWN_DUP2, answering, 1),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ],
        setsigmask=[],
    )


def _fork(owner: Account, arguments: list[str], bundle: int, answering: int) -> int:
    import signal

    from tuttilab.sidecar import accounts

    pid = os.fork()
    if pid == 0:
        try:
            accounts.become_owner(owner)
            os.dup2(bundle, 0)
            os.dup2(answering, 1)
            os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execve(arguments[0], arguments, _ENVIRON)  # noqa: S606 - a list of arguments, no shell sees them
        finally:
            os._exit(127)
    return pid


def _memory(memory: int) -> int:
    return min(max(memory, LEAST_MEMORY), MOST_MEMORY)


def _empty(folder: str) -> None:
    import shutil

    try:
        with os.scandir(folder) as entries:
            inner = list(entries)
        for entry in inner:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
    except (OSError, RecursionError):
        pass  # it goes with the pod


class _Refused(Exception):
    """The bundle has more of something than it may."""


class _Limited:
    """What is read of the bundle, decompressed: a piece of bounded length each time, and a bounded number of bytes in all."""

    def __init__(self, file: Any, most: int, largest: int) -> None:
        self._file = file
        self._left = most
        self._largest = largest
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise _Refused(f"a header of {size} bytes; expected at most {LARGEST_HEADER}")
        self._left -= size
        if self._left < 0:
            raise _too_large(self._largest)
        block: bytes = self._file.read(size)
        return block


def _too_large(largest: int) -> _Refused:
    return _Refused(f"it unpacks to more than {largest} bytes (limits.unpacked_bytes)")


def _decompressed(file: BinaryIO, start: bytes) -> Any:
    if start[257:262] == b"ustar":
        return file  # whatever its first name begins with
    if start[:2] == b"\x1f\x8b":
        import gzip

        return gzip.GzipFile(fileobj=file)
    if start[:3] == b"BZh":
        import bz2

        return bz2.BZ2File(file)
    if start[:6] == b"\xfd7zXZ\0" or start[:3] == b"\x5d\0\0":
        import lzma

        return lzma.LZMAFile(file)
    return file


def _unpack(file: BinaryIO, folder: str, largest: int, most: int) -> None:
    start = file.read(512)
    file.seek(0)
    if start[257:262] != b"ustar" and start[:4] in (b"PK\3\4", b"PK\5\6"):
        _unpack_zip(file, folder, largest, most)
    else:
        _unpack_tar(_decompressed(file, start), folder, largest, most)


def _unpack_tar(file: Any, folder: str, largest: int, most: int) -> None:
    import tarfile

    def checked(bundle: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        size = 0
        for count, member in enumerate(bundle, 1):
            size += member.size
            if count > most:
                raise _Refused(f"more than {most} files and folders")
            if size > largest:
                raise _too_large(largest)
            yield member

    # Headers and the rest of the last blocks come on top of the content.
    source: Any = _Limited(file, largest + 4 * 512 * most, largest)
    with tarfile.open(fileobj=source, mode="r:") as bundle:
        bundle.extractall(folder, members=checked(bundle), filter="data")


def _unpack_zip(file: BinaryIO, folder: str, largest: int, most: int) -> None:
    """All members are checked before the first is written: names, kinds, sizes, and that none lies in another."""
    import zipfile

    with zipfile.ZipFile(file) as bundle:
        members = bundle.infolist()
        if len(members) > most:
            raise _Refused(f"more than {most} files and folders")
        if sum(member.file_size for member in members) > largest:
            raise _too_large(largest)
        paths = [_path_in_zip(member) for member in members]
        if len(set(paths)) < len(paths):
            raise _Refused("two members have the same name")
        _check_places(members, bundle.start_dir)
        for member, path in zip(members, paths, strict=True):
            target = os.path.join(folder, path)
            if member.is_dir():
                os.makedirs(target, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            mode = 0o755 if member.external_attr >> 16 & 0o100 else 0o644
            with bundle.open(member) as source, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as copy:
                while block := source.read(2**16):
                    copy.write(block)


def _path_in_zip(member: Any) -> str:
    import stat

    name: str = member.orig_filename
    steps = [step for step in name.split("/") if step not in ("", ".")]
    if name.startswith("/") or ".." in steps or not steps or any(letter in name for letter in "\\\0") or name[1:2] == ":":
        raise _Refused(f"the name {name[:100]!r}; expected a path below the bundle's folder, with / between folders")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
        raise _Refused(f"{name[:100]!r} is no regular file, as a link or a device")
    if member.flag_bits & 0x2041:
        raise _Refused(f"{name[:100]!r} is encrypted")
    if member.compress_type not in (0, 8):
        raise _Refused(f"{name[:100]!r} is compressed by method {member.compress_type}; expected deflate or none")
    return "/".join(steps)


def _check_places(members: list[Any], directory: int) -> None:
    """A few bytes that many members share stand for much more than the file has."""
    end = 0
    for member in sorted(members, key=lambda each: int(each.header_offset)):
        if member.header_offset < end:
            raise _Refused(f"{member.orig_filename[:100]!r} lies in another member")
        name = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
        end = member.header_offset + 30 + len(name) + member.compress_size
        if end > directory:
            raise _Refused(f"{member.orig_filename[:100]!r} ends after the file's directory begins")


def _main(folder: str, largest: int, memory: int, most: int) -> None:
    import resource

    for what, amount in (
        (resource.RLIMIT_AS, _memory(memory)),
        (resource.RLIMIT_FSIZE, largest),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (amount, amount) if hard == resource.RLIM_INFINITY else (min(amount, hard), hard))
    try:
        with open(0, "rb") as file:
            _unpack(file, folder, largest, most)
        answer = _DONE
    except MemoryError:
        answer = b""
    except BaseException as error:  # of any kind: tarfile has no type of its own for most of them
        answer = (str(error) or type(error).__name__)[:400].encode(errors="replace")
    os.write(1, answer)
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1], *map(int, sys.argv[2:]))
