"""The newest epoch that led the pods of a state folder, as a file of fixed length."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FILE: Final = "epoch"
BYTES: Final = 20


def written(epoch: int) -> bytes:
    """What the file holds: of fixed length, so that a write is atomic."""
    return b"%0*d" % (BYTES, epoch)


def number(text: bytes) -> int:
    return int(text) if text.isdigit() else 0


def recorded(folder: Path) -> int:
    """The newest epoch that led the cluster of this folder; 0 if none did."""
    try:
        return number((folder / FILE).read_bytes())
    except FileNotFoundError:
        return 0
