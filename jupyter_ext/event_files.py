"""Looks at a job's event files before TensorBoard does, which reads each entry whole: one that says it has gigabytes takes as many.

The format is that of TFRecord: length, checksum of the length, data, checksum of the data. Only lengths are read here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

MOST_ENTRIES: Final = 2000
"""Files and folders that are looked at for event files, `DEEPEST` folders down."""
DEEPEST: Final = 4
EVENT_FILE: Final = "tfevents"
"""Part of the name of each file that TensorBoard reads."""
LARGEST_ENTRY: Final = 64 * 2**20
"""Far more than a figure or a histogram takes."""
MOST_LOOKED_AT: Final = 20_000
"""Entries of all files together; beyond them the limit on the process holds alone."""
_HEAD: Final = struct.Struct("<QI")
_AFTER: Final = 4
_MASK: Final = 0xA282EAD8


def _table() -> tuple[int, ...]:
    """Of CRC-32C (Castagnoli)."""
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


_TABLE: Final = _table()


def masked_checksum(data: bytes) -> int:
    """As TensorFlow writes it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Look:
    """One sentence each, or "". ``refusal``: TensorBoard must not read it. ``note``: it will not show all of it."""

    refusal: str = ""
    note: str = ""


def found_in(folder: Path) -> Iterator[Path]:
    """The event files. Follows no link and ends early in a folder with very many files."""
    left = MOST_ENTRIES
    folders = [(folder, 0)]
    while folders:
        here, depth = folders.pop(0)
        with contextlib.suppress(OSError), os.scandir(here) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    return
                if EVENT_FILE in entry.name and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
                if depth < DEEPEST and entry.is_dir(follow_symlinks=False):
                    folders.append((Path(entry.path), depth + 1))


def look(folder: Path) -> Look:
    """At all event files in the folder, until there is one that TensorBoard must not read."""
    note, left = "", MOST_LOOKED_AT
    for path in found_in(folder):
        with contextlib.suppress(OSError):
            # Opened as it is: what stood there a moment ago may be a FIFO now.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    continue
                one, left = _look_at(path.relative_to(folder), file, left)
            if one.refusal:
                return one
            note = note or one.note
    return Look(note=note)


def _look_at(name: Path, file: BinaryIO, left: int) -> tuple[Look, int]:
    at = 0
    while left > 0 and len(head := file.read(_HEAD.size)) == _HEAD.size:
        left -= 1
        length, checksum = _HEAD.unpack(head)
        if checksum != masked_checksum(head[:8]):
            return Look(note=f"The event file {name} is damaged after {at} bytes; TensorBoard shows what stands before."), left
        if length > LARGEST_ENTRY:
            return Look(
                refusal=f"The event file {name} has an entry of {length / 2**20:.0f} MiB, which TensorBoard would read whole; "
                f"expected at most {LARGEST_ENTRY // 2**20} MiB. Remove the file from the results, and open it again."
            ), left
        at += _HEAD.size + length + _AFTER
        file.seek(at)
    return Look(), left
