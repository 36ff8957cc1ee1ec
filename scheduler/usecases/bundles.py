"""Reads what a code bundle (`magics/submission/bundle.py`) says of itself, for people. Any bytes may lie in its place.

Nothing is unpacked: headers are read one by one, and of two members the first bytes.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

LONGEST_TEXT: Final = 64 * 1024
"""Characters of the cell, and of all functions together."""
LARGEST_ABOUT: Final = 4 * 2**20
MOST_MEMBERS: Final = 5_000
MOST_LISTED: Final = 200
LONGEST_NAME: Final = 200
_BLOCK: Final = 512
_PAX_PATH: Final = re.compile(rb"\d+ path=([^\n]+)\n")


@dataclass(frozen=True, slots=True)
class Bundle:
    """``cut``: whether a text has more than is here. ``more``: names and files that are not listed. Sizes in bytes."""

    cell: str
    cell_name: str = ""
    functions: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    is_cut: bool = False
    more: int = 0
    size: int = 0


def read_bundle(path: Path) -> Bundle | None:
    """None for what is no bundle of a cell: no file, no tar, or one without a cell. Blocks while it reads."""
    about: dict[str, Any] = {}
    cell: str | None = None
    is_cut = False
    files: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            for name, length in _members(file, size):
                if name == "cell.py":
                    cell, is_cut = _text(file.read(min(length, 4 * LONGEST_TEXT)))
                    is_cut = is_cut or length > 4 * LONGEST_TEXT
                elif name == "bundle.json" and length <= LARGEST_ABOUT:
                    about = _object(file.read(length))
                elif name.startswith("files/"):
                    files[name.removeprefix("files/")] = length
    except OSError:
        return None
    if cell is None:
        return None
    functions, are_functions_cut = _functions(about.get("sources"))
    names = _sizes(about.get("sizes"))
    shown_names, shown_files = _largest(names), _largest(files)
    return Bundle(
        cell=cell,
        cell_name=str(about.get("cell_name", ""))[:LONGEST_NAME],
        functions=functions,
        names=shown_names,
        files=shown_files,
        is_cut=is_cut or are_functions_cut,
        more=len(names) + len(files) - len(shown_names) - len(shown_files),
        size=size,
    )


def _members(file: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """Name and size of each regular member, with the file at its first byte; ends at the first header that is none."""
    at, long_name = 0, None
    for _ in range(MOST_MEMBERS):
        file.seek(at)
        try:
            header = tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "replace")
        except tarfile.HeaderError:
            return
        if not 0 <= header.size <= size - at:
            return
        if header.type == tarfile.XHDTYPE:
            found = _PAX_PATH.search(file.read(min(header.size, 4 * _BLOCK)))
            long_name = found[1].decode("utf-8", "replace") if found else None
        else:
            if header.isreg():
                yield long_name or header.name, header.size
            long_name = None
        at += _BLOCK + -(-header.size // _BLOCK) * _BLOCK


def _text(raw: bytes) -> tuple[str, bool]:
    """At most `LONGEST_TEXT` characters, and whether there are more."""
    text = raw.decode("utf-8", "replace")
    return text[:LONGEST_TEXT], len(text) > LONGEST_TEXT


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _functions(sources: object) -> tuple[dict[str, str], bool]:
    """The lines of each function by the name of its cell, in the order of their numbers; and whether some are left out."""
    found: dict[str, str] = {}
    room = LONGEST_TEXT
    for name, lines in sources.items() if isinstance(sources, dict) else ():
        if not isinstance(lines, dict):
            continue
        numbered = sorted(
            (int(number), str(line)) for number, line in lines.items() if str(number).isdecimal() and len(number) < 10
        )
        text = "\n".join(line for _, line in numbered)
        if len(found) >= MOST_LISTED or len(text) > room:
            return found, True
        found[str(name)[:LONGEST_NAME]] = text
        room -= len(text)
    return found, False


def _sizes(given: object) -> dict[str, int]:
    pairs = given.items() if isinstance(given, dict) else ()
    return {str(name): size for name, size in pairs if type(size) is int and 0 <= size < 2**60}


def _largest(sizes: Mapping[str, int]) -> dict[str, int]:
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return {name[:LONGEST_NAME]: size for name, size in ranked[:MOST_LISTED]}
