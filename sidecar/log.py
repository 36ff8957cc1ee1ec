"""Keeps what a pod prints: its beginning and its newest lines, never more than a fixed number of bytes on disk.

``log`` holds the first lines, up to a quarter of the cap. What follows goes to segments named ``log.<line>.<byte>`` after the
number and the offset of their first line; the oldest segment is removed when the cap is reached. So a line keeps its number
whatever was dropped before it, and a reader needs no index to find it. Files hold whole lines (the last one of a pod may lack
its line feed); a line is cut to 8 KiB.
"""

from __future__ import annotations

import fcntl
import os
import threading

CAP = 64 * 2**20
LINE = 8192
SEGMENTS = 12
"""Segments after the first quarter: the cap's other three quarters."""
_READ = 2**20
_F_SETPIPE_SZ = 1031


class PodLog:
    """Writes the files of one pod. A disk that is full costs lines, never the job: what cannot be written is dropped."""

    def __init__(self, folder: str, cap: int = CAP) -> None:
        self._folder = folder
        self._head_room = cap // 4
        self._segment_size = max(1, (cap - self._head_room) // SEGMENTS)
        self._file = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._is_head = True
        self._filled = 0
        self._segments: list[str] = []
        self._lines = 0
        self._bytes = 0
        self._rest = b""
        self._is_closed = False
        self._lock = threading.Lock()

    def write(self, text: bytes) -> None:
        with self._lock:
            self._add(text)

    def note(self, sentence: str) -> None:
        """A line of our own, on a line of its own."""
        with self._lock:
            self._add((b"\n" if self._rest else b"") + f"tuttilab: {sentence}\n".encode())

    def close(self) -> None:
        """What is printed later, by a process that would not end, is nobody's any more."""
        with self._lock:
            self._is_closed = True
            if self._rest:
                self._store(self._rest)
                self._rest = b""
            os.close(self._file)

    def _add(self, text: bytes) -> None:
        if self._is_closed:
            return
        end = text.rfind(b"\n") + 1
        if not end:
            # Bytes past the cut of a line that does not end are of no use to anybody.
            self._rest = (self._rest + text)[:LINE]
            return
        block = _cut_long_lines(self._rest + text[:end])
        self._rest = text[end:][:LINE]
        while block:
            room = (self._head_room if self._is_head else self._segment_size) - self._filled
            if len(block) <= room:
                self._store(block)
                return
            fits = block.rfind(b"\n", 0, max(room, 0)) + 1
            if not fits and self._filled == 0:
                fits = block.index(b"\n") + 1  # a line larger than a segment (a tiny cap) still goes somewhere
            self._store(block[:fits])
            block = block[fits:]
            self._next_segment()

    def _store(self, block: bytes) -> None:
        rest = block
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            pass  # no space: later lines keep their numbers, and what was lost shows as a gap at the next segment
        self._filled += len(block)
        self._bytes += len(block)
        self._lines += block.count(b"\n")

    def _next_segment(self) -> None:
        name = f"{self._folder}/log.{self._lines}.{self._bytes}"
        try:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        os.close(self._file)
        self._file, self._is_head, self._filled = file, False, 0
        self._segments.append(name)
        if len(self._segments) > SEGMENTS:
            try:
                os.unlink(self._segments.pop(0))
            except OSError:
                pass


def _cut_long_lines(block: bytes) -> bytes:
    if len(block) <= LINE:
        return block
    lines = block.split(b"\n")
    if max(map(len, lines)) <= LINE:
        return block
    return b"\n".join(line[:LINE] for line in lines)


class Pump:
    """Carries the pod's output from a pipe to its log, on a thread, so that a slow disk never delays a decision."""

    def __init__(self, log: PodLog) -> None:
        self._log = log
        self._source, self.output = os.pipe()
        try:
            fcntl.fcntl(self._source, _F_SETPIPE_SZ, _READ)
        except OSError:
            pass  # the user's pipe allowance is spent: the default of 64 KiB does too
        self._thread = threading.Thread(target=self._carry, name="pump", daemon=True)

    def start(self) -> None:
        """Call after the main command was started: from here on only the pod's processes hold the writing end."""
        os.close(self.output)
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Waits for the end of the output: at once when no process of the pod is alive."""
        self._thread.join(timeout_s)

    def _carry(self) -> None:
        while text := os.read(self._source, _READ):
            self._log.write(text)
