"""What a cell showed in its job, for a page: texts and pictures. The records are described in `sidecar/cell/display.py`.

They come from user code, so any bytes may be there. HTML and scripts are left out: the notebook of their owner shows these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LARGEST_RECORD: Final = 8 * 2**20
LARGEST_READ: Final = 64 * 2**20
"""Bytes of all records."""
LARGEST_TOGETHER: Final = 12 * 2**20
"""Characters of all pictures."""
MOST_SHOWN: Final = 20
LONGEST_TEXT: Final = 4000
_PICTURES: Final = ("image/png", "image/jpeg")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_KIND: Final = re.compile(r"[a-z]+/[A-Za-z0-9.+-]{1,60}")


@dataclass(frozen=True, slots=True)
class Shown:
    """One output in its last state. ``picture``: base64 of ``kind``; both empty when it has none a page shows.

    ``others``: MIME types that are left out. ``is_value``: it is the value of the cell.
    """

    text: str
    kind: str = ""
    picture: str = ""
    others: tuple[str, ...] = ()
    is_value: bool = False


def read_shown(lines: Iterable[str | bytes]) -> tuple[list[Shown], int]:
    """The outputs that are left, in order and the value last, and how many more there are."""
    outputs: dict[str, Mapping[str, Any]] = {}
    value: Mapping[str, Any] | None = None
    for number, record in enumerate(_records(lines)):
        data, told, name = record.get("data"), record.get("value"), record.get("id")
        if record.get("clear"):
            outputs.clear()
        elif isinstance(told, dict):
            value = told
        elif isinstance(data, dict):
            key = f"id {name}" if isinstance(name, str) else f"at {number}"
            if not record.get("update") or key in outputs:
                outputs[key] = data
    found = [*((data, False) for data in outputs.values()), *([(value, True)] if value is not None else [])]
    room = LARGEST_TOGETHER
    shown: list[Shown] = []
    for data, is_value in found[-MOST_SHOWN:]:
        one = _shown(data, is_value, room)
        room -= len(one.picture)
        shown.append(one)
    return shown, len(found) - len(shown)


def lines_of(path: Path) -> list[bytes]:
    """The lines of a file, none when it cannot be read; at most `LARGEST_READ` bytes. Blocks while it reads."""
    left, found = LARGEST_READ, []
    try:
        with path.open("rb") as file:
            while left > 0 and (line := file.readline(LARGEST_RECORD + 1024)):
                left -= len(line)
                found.append(line)
    except OSError:
        return []
    return found


def _records(lines: Iterable[str | bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def _shown(data: Mapping[str, Any], is_value: bool, room: int) -> Shown:
    plain = data.get("text/plain", "")
    text = (plain if isinstance(plain, str) else "")[:LONGEST_TEXT]
    kind, picture = next(((kind, found) for kind in _PICTURES if (found := _base64(data.get(kind), room))), ("", ""))
    others = tuple(sorted(name for name in data if name not in ("text/plain", kind) and _KIND.fullmatch(name)))[:10]
    return Shown(text, kind, picture, others, is_value)


def _base64(value: object, room: int) -> str:
    """Empty for what is no base64, or has no room."""
    if not isinstance(value, str) or len(value) > room + room // 50:
        return ""
    joined = "".join(value.split())
    return joined if len(joined) <= room and _BASE64.fullmatch(joined) else ""
