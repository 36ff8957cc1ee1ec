"""Writes a pod's output to disk: its first and its newest lines, never more than a fixed number of bytes.

``log`` holds the first lines, up to a quarter of the cap. Later lines go to segments named ``log.<line>.<byte>`` after the number
and the offset of their first line; the oldest segment is removed when the cap is reached. So a line keeps its number whatever
was dropped before it, and a reader needs no index. Where a file begins after the end of the previous one, lines were dropped, by
the cap or because the disk was full. Files hold whole lines (the last line of a pod may lack its line feed); a line is cut to
8 KiB.

A carriage return goes back to the beginning of the line, as on a terminal: of a progress bar only its newest state is kept.
``partial`` holds the line that has no line feed yet, as ``<number of the line>\\n<its newest state>``; it is rewritten at most
every `PARTIAL_S` seconds and absent while there is none. ``times`` has when lines were written (`log_times.py`).
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time

from tuttilab.sidecar import accounts, beneath
from tuttilab.sidecar.accounts import Account
from tuttilab.sidecar.log_times import Times

CAP_BYTES = 64 * 2**20
LINE_BYTES = 8192
SEGMENTS = 12
"""Number of segments that share the other three quarters of the cap."""
PARTIAL = "partial"
PARTIAL_S = 0.2
_READ = 2**20
_F_SETPIPE_SZ = 1031


class PodLog:
    """Writes the log files of one pod. On a full disk lines are dropped; the job goes on."""

    def __init__(self, folder: str, cap: int = CAP_BYTES) -> None:
        self._folder = folder
        self._head_room = cap // 4
        self._segment_size = max(1, (cap - self._head_room) // SEGMENTS)
        self._file = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._times = Times(folder)
        self._is_head = True
        self._filled = 0
        self._segments: list[str] = []
        self._lines = 0
        self._bytes = 0
        """Of the whole output, written or dropped."""
        self._is_dropping = False
        """The last line was dropped: the next one that can be written begins a segment, whose name shows the gap."""
        self._is_after_gap = False
        self._partial_line = b""
        self._shown = b""
        """What ``partial`` holds."""
        self._shown_at = 0.0
        self._is_closed = False
        self._lock = threading.Lock()

    def write(self, text: bytes) -> None:
        with self._lock:
            self._add(text)

    def show_partial(self) -> bool:
        """Writes the newest state of the unfinished line for readers. False when it is too early for that: call again."""
        with self._lock:
            state = newest_state(self._partial_line)
            text = b"%d\n%s" % (self._lines, state) if state else b""
            if text == self._shown or self._is_closed:
                return True
            now = time.monotonic()
            if text and now - self._shown_at < PARTIAL_S:
                return False
            self._shown, self._shown_at = text, now
            self._write_partial(text)
            return True

    def _write_partial(self, text: bytes) -> None:
        path = f"{self._folder}/{PARTIAL}"
        if not text:
            _remove(path)
            return
        try:
            file = beneath.create(f"{path}.new")
            try:
                os.write(file, text)
            finally:
                os.close(file)
            os.rename(f"{path}.new", path)
        except OSError:
            self._shown = b""  # a full disk: the line is written when it is complete

    def note(self, sentence: str) -> None:
        """Adds a line of the sidecar's own."""
        with self._lock:
            self._add((b"\n" if self._partial_line else b"") + f"tuttilab: {sentence}\n".encode())

    def close(self) -> None:
        """Closes the files; output that comes later, from a process that did not end, is ignored."""
        with self._lock:
            self._is_closed = True
            if last := newest_state(self._partial_line)[:LINE_BYTES]:
                self._store_partial_line(last)
            self._partial_line = b""
            _remove(f"{self._folder}/{PARTIAL}")
            if self._is_dropping:
                try:
                    os.close(self._open(self._name()))  # an empty segment that marks the gap: no line will follow
                except OSError:
                    pass
            os.close(self._file)

    def _add(self, text: bytes) -> None:
        if self._is_closed:
            return
        end = text.rfind(b"\n") + 1
        if not end:
            # Bytes beyond the maximal line length are dropped while the line goes on.
            self._partial_line = _shorten(self._partial_line + text)
            return
        self._times.note(self._lines)
        block = _cut_long_lines(_collapse(self._partial_line + text[:end]))
        self._partial_line = _shorten(text[end:])
        while block:
            fits = self._fitting_bytes(block)
            if not fits:
                fits = block.index(b"\n") + 1
                stored = self._begin_segment(block[:fits])
            else:
                stored = self._store(block[:fits])
            block = block[stored:]
            if stored < fits:
                self._drop(block)
                return

    def _store_partial_line(self, line: bytes) -> None:
        """Writes the last line, which lacks its line feed."""
        stored = self._begin_segment(line) if self._is_dropping else self._store(line)
        if not stored:
            self._drop(line)
            self._lines += 1

    def _fitting_bytes(self, block: bytes) -> int:
        """How many bytes of the block, in whole lines, fit into the open file."""
        if self._is_dropping:
            return 0
        room = (self._head_room if self._is_head else self._segment_size) - self._filled
        if len(block) <= room:
            return len(block)
        fits = block.rfind(b"\n", 0, max(room, 0)) + 1
        if not fits and self._filled == 0:
            fits = block.index(b"\n") + 1  # a line larger than a segment (a tiny cap) is still written
        return fits

    def _store(self, block: bytes) -> int:
        """Appends to the open file; returns how many bytes were written."""
        stored = _write(self._file, self._filled, block)
        self._filled += stored
        self._count(block[:stored])
        return stored

    def _drop(self, block: bytes) -> None:
        """Counts dropped lines, so that later lines keep their numbers."""
        self._is_dropping = True
        self._count(block)

    def _count(self, block: bytes) -> None:
        self._bytes += len(block)
        self._lines += block.count(b"\n")

    def _begin_segment(self, line: bytes) -> int:
        """Begins a segment with its first line. Returns 0 when that cannot be written; then no older segment is removed."""
        if not self._is_dropping:
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
        if self._is_dropping and self._is_after_gap and self._filled < self._segment_size // 4:
            # The disk is full again and again: short pieces between gaps must not displace longer segments.
            _remove(self._segments.pop())
        self._file, self._is_head, self._filled = file, False, len(line)
        self._is_dropping, self._is_after_gap = False, self._is_dropping
        self._segments.append(name)
        self._drop_oldest(SEGMENTS)
        self._count(line)
        return len(line)

    def _name(self) -> str:
        return f"{self._folder}/log.{self._lines}.{self._bytes}"

    @staticmethod
    def _open(name: str) -> int:
        return beneath.create(name, os.O_APPEND)

    def _drop_oldest(self, keep: int) -> None:
        while len(self._segments) > keep:
            _remove(self._segments.pop(0))


def _write(file: int, filled: int, block: bytes) -> int:
    """Appends the block to a file of ``filled`` bytes; returns how many were written: all, or on a full disk some whole lines."""
    written = 0
    try:
        while written < len(block):
            written += os.write(file, block[written:])
    except OSError:
        written = block.rfind(b"\n", 0, written) + 1
        try:
            os.ftruncate(file, filled + written)
        except OSError:
            pass  # part of a line stays at the end of a file that is no longer written to; readers ignore it
    return written


def _remove(name: str) -> None:
    try:
        os.unlink(name)
    except OSError:
        pass


def newest_state(line: bytes) -> bytes:
    """What a terminal shows of a line with carriage returns: what came after the last one that something followed."""
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def _collapse(block: bytes) -> bytes:
    """Every line of a block of whole lines in its newest state."""
    if b"\r" not in block:
        return block
    return b"\n".join(newest_state(line) for line in block.split(b"\n"))


def _shorten(line: bytes) -> bytes:
    """The newest state of an unfinished line, cut; a carriage return at its end is kept, for what follows begins a new state."""
    state = newest_state(line)[:LINE_BYTES]
    return state + b"\r" if line.endswith(b"\r") else state


def _cut_long_lines(block: bytes) -> bytes:
    if len(block) <= LINE_BYTES:
        return block
    lines = block.split(b"\n")
    if max(map(len, lines)) <= LINE_BYTES:
        return block
    return b"\n".join(line[:LINE_BYTES] for line in lines)


class Pump:
    """Copies the pod's output from a pipe to its log on a thread, so that a slow disk never delays the event loop."""

    def __init__(self, log: PodLog, owner: Account | None = None) -> None:
        self._log = log
        with accounts.acting_as(owner):  # who then can open /dev/stdout, as scripts do
            self._source, self.output = os.pipe()
        try:
            fcntl.fcntl(self._source, _F_SETPIPE_SZ, _READ)
        except OSError:
            pass  # the user's limit of pipe memory is reached: the default of 64 KiB is enough
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)

    def start(self) -> None:
        """Call after the start of the main command: from then on only the pod's processes hold the writing end."""
        os.close(self.output)
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Waits for the end of the output, which comes at once when no process of the pod is alive."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            if not self._log.show_partial() and not select.select([self._source], [], [], PARTIAL_S)[0]:
                continue
            text = os.read(self._source, _READ)
            if not text:
                return
            self._log.write(text)
