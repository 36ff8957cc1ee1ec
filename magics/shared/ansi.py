"""Colours of a job's output: escape sequences to HTML for a notebook, and text without any.

Of the control sequences of ECMA-48 only SGR (colours, bold, italic, underline, inverse) is kept; what moves the cursor is dropped.
The palette is the one that Jupyter's front ends use for text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final

_SEQUENCE: Final = re.compile(
    r"\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_]|[\x00-\x08\x0b-\x1f\x7f]"
)
_COLOURS: Final = ("#3e424d", "#e75c58", "#00a250", "#ddb62b", "#208ffb", "#d160c4", "#60c6c8", "#c5c1b4")
_BRIGHT: Final = ("#282c36", "#b22b31", "#007427", "#b27d12", "#0065ca", "#a03196", "#258f8f", "#a1a6b2")
_STEPS: Final = (0, 95, 135, 175, 215, 255)
_FLAGS: Final = {1: "font-weight:bold", 2: "opacity:0.7", 3: "font-style:italic", 4: "text-decoration:underline"}


def plain(text: str) -> str:
    """Without control sequences; of a line with carriage returns the newest state."""
    return _SEQUENCE.sub("", newest_state(text))


def newest_state(text: str) -> str:
    return text.rstrip("\r\n").rpartition("\r")[2]


def colour_html(text: str) -> str:
    """Escaped HTML of text of any number of lines, with its colours as inline styles. A colour lasts until it is changed."""
    shown: list[str] = []
    style: dict[str, str] = {}
    for piece, codes in _pieces(text):
        if piece:
            css = ";".join(_css(style))
            shown.append(f'<span style="{css}">{html.escape(piece)}</span>' if css else html.escape(piece))
        if codes is not None:
            _apply(codes, style)
    return "".join(shown)


def _pieces(text: str) -> Iterator[tuple[str, list[int] | None]]:
    """Text and the SGR codes after it; None for another sequence, or at the end."""
    at = 0
    for match in _SEQUENCE.finditer(text):
        codes = match[1]
        numbers = None if codes is None else [int(code[:9] or 0) for code in re.split("[;:]", codes)]
        yield text[at : match.start()], numbers
        at = match.end()
    yield text[at:], None


def _css(style: dict[str, str]) -> Iterator[str]:
    fore, back = style.get("color"), style.get("background-color")
    if "inverse" in style:
        fore, back = back or "var(--jp-layout-color0, #fff)", fore or "var(--jp-content-font-color0, #000)"
    if fore:
        yield f"color:{fore}"
    if back:
        yield f"background-color:{back}"
    yield from (value for key, value in style.items() if key.startswith("flag"))


def _apply(codes: list[int], style: dict[str, str]) -> None:
    rest = iter(codes)
    for code in rest:
        if code == 0:
            style.clear()
        elif code in _FLAGS:
            style[f"flag{code}"] = _FLAGS[code]
        elif code == 7:
            style["inverse"] = ""
        elif code == 22:
            style.pop("flag1", None)
            style.pop("flag2", None)
        elif code in (23, 24):
            style.pop(f"flag{code - 20}", None)
        elif code == 27:
            style.pop("inverse", None)
        elif code in (39, 49):
            style.pop(_KEYS[code // 10 % 2], None)
        elif code in (38, 48):
            colour = _extended(rest)
            if colour:
                style[_KEYS[code // 10 % 2]] = colour
        elif code // 10 in (3, 4) and code % 10 < 8:
            style[_KEYS[code // 10 % 2]] = _COLOURS[code % 10]
        elif code // 10 in (9, 10) and code % 10 < 8:
            style[_KEYS[code // 10 % 2]] = _BRIGHT[code % 10]


_KEYS: Final = ("background-color", "color")
"""By the parity of the tens: 3x and 9x are foreground, 4x and 10x background."""


def _extended(rest: Iterator[int]) -> str:
    """The colour after 38 or 48: ``5;n`` of 256, or ``2;r;g;b``. Empty for anything else."""
    kind = next(rest, -1)
    if kind == 5:
        number = next(rest, -1)
        if 0 <= number < 8:
            return _COLOURS[number]
        if number < 16:
            return _BRIGHT[number - 8] if number >= 8 else ""
        if number < 232:
            number -= 16
            return "#" + "".join(f"{_STEPS[part]:02x}" for part in (number // 36, number // 6 % 6, number % 6))
        return "#" + f"{8 + (number - 232) * 10:02x}" * 3 if number < 256 else ""
    if kind == 2:
        parts = [next(rest, -1) for _ in range(3)]
        return "#" + "".join(f"{part:02x}" for part in parts) if all(0 <= part < 256 for part in parts) else ""
    return ""
