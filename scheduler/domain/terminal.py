"""What may go to a terminal of what jobs print and people write: text and colours.

A terminal obeys what it is sent: it sets the clipboard (OSC 52) and titles, hides addresses behind words (OSC 8), clears the
screen, answers as if somebody typed. Colours pass here, other control sequences are dropped, other control characters are shown.
"""

from __future__ import annotations

import re
from typing import Final

SEQUENCE: Final = re.compile(
    r"\x1b\[(?P<colours>[0-9;:]{0,64})m"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    # Commands of the operating system, of the device, of programs: up to their end, or that of the line.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-Z\\-~]"
)
"""ECMA-48, and the group ``colours`` for Select Graphic Rendition."""
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Of Unicode those that change the direction of what follows: a line is not to be read otherwise than it is written."""
_EXTENDED: Final = {"2": 4, "5": 2}
"""Of a colour (38, 48, 58): how many numbers come after it, by the first of them."""
_CONCEAL: Final = "8"


def clean(text: str) -> str:
    """The text for a terminal, also of several lines. A line that sets colours ends with their reset."""
    if text.isprintable():
        return text
    return "\n".join(_clean_line(line.rstrip("\r")) for line in text.split("\n"))


def plain(text: str) -> str:
    """One line of printable text without colours, for a cell of a table."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in SEQUENCE.sub("", text))


def _clean_line(line: str) -> str:
    shown, is_coloured, last = [], False, 0
    for found in SEQUENCE.finditer(line):
        shown.append(_CONTROLS.sub(_visible, line[last : found.start()]))
        last = found.end()
        colours = found["colours"]
        if colours is not None and not _conceals(colours):
            shown.append(found[0])
            is_coloured = colours.strip("0;:") != ""
    shown.append(_CONTROLS.sub(_visible, line[last:]))
    return "".join(shown) + ("\x1b[0m" if is_coloured else "")


def _conceals(colours: str) -> bool:
    numbers = iter(re.split("[;:]", colours))
    for number in numbers:
        if number.lstrip("0") == _CONCEAL:
            return True
        if number in ("38", "48", "58"):
            for _ in range(_EXTENDED.get(next(numbers, ""), 1) - 1):
                next(numbers, None)
    return False


def _visible(found: re.Match[str]) -> str:
    """``^G`` as `cat -v` writes it, ``<U+202E>`` for others."""
    code = ord(found[0])
    return f"^{chr(code ^ 64)}" if code < 32 or code == 127 else f"<U+{code:04X}>"
