"""Copies what the user's container prints from its first byte into the pod's folder, where `kept.logs` reads it.

The kubelet keeps the newest file only and nothing of a deleted pod, so each pod's log is followed while it runs. Each line comes
with its time; beside the copy stands the time of its last line, from where a control plane that was restarted goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError
from tuttilab.scheduler.clusters.kubernetes.pods import MAIN
from tuttilab.scheduler.domain.errors import ClusterUnreachable
from tuttilab.sidecar import records
from tuttilab.sidecar.log import LINE_BYTES, newest_state

LOG_BYTES: Final = 256 * 2**20
"""Kept of each pod: its first bytes."""
PLACE: Final = "followed.json"
WHOLE: Final = "whole"
"""Exists once all that the pod printed is copied, and names the file that it was copied to."""
SILENCE_S: Final = 3600.0
PAUSE_S: Final = 0.3
LONGEST_PAUSE_S: Final = 10.0
FEW: Final = 20
BEGIN_A_SECOND: Final = 100.0
"""Of logs that begin together, where they are more than `FEW`."""
LONGEST_LAUNCH_S: Final = 30.0
"""For which logs that nobody reads wait at most until pods are made."""
FOLLOWED: Final = 500
"""Logs that are copied as they are written; those of more pods come with a delay. Each holds a connection to the API server."""
READ_AT_ONCE: Final = 32
READS_A_SECOND: Final = 20.0
"""Of all logs that are not followed."""
_BLOCK: Final = 2**20
_TIMED: Final = re.compile(rb"^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d) ")
"""How each line begins that a container printed. Others are the kubelet's own words: asked for a container that is removed, it
answers 200 and "unable to retrieve container logs for ..." (kubernetes issue 142258)."""
_NO_PROGRAM: Final = re.compile(
    rb"(?:standard_init_linux\.go:\d+: )?exec [^\n]*: exec format error(?:\ntuttilab: .*)?\s*", re.IGNORECASE | re.DOTALL
)
_FIRST_WORDS: Final = 5000
CUT: Final = "the node removed the container before the end of its log was copied: lines may be missing above."


class LogCopy:
    """The copy of one pod's log on the disk. Written by one follower.

    ``is_shared``: other control planes see the folder too. A former leader may have been suspended and go on writing when we do, so
    what it copied is taken over into a file of our own, which replaces its: it then writes where nobody looks.
    """

    def __init__(self, folder: Path, cap: int = LOG_BYTES, *, is_shared: bool = False) -> None:
        self._folder = folder
        self._cap = cap
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_shared and (folder / "log").exists():
            self._take_over()
        self._file = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._place = _place_of(folder, is_shared=is_shared)
        self._size, lines = self._mend()
        place = records.read(str(self._place)) or {}
        self.last = str(place.get("at", ""))
        """Time of the last line that is noted, as the kubelet wrote it."""
        self._lines = int(place.get("lines", 0))
        self._to_skip = max(0, lines - self._lines)
        """Lines after that time which are copied already: the control plane was killed before it noted them."""
        self._lines += self._to_skip
        self._is_full = self._size >= cap
        self._known_until = ""
        self._unfinished = b""
        """What an answer ended with, without a line feed."""
        self._unfinished_at = ""
        self.is_refused = False
        """Whether the kubelet had words of its own in place of the log."""

    def _take_over(self) -> None:
        """How far it came is read first: what is copied while we copy counts as not noted. A crash leaves the former two files."""
        before = _place_of(self._folder, is_shared=True)
        place = records.read(str(before)) or {}
        ours = self._folder / f".log.{os.getpid()}"
        shutil.copyfile(self._folder / "log", ours)
        ours.chmod(0o600)
        records.write(str(self._folder / f"{PLACE}.{ours.stat().st_ino}"), place, is_durable=False)
        (self._folder / WHOLE).unlink(missing_ok=True)
        os.rename(ours, self._folder / "log")
        before.unlink(missing_ok=True)

    def begin_anew(self, where: Path) -> None:
        """Say that what another control plane copied is not in ``where``."""
        if not self._size:
            self._write(
                f"tuttilab: another control plane copied this log to a folder that is not {where} of this one; it begins with "
                "what the node still has.\n".encode()
            )
            self._lines += 1
            records.write(str(self._place), {"at": self.last, "lines": self._lines}, is_durable=False)

    def begin(self) -> None:
        """Before the first line of an answer that begins at about `last`: what it repeats is left out."""
        self._known_until = self.last
        self.is_refused = False

    def _mend(self) -> tuple[int, int]:
        """Cut a half-written last line; size and number of lines."""
        size = lines = end = 0
        with open(self._folder / "log", "rb") as file:
            while block := file.read(_BLOCK):
                lines += block.count(b"\n")
                if (feed := block.rfind(b"\n")) >= 0:
                    end = size + feed + 1
                size += len(block)
        if end < size:
            os.ftruncate(self._file, end)
        return end, lines

    def end(self, rest: bytes) -> None:
        """What an answer has after its last line feed, or nothing.

        Where the kubelet begins a new file, containerd ends the old one in the midst of a line: what follows of it is the first
        line of the new one, with a later time, and comes with the next answer. Of an answer that broke off it comes again, whole.
        """
        if not rest:
            return
        at, _, content = rest.partition(b" ")
        told = at.decode(errors="replace")
        if _TIMED.search(rest) is None:
            self.is_refused = True
        elif told > self._known_until:
            self._unfinished, self._unfinished_at = content, told

    def add(self, batch: list[bytes]) -> None:
        """Lines as the kubelet gives them, each after its time and a space."""
        text = bytearray()
        for line in batch:
            if _TIMED.search(line) is None:
                self.is_refused = True
                continue
            at, _, content = line.partition(b" ")
            told = at.decode(errors="replace")
            if told <= self._known_until:
                continue
            self.last = told
            if self._unfinished:
                content = content if told == self._unfinished_at else self._unfinished + content
                self._unfinished = b""
            if self._to_skip:
                self._to_skip -= 1
                continue
            self._lines += 1
            text += newest_state(content)[:LINE_BYTES] + b"\n"
        self._write(bytes(text))
        if not self._is_current():
            return
        records.write(str(self._place), {"at": self.last, "lines": self._lines}, is_durable=False)

    def _write(self, text: bytes) -> None:
        if not text or self._is_full:
            return
        if self._size + len(text) > self._cap:
            self._is_full = True
            text = f"tuttilab: the log is kept up to {self._cap >> 20} MiB; what follows is not.\n".encode()
        view = memoryview(text)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(text)

    def finish(self, *notes: str) -> None:
        """Mark it as whole, after a line of our own for each of ``notes`` that is not empty."""
        if self._is_current() and not is_whole(self._folder):
            if self._unfinished:
                self._write(newest_state(self._unfinished)[:LINE_BYTES] + b"\n")
            for note in filter(None, notes):
                self._is_full = False
                self._write(f"tuttilab: {note}\n".encode())
            records.write(str(self._folder / WHOLE), {"file": os.fstat(self._file).st_ino}, is_durable=False)

    def _is_current(self) -> bool:
        """Whether the folder still has this copy: the attempt may have been erased, and another one of its number begun."""
        try:
            there, ours = os.stat(self._folder / "log"), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        os.close(self._file)


def is_whole(folder: Path) -> bool:
    """Whether all that the pod printed is copied. What a former leader says of its own file does not count."""
    if not (folder / WHOLE).exists():
        return False
    file = (records.read(str(folder / WHOLE)) or {}).get("file")
    try:
        return file is None or file == os.stat(folder / "log").st_ino
    except FileNotFoundError:
        return False


def is_of_another_machine(folder: Path) -> bool:
    """Whether all that a container printed is its runtime's word that the program is for another architecture.

    A runtime that has begun to start the program says that nowhere else.
    """
    try:
        with (folder / "log").open("rb") as file:
            return _NO_PROGRAM.fullmatch(file.read(_FIRST_WORDS)) is not None
    except FileNotFoundError:
        return False


def _place_of(folder: Path, *, is_shared: bool) -> Path:
    """Where it is noted how far ``log`` is copied: of a shared folder by the file, so that a former leader's goes elsewhere."""
    try:
        return folder / (f"{PLACE}.{os.stat(folder / 'log').st_ino}" if is_shared else PLACE)
    except FileNotFoundError:
        return folder / PLACE


class Turns:
    """Who may hold a connection. The first ones follow their logs, the others read theirs from time to time."""

    def __init__(self, follow: int = FOLLOWED, read: int = READ_AT_ONCE, is_launching: Callable[[], bool] = lambda: False) -> None:
        """``is_launching``: whether pods are being made, which come before logs."""
        self._free = follow
        self._is_launching = is_launching
        self._next = 0.0
        """When the next one may begin (monotonic)."""
        self.reading = asyncio.Semaphore(read)
        self._waiting = 0
        """Those without a connection of their own."""

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Whether one may follow, for as long as it is held."""
        has_one = self._free > 0
        self._free -= has_one
        self._waiting += not has_one
        try:
            yield has_one
        finally:
            self._free += has_one
            self._waiting -= not has_one

    async def begin(self, wanted: asyncio.Event, others: int) -> None:
        """Before the first read: who cannot follow comes at a time of its own, or when the log is ``wanted``.

        Those that begin together, as after a restart, come one after the other, and while many pods are made, all wait a little:
        the kubelet keeps what they print.
        """
        began = time.monotonic()
        self._next = min(max(self._next, began - FEW / BEGIN_A_SECOND) + 1 / BEGIN_A_SECOND, began + LONGEST_LAUNCH_S)
        if self._next > began:
            await _pause(wanted, self._next - began)
        while self._is_launching() and not wanted.is_set() and time.monotonic() - began < LONGEST_LAUNCH_S:
            await _pause(wanted, random.uniform(0.5, 1.0) * PAUSE_S * 2)
        if self._free <= 0:
            await _pause(wanted, random.uniform(0, others / READS_A_SECOND))

    @property
    def pause_s(self) -> float:
        """Between two reads of one who waits."""
        return max(LONGEST_PAUSE_S, self._waiting / READS_A_SECOND)


async def _pause(hurry: asyncio.Event, seconds: float) -> None:
    """Cut short when ``hurry`` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurry.wait()


async def follow(
    api: Api, namespace: str, pod: str, copy: LogCopy, is_over: Callable[[], bool], over: asyncio.Event, turns: Turns
) -> str:
    """Until the pod is over and all it printed is copied. ``is_over`` says so also of a pod that is gone or never ran.

    ``over`` is set when it may have ended: nothing is waited for then. Returns `CUT` where the log went before its end was copied,
    else "".
    """
    path, pause = f"/api/v1/namespaces/{namespace}/pods/{pod}/log", PAUSE_S
    is_read = is_whole = False
    while True:
        with turns.taken() as may_follow:
            was_over = is_over()  # before the request: what is printed by then comes with it
            follows = may_follow and not was_over
            query: dict[str, object] = {"container": MAIN, "timestamps": "true", "follow": "true" if follows else "false"}
            if copy.last:
                query["sinceTime"] = copy.last.partition(".")[0].rstrip("Z") + "Z"
            copy.begin()
            heard, unfinished = time.monotonic(), list[bytes]()
            try:
                async with contextlib.nullcontext() if follows else turns.reading:
                    async for batch in api.batches(path, query, SILENCE_S, unfinished):
                        await asyncio.to_thread(copy.add, batch)
                        pause, heard = PAUSE_S, time.monotonic()
                    copy.end(b"".join(unfinished))
                if copy.is_refused:
                    if was_over:
                        return "" if is_whole else CUT
                elif follows or was_over:
                    # The kubelet ends what is followed when the container has ended.
                    is_read, is_whole = True, time.monotonic() - heard < SILENCE_S
                    if was_over:
                        return ""
                else:
                    is_read, is_whole, pause = True, False, turns.pause_s
            except ApiError as error:
                # 400 while the container waits to start, and for one that never will; 404 once the pod is gone.
                if was_over and error.status in (400, 404):
                    return CUT if is_read and not is_whole else ""
            except ClusterUnreachable:
                is_read, is_whole = is_read or bool(copy.last), False
            await _pause(asyncio.Event() if was_over else over, pause)
        pause = min(pause * 2.0, max(LONGEST_PAUSE_S, turns.pause_s))
