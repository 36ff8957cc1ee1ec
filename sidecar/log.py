"""Keeps what a pod prints: its beginning and its newest lines, never more than a fixed number of bytes on disk.

``log`` holds the first lines, up to a quarter of the cap. What follows goes to segments named ``log.<line>.<byte>`` after the
number and the offset of their first line; the oldest segment is removed when the cap is reached. So a line keeps its number
whatever was dropped before it, and a reader needs no index to find it: where a file begins behind the end of the one before it,
lines were dropped, by the cap or because the disk was full. Files hold whole lines (the last one of a pod may lack
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
        """Of all that was printed, kept or not."""
        self._is_losing = False
        """The last line was not written: the next one that can be begins a segment, whose name shows the gap."""
        self._is_after_gap = False
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
                self._keep_last(self._rest)
                self._rest = b""
            if self._is_losing:
                try:
                    os.close(self._open(self._name()))  # no line comes that could begin it
                except OSError:
                    pass
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
            fits = self._fitting(block)
            if not fits:
                fits = block.index(b"\n") + 1
                stored = self._begin_segment(block[:fits])
            else:
                stored = self._store(block[:fits])
            block = block[stored:]
            if stored < fits:
                self._lose(block)
                return

    def _keep_last(self, line: bytes) -> None:
        """One that lacks its line feed."""
        stored = self._begin_segment(line) if self._is_losing else self._store(line)
        if not stored:
            self._lose(line)
            self._lines += 1

    def _fitting(self, block: bytes) -> int:
        """How much of it, in whole lines, goes to the file that is open."""
        if self._is_losing:
            return 0
        room = (self._head_room if self._is_head else self._segment_size) - self._filled
        if len(block) <= room:
            return len(block)
        fits = block.rfind(b"\n", 0, max(room, 0)) + 1
        if not fits and self._filled == 0:
            fits = block.index(b"\n") + 1  # a line larger than a segment (a tiny cap) still goes somewhere
        return fits

    def _store(self, block: bytes) -> int:
        """How much of it was kept."""
        stored = _write(self._file, self._filled, block)
        self._filled += stored
        self._count(block[:stored])
        return stored

    def _lose(self, block: bytes) -> None:
        """Later lines keep their numbers."""
        self._is_losing = True
        self._count(block)

    def _count(self, block: bytes) -> None:
        self._bytes += len(block)
        self._lines += block.count(b"\n")

    def _begin_segment(self, line: bytes) -> int:
        """With its first line; 0 when not even that can be written, and then nothing that is kept goes for it."""
        if not self._is_losing:
            self._drop_oldest(SEGMENTS - 1)
        name = self._name()
        try:
            file = self._open(name)
        except OSError:
            return 0
        if not _write(file, 0, line):
            os.close(file)
            _remove(name)
            return 0
        os.close(self._file)
        if self._is_losing and self._is_after_gap and self._filled < self._segment_size // 4:
            # A disk that is full and not full by turns: bits of lines between gaps do not push out what is worth more.
            _remove(self._segments.pop())
        self._file, self._is_head, self._filled = file, False, len(line)
        self._is_losing, self._is_after_gap = False, self._is_losing
        self._segments.append(name)
        self._drop_oldest(SEGMENTS)
        self._count(line)
        return len(line)

    def _name(self) -> str:
        return f"{self._folder}/log.{self._lines}.{self._bytes}"

    @staticmethod
    def _open(name: str) -> int:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _drop_oldest(self, keep: int) -> None:
        while len(self._segments) > keep:
            _remove(self._segments.pop(0))


def _write(file: int, filled: int, block: bytes) -> int:
    """How much of the block stands in the file behind what it holds: all, or on a full disk some of its lines, none of them cut."""
    written = 0
    try:
        while written < len(block):
            written += os.write(file, block[written:])
    except OSError:
        written = block.rfind(b"\n", 0, written) + 1
        try:
            os.ftruncate(file, filled + written)
        except OSError:
            pass  # half a line at the end of a file that is written to no more: no reader takes it for one
    return written


def _remove(name: str) -> None:
    try:
        os.unlink(name)
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
