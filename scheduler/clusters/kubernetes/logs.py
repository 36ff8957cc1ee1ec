"""Copies what the user's container prints from its first byte into the pod's folder, where `local.logs` reads it.

The kubelet keeps the newest file only and nothing of a deleted pod, so each pod's log is followed while it runs. Each line comes
with its time; beside the copy stands the time of its last line, from where a control plane that was restarted goes on.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
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
"""Exists once all that the pod printed is copied."""
SILENCE_S: Final = 3600.0
PAUSE_S: Final = 0.3
LONGEST_PAUSE_S: Final = 10.0
_BLOCK: Final = 2**20
_WRONG_PROGRAM = re.compile(rb"exec [^\n]*: exec format error\n?")
_TIMED: Final = re.compile(rb"^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d) ")
"""How each line begins that a container printed. Others are the kubelet's own words: asked for a container that is removed, it
answers 200 and "unable to retrieve container logs for ..." (kubernetes issue 142258)."""
CUT: Final = "the node removed the container before the end of its log was copied: lines may be missing above."


class LogCopy:
    """The copy of one pod's log on the disk. Written by one follower."""

    def __init__(self, folder: Path, cap: int = LOG_BYTES) -> None:
        self._folder = folder
        self._cap = cap
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size, lines = self._mend()
        place = records.read(str(folder / PLACE)) or {}
        self.last = str(place.get("at", ""))
        """Time of the last line that is noted, as the kubelet wrote it."""
        self._lines = int(place.get("lines", 0))
        self._to_skip = max(0, lines - self._lines)
        """Lines after that time which are copied already: the control plane was killed before it noted them."""
        self._lines += self._to_skip
        self._is_full = self._size >= cap
        self._known_until = ""
        self.is_refused = False
        """Whether the kubelet had words of its own in place of the log."""

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
            if self._to_skip:
                self._to_skip -= 1
                continue
            self._lines += 1
            text += newest_state(content)[:LINE_BYTES] + b"\n"
        self._write(bytes(text))
        if not self._is_current():
            return
        records.write(str(self._folder / PLACE), {"at": self.last, "lines": self._lines}, is_durable=False)

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

    def is_of_another_machine(self) -> bool:
        """Whether all that was printed is the container runtime's word for a program of another kind of machine."""
        return self._size < LINE_BYTES and _WRONG_PROGRAM.fullmatch((self._folder / "log").read_bytes()) is not None

    def finish(self, *notes: str) -> None:
        """Mark it as whole, after a line of our own for each of ``notes`` that is not empty."""
        if self._is_current() and not (self._folder / WHOLE).exists():
            for note in filter(None, notes):
                self._is_full = False
                self._write(f"tuttilab: {note}\n".encode())
            (self._folder / WHOLE).touch()

    def _is_current(self) -> bool:
        """Whether the folder still has this copy: the attempt may have been erased, and another one of its number begun."""
        try:
            there, ours = os.stat(self._folder / "log"), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        os.close(self._file)


async def follow(api: Api, namespace: str, pod: str, copy: LogCopy, is_over: Callable[[], bool]) -> str:
    """Until the pod is over and all it printed is copied. ``is_over`` says so also of a pod that is gone or never ran.

    Returns `CUT` where the log went before its end was copied, else "".
    """
    path, pause = f"/api/v1/namespaces/{namespace}/pods/{pod}/log", PAUSE_S
    is_read = is_whole = False
    while True:
        was_over = is_over()  # before the request: what is printed by then comes with it
        query: dict[str, object] = {"container": MAIN, "timestamps": "true", "follow": "false" if was_over else "true"}
        if copy.last:
            query["sinceTime"] = copy.last.partition(".")[0].rstrip("Z") + "Z"
        copy.begin()
        heard = time.monotonic()
        try:
            async for batch in api.batches(path, query, SILENCE_S):
                await asyncio.to_thread(copy.add, batch)
                pause, heard = PAUSE_S, time.monotonic()
            if copy.is_refused:
                if was_over:
                    return "" if is_whole else CUT
            else:
                # The kubelet ends what is followed when the container has ended.
                is_read, is_whole = True, time.monotonic() - heard < SILENCE_S
                if was_over:
                    return ""
        except ApiError as error:
            # 400 while the container waits to start, and for one that never will; 404 once the pod is gone.
            if was_over and error.status in (400, 404):
                return CUT if is_read and not is_whole else ""
        except ClusterUnreachable:
            is_read, is_whole = is_read or bool(copy.last), False
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_S)
