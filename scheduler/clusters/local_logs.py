"""Reads lines of a pod's log by number, wherever the sidecar put them (the layout is told in `sidecar/log.py`).

The offsets of every 512th line are remembered while reading, so that a follower who comes back with the next number, and a
reader who jumps into the middle of 64 MiB, both read little more than what they get.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from tuttilab.scheduler.clusters.base import LogChunk

LINE: Final = 8192
"""Bytes of a line, in UTF-8."""
CHUNK: Final = 4 * 2**20
"""Bytes of an answer, beyond which it holds fewer lines than asked for."""
SEGMENTS: Final = 12
"""Files after the first: only when there are so many does the oldest go for a new one."""
_STRIDE: Final = 512
_BLOCK: Final = 2**20


@dataclass(slots=True)
class _File:
    """One file of whole lines. ``marks[i]`` is the offset of line i x _STRIDE; ``lines`` and ``end`` say how far it was read."""

    path: Path
    marks: list[int] = field(default_factory=lambda: [0])
    lines: int = 0
    end: int = 0

    def scan(self) -> None:
        """Counts the whole lines that came since."""
        with self.path.open("rb") as file:
            file.seek(self.end)
            while block := file.read(_BLOCK):
                base, at = file.tell() - len(block), 0
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
        """Of the start of ``line``, which must have been scanned."""
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
    """Where in ``block`` the ``count``-th line from ``at`` ends, or the last whole one; and how many lines that are."""
    found = 0
    while found < count:
        feed = block.find(b"\n", at)
        if feed < 0:
            break
        at, found = feed + 1, found + 1
    return at, found


class PodLog:
    """The log of one pod. Thread-safe: one reader at a time."""

    def __init__(self, folder: Path, cap: int) -> None:
        self._folder = folder
        self._cap = cap
        self._files: dict[str, _File] = {}
        self._turn = threading.Lock()

    def read(self, start: int, limit: int, *, is_over: bool) -> LogChunk:
        """Up to ``limit`` lines from line ``start``.

        Where lines were dropped, one line says so; it has the number of the last line that was dropped, so that the chunk may
        start later than was asked for. ``is_over``: the pod has ended, its last line counts without a line feed too.
        """
        with self._turn:
            for _ in range(3):
                try:
                    return self._read(max(0, start), limit, is_over)
                except FileNotFoundError:
                    continue  # the oldest segment went while we looked: look again
        return LogChunk(start, (), is_end=is_over)

    def _segments(self) -> list[tuple[int, int, str]]:
        """First line, first byte and name of each file, in order."""
        found = [(0, 0, "log")] if (self._folder / "log").exists() else []
        for path in self._folder.glob("log.*.*"):
            _, line, byte = path.name.split(".")
            found.append((int(line), int(byte), path.name))
        return sorted(found)

    def _read(self, start: int, limit: int, is_over: bool) -> LogChunk:
        segments = self._segments()
        self._files = {name: self._files.get(name) or _File(self._folder / name) for _, _, name in segments}
        if not segments:
            return LogChunk(start, (), is_end=is_over)
        index = bisect_right(segments, start, key=lambda segment: segment[0]) - 1
        first, byte, name = segments[index]
        file = self._files[name]
        is_last = index == len(segments) - 1
        if start >= first + file.lines:
            file.scan()
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
        is_end = is_over and is_last and self._is_all(file, end - first)
        return LogChunk(start, lines, is_end)

    def _is_all(self, file: _File, line: int) -> bool:
        size = file.path.stat().st_size
        return line > file.lines or (line == file.lines and file.end == size)

    def _lines_of(self, segment: tuple[int, int, str], line: int, limit: int, take_rest: bool) -> tuple[str, ...]:
        file = self._files[segment[2]]
        if line + limit > file.lines:
            file.scan()
        if limit <= 0 or (line >= file.lines and not take_rest):
            return ()
        with file.path.open("rb") as source:
            if line > file.lines:
                return ()
            source.seek(file.end if line == file.lines else file.offset(source, line))
            end = None if take_rest else file.end
            raw = source.read(CHUNK if end is None else min(CHUNK, end - source.tell()))
        lines = raw.split(b"\n")
        rest = lines.pop()
        if rest and take_rest and len(raw) < CHUNK:
            lines.append(rest)
        return tuple(_show(text) for text in lines[:limit])


def _show(raw: bytes) -> str:
    """At most `LINE` bytes of valid UTF-8."""
    text = raw[:LINE].decode(errors="replace")
    if len(raw) * 3 > LINE and len(encoded := text.encode()) > LINE:
        return encoded[:LINE].decode(errors="ignore")
    return text
