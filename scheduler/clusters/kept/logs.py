"""Reads lines of a pod's log by number (`sidecar/log.py` describes the files).

The offset of every 512th line is cached while reading, so that following the end and jumping into the middle of 64 MiB both read
little more than they return. The job may have put anything in the place of a file: only regular files are read, and of each no
more than a pod may write.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from tuttilab.scheduler.clusters.base import LogChunk
from tuttilab.sidecar import beneath

LINE: Final = 8192
"""Longest line in bytes of UTF-8."""
CHUNK: Final = 4 * 2**20
"""Bytes read per call; a chunk may therefore have fewer lines than requested."""
SEGMENTS: Final = 12
"""Files after the first. When there are this many, the oldest is deleted for a new one."""
PARTIAL: Final = "partial"
"""The file with the unfinished line (`sidecar/log.py`)."""
TIMES: Final = "times"
"""The file with when lines were written (`sidecar/log_times.py`)."""
MOST_TIMES_BYTES: Final = 2**18
SEGMENT: Final = re.compile(r"log\.([0-9]{1,18})\.([0-9]{1,18})")
LARGEST: Final = 256 * 2**20
"""Bytes of one file that are read, if a pod's log may not have more: the job may have made it as large as the disk."""
ENTRIES: Final = 10_000
"""Entries of a pod's folder that are looked at. It has a few dozen, if the job put nothing in it."""
_STRIDE: Final = 512
_BLOCK: Final = 2**20


@dataclass(slots=True)
class _File:
    """One file of whole lines. ``marks[i]`` is the offset of line i x _STRIDE; ``lines`` and ``end``: what was scanned."""

    name: str
    marks: list[int] = field(default_factory=lambda: [0])
    lines: int = 0
    end: int = 0

    def scan(self, folder: int, largest: int) -> None:
        """Count the complete lines written since the last scan, up to byte ``largest`` of the file."""
        with beneath.open_in(folder, self.name) as file:
            size = min(os.fstat(file.fileno()).st_size, largest)
            at_byte = self.end
            while at_byte < size and (block := os.pread(file.fileno(), min(_BLOCK, size - at_byte), at_byte)):
                base, at = at_byte, 0
                at_byte += len(block)
                while at < len(block):
                    wanted = _STRIDE - self.lines % _STRIDE
                    stop, count = _after_lines(block, at, wanted)
                    self.lines += count
                    if count:
                        self.end = base + stop
                    if count < wanted:
                        break
                    self.marks.append(self.end)
                    at = stop

    def offset(self, file: BinaryIO, line: int) -> int:
        """Offset of the start of ``line``, which must have been scanned."""
        at = self.marks[min(line // _STRIDE, len(self.marks) - 1)]
        rest = line % _STRIDE
        file.seek(at)
        while rest:
            block = file.read(min(_BLOCK, _STRIDE * 128))
            if not block:
                return at
            stop, count = _after_lines(block, 0, rest)
            rest -= count
            at += stop if not rest else len(block)
        return at


def _after_lines(block: bytes, at: int, count: int) -> tuple[int, int]:
    """End of the ``count``-th line from ``at`` in ``block``, or of the last complete one; and the number of these lines."""
    found = 0
    while found < count:
        feed = block.find(b"\n", at)
        if feed < 0:
            break
        at, found = feed + 1, found + 1
    return at, found


class PodLog:
    """The log of one pod, in the folder at ``pod`` below ``root``. ``cap``: bytes that it may have in all.

    Thread-safe: one reader at a time.
    """

    def __init__(self, root: Path, cap: int, pod: str = "") -> None:
        self._root = str(root)
        self._pod = pod
        self._folder = -1
        """Descriptor of the pod's folder during a read."""
        self._cap = cap
        self._largest = max(cap, LARGEST)
        self._files: dict[str, _File] = {}
        self._times: list[tuple[int, float]] = []
        self._times_version: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def read(self, start: int, limit: int, *, is_over: bool) -> LogChunk:
        """Up to ``limit`` lines from line ``start``.

        One line stands for dropped ones and has the number of the last of them, so the chunk may start later than requested.
        ``is_over``: the pod has ended, so its last line counts without a line feed too. What the job put in the place of a file of
        the log is one line that says so.
        """
        with self._lock:
            for _ in range(3):
                try:
                    self._folder = beneath.open_folder(self._root, self._pod)
                except OSError:
                    break  # erased, by us or by the job
                try:
                    return self._with_times(self._read(max(0, start), limit, is_over))
                except FileNotFoundError:
                    continue  # the oldest segment was deleted meanwhile
                except OSError as error:
                    return LogChunk(start, () if start else (f"[the log cannot be read: {_why(error)}]",), is_end=is_over)
                finally:
                    os.close(self._folder)
        return LogChunk(start, (), is_end=is_over)

    def _segments(self) -> list[tuple[int, int, str]]:
        """First line, first byte and name of each file, in order."""
        found: list[tuple[int, int, str]] = []
        with os.scandir(self._folder) as entries:
            for entry in islice(entries, ENTRIES):
                if entry.name == "log":
                    found.append((0, 0, entry.name))
                elif match := SEGMENT.fullmatch(entry.name):
                    found.append((int(match[1]), int(match[2]), entry.name))
        return sorted(found)

    def _read(self, start: int, limit: int, is_over: bool) -> LogChunk:
        segments = self._segments()
        self._files = {name: self._files.get(name) or _File(name) for _, _, name in segments}
        if not segments:
            return LogChunk(start, (), is_end=is_over, partial="" if is_over else self._partial(start))
        index = bisect_right(segments, start, key=lambda segment: segment[0]) - 1
        first, byte, name = segments[index]
        file = self._files[name]
        is_last = index == len(segments) - 1
        if start >= first + file.lines:
            file.scan(self._folder, self._largest)
        if not is_last and start >= first + file.lines:
            next_line, next_byte, _ = segments[index + 1]
            dropped = next_byte - byte - file.end
            is_by_cap = index == 0 and len(segments) > SEGMENTS
            why = f"a pod keeps {self._cap / 2**20:g} MiB of log" if is_by_cap else "the disk was full"
            marker = f"[... {dropped} bytes dropped: {why} ...]"
            rest = self._lines_of(segments[index + 1], 0, limit - 1, is_over and index + 2 == len(segments))
            return LogChunk(next_line - 1, (marker, *rest), is_end=False)
        lines = self._lines_of(segments[index], start - first, limit, is_over and is_last)
        end = start + len(lines)
        is_end = is_over and is_last and self._is_read_to_end(file, end - first)
        return LogChunk(start, lines, is_end, "" if is_over else self._partial(end))

    def _partial(self, number: int) -> str:
        """The unfinished line, if it is line ``number``."""
        try:
            with beneath.open_in(self._folder, PARTIAL) as file:
                head, _, text = os.read(file.fileno(), LINE + 32).partition(b"\n")
        except OSError:
            return ""
        return _show(text) if head == b"%d" % number else ""

    def _with_times(self, chunk: LogChunk) -> LogChunk:
        if not chunk.lines:
            return chunk
        self._read_times()
        known = self._times
        first = bisect_right(known, chunk.start, key=lambda entry: entry[0]) - 1
        last = bisect_right(known, chunk.start + len(chunk.lines) - 1, key=lambda entry: entry[0])
        return replace(chunk, times=tuple(known[max(first, 0) : last]))

    def _read_times(self) -> None:
        try:
            with beneath.open_in(self._folder, TIMES) as file:
                about = os.fstat(file.fileno())
                version = (about.st_ino, about.st_size)
                if version == self._times_version:
                    return
                text = os.read(file.fileno(), MOST_TIMES_BYTES)
        except OSError:
            return
        self._times_version = version
        found: list[tuple[int, float]] = []
        for entry in text[: text.rfind(b"\n") + 1].split(b"\n")[:-1]:
            line, _, at = entry.partition(b" ")
            # Whatever stands there: numbers and times rise.
            if line.isdigit() and at.isdigit() and len(entry) < 40 and (not found or int(line) > found[-1][0]):
                found.append((int(line), max(int(at) / 1000, found[-1][1] if found else 0.0)))
        self._times = found

    def _is_read_to_end(self, file: _File, line: int) -> bool:
        size = min(os.stat(file.name, dir_fd=self._folder, follow_symlinks=False).st_size, self._largest)
        return line > file.lines or (line == file.lines and file.end == size)

    def _lines_of(self, segment: tuple[int, int, str], line: int, limit: int, take_rest: bool) -> tuple[str, ...]:
        file = self._files[segment[2]]
        if line + limit > file.lines:
            file.scan(self._folder, self._largest)
        if limit <= 0 or (line >= file.lines and not take_rest):
            return ()
        with beneath.open_in(self._folder, file.name) as source:
            if line > file.lines:
                return ()
            at = file.end if line == file.lines else file.offset(source, line)
            end = self._largest if take_rest else file.end
            raw = os.pread(source.fileno(), max(0, min(CHUNK, end - at)), at)
        lines = raw.split(b"\n")
        rest = lines.pop()
        if rest and take_rest and len(raw) < CHUNK:
            lines.append(rest)
        return tuple(_show(text) for text in lines[:limit])


def _why(error: OSError) -> str:
    if isinstance(error, beneath.NotRegular) or error.errno in (errno.ELOOP, errno.EACCES):
        return "the job put something else in its place"
    return error.strerror or str(error)


def _show(raw: bytes) -> str:
    """At most `LINE` bytes of valid UTF-8."""
    text = raw[:LINE].decode(errors="replace")
    if len(raw) * 3 > LINE and len(encoded := text.encode()) > LINE:
        return encoded[:LINE].decode(errors="ignore")
    return text
