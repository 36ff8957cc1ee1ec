"""The line of the log that stands for an output which text cannot show: what it is, how large, and where it is looked at.

``[figure 1: image/png, 640x480, 23 kB; see the cell, the job's page in JupyterLab or %attach 3f2a9c12]``
"""

from __future__ import annotations

import base64
import json
import re
import sys
from typing import Any

MOST_LINES = 100
_PLAIN = "text/plain"
_ON_THE_PAGE = ("image/png", "image/jpeg")
_NOTHING = re.compile(r"<IPython\.core\.display.*|<Figure.*|<[^<>]* at 0x[0-9A-Fa-f]+>", re.DOTALL)


def says_nothing(data: dict[str, Any]) -> bool:
    """Whether the text of the output tells no more than that there is one."""
    text = data.get(_PLAIN)
    if any(kind.startswith("image/") for kind in data) or not isinstance(text, str):
        return True
    return not text or (len(data) > 1 and bool(_NOTHING.fullmatch(text)))


class LogLines:
    """One line an output, at most `MOST_LINES`. What is drawn anew in the place of another, after `clear`, has none."""

    def __init__(self, environ: Any) -> None:  # Any: os.environ, or what a test has instead
        self._environ = environ
        self._place = 0
        self._told: set[tuple[int, str]] = set()
        self._counts = {"figure": 0, "output": 0}

    def clear(self) -> None:
        self._place = 0

    def next_of(self, data: dict[str, Any]) -> str:
        """The line for the next output; empty where there is none."""
        place, self._place = self._place, self._place + 1
        kinds = sorted((kind for kind in data if kind != _PLAIN), key=lambda kind: not kind.startswith("image/"))
        if not kinds or not says_nothing(data) or (place, kinds[0]) in self._told or len(self._told) > MOST_LINES:
            return ""
        self._told.add((place, kinds[0]))
        if len(self._told) > MOST_LINES:
            return f"[further figures and outputs have no line here; {where(self._environ, is_on_page=False)}]"
        kind = kinds[0]
        word = "figure" if kind.startswith("image/") else "output"
        self._counts[word] += 1
        facts = ", ".join(part for part in (kind, pixels(kind, data[kind]), show_size(kind, data[kind])) if part)
        return f"[{word} {self._counts[word]}: {facts}; {where(self._environ, is_on_page=kind in _ON_THE_PAGE)}]"


def where(environ: Any, *, is_on_page: bool) -> str:
    """The cell shows rank 0, and of a map the first elements only."""
    job, rank = environ.get("TUTTILAB_JOB_ID", "")[:8], environ.get("TUTTILAB_RANK", "0")
    is_first = rank in ("", "0")
    ways = ["the job's page in JupyterLab"] if is_on_page and is_first else []
    if not is_first:
        ways.append(f".displays(rank={rank}) of the handle")
    elif "TUTTILAB_MAP_INDEX" in environ:
        ways.append(f"[{environ['TUTTILAB_MAP_INDEX']}].displays() of the handle")
    else:
        ways = ["the cell", *ways, *([f"%attach {job}"] if job else [])]
    return "see " + (f"{', '.join(ways[:-1])} or {ways[-1]}" if len(ways) > 1 else ways[0])


def pixels(kind: str, value: Any) -> str:
    """``640x480`` of a PNG, whose first part says it; empty for others."""
    if kind != "image/png" or not isinstance(value, str):
        return ""
    try:
        head = base64.b64decode(value[:32])
    except ValueError:
        return ""
    if len(head) < 24 or head[12:16] != b"IHDR":
        return ""
    return f"{int.from_bytes(head[16:20], 'big')}x{int.from_bytes(head[20:24], 'big')}"


def show_size(kind: str, value: Any) -> str:
    if not isinstance(value, str):
        size = len(json.dumps(value, default=str))
    elif kind == "application/pdf" or (kind.startswith("image/") and kind != "image/svg+xml"):
        size = len(value) * 3 // 4
    else:
        size = len(value.encode("utf-8", "backslashreplace"))
    amount = float(size)
    for unit in ("B", "kB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} MB"


def write(line: str) -> None:
    """Past a redirection of the cell's: there it collects its own text, and this is ours."""
    try:
        sys.stdout.flush()
        stream = sys.__stdout__
        if stream is not None:
            stream.write(line + "\n")
            stream.flush()
    except (OSError, ValueError, AttributeError):
        pass  # the cell closed it
