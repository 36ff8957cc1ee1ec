"""Reads what a cell displayed while it runs (`sidecar/cell/display.py` describes the lines). The job may have put anything in
its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.base import DisplayChunk
from tuttilab.sidecar import beneath

NAME: Final = "display.jsonl"
LARGEST: Final = 16 * 2**20
"""Bytes read at once; a line has at most half of it."""


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
