"""Reads what a cell displayed while it runs (`sidecar/cell/display.py` describes the lines), and keeps what a pod sends of it.

On one machine the file is the job's own, which may have put anything in its place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.base import DisplayChunk
from tuttilab.scheduler.domain.errors import TooLarge
from tuttilab.sidecar import beneath

NAME: Final = "display.jsonl"
LARGEST: Final = 16 * 2**20
"""Bytes read at once; a line has at most half of it."""

MOST: Final = 80 * 2**20
"""Bytes kept of one pod; a cell displays less."""


def append(folder: Path, start: int, body: bytes) -> int:
    """Keep the whole lines in ``body``, which begin at byte ``start`` of the pod's file; the byte to go on from.

    Lines that do not follow those that are there are not kept. Raises TooLarge.
    """
    whole = body[: body.rfind(b"\n") + 1]
    file = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        if start != size or not whole:
            return size
        if size + len(whole) > MOST:
            raise TooLarge(f"displays: {size + len(whole)} bytes of one pod; at most {MOST} are shown before its end.")
        view = memoryview(whole)
        while view:
            view = view[os.write(file, view) :]
        return size + len(whole)
    finally:
        os.close(file)


def read_displays(root: Path, start: int, results: str = "") -> DisplayChunk:
    """Whole lines from byte ``start`` of the file in the folder ``results`` below ``root``.

    None when there is no such file, or another kind of file in its place.
    """
    try:
        body = beneath.read_file(str(root), f"{results}/{NAME}".lstrip("/"), LARGEST, start)
    except (OSError, ValueError, OverflowError):
        return DisplayChunk((), start)
    whole = body[: body.rfind(b"\n") + 1]
    lines = tuple(line.decode(errors="replace") for line in whole.splitlines())
    # A line without an end that fills the buffer would be read for ever.
    return DisplayChunk(lines, start + (len(whole) if whole or len(body) < LARGEST else LARGEST))
