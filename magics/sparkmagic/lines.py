"""The options of sparkmagic, and what they are in those of `%%spark`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tuttilab.magics.shared.parse import Option, Parsed, Positional, UsageError, parse_line, variable_name

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import DataFrame

MOST_ROWS: Final = 2500
"""Rows of a result when -n says nothing, as in sparkmagic."""
COMMANDS: Final = ("add", "list", "info", "logs", "delete", "cleanup", "config")
_QUIET: Final = re.compile(r"(?<!\S)(?:-q|--quiet)\s+(True|False)\b")
_PASSWORD: Final = re.compile(r"(?<!\S)(?:-p|--password)(?=\s+-|\s*$)")


def rows(text: str) -> int:
    """A converter: a whole number; below zero for all rows."""
    if not text.lstrip("-").isdigit():
        raise ValueError("a whole number, below zero for all rows")
    return int(text)


def fraction(text: str) -> float:
    """A converter: a share of the rows."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0.0 <= found <= 1.0:
        raise ValueError("a number from 0.0 to 1.0")
    return found


RESULT: Final = (
    Option("--output", "VAR", variable_name, short="-o", help="the variable that gets the rows as pandas"),
    Option("--maxrows", "N", rows, default=MOST_ROWS, short="-n", help="at most so many rows; below zero for all"),
    Option("--samplemethod", choices=("take", "sample"), default="take", short="-m", help="the first rows, or a sample"),
    Option("--samplefraction", "R", fraction, default=0.1, short="-r", help="share of the rows, with -m sample"),
    Option("--quiet", short="-q", help="show no rows"),
    Option("--coerce", "BOOL", short="-e", help="not used: the types are Spark's"),
)
CELL: Final = (
    *RESULT,
    Option("--context", choices=("spark", "sql"), default="spark", short="-c", help="the language of the cell"),
    Option("--session", "NAME", short="-s", help="the session (default: the one in use)"),
)
SESSION: Final = (
    Option("--session", "NAME", short="-s", help="the session"),
    Option("--language", choices=("python", "scala", "r"), default="python", short="-l", help="of cells in this session"),
    Option("--url", "URL", short="-u", help="not used: there is no Livy"),
    Option("--user", "NAME", short="-a", help="not used: the session is yours"),
    Option("--password", "P", short="-p", help="not used: the session is reached with your token"),
    Option("--auth", "KIND", short="-t", help="not used"),
    Option("--skip", short="-k", help="not used: a session that runs is used"),
    Option("--id", "ID", short="-i", help="not used: sessions have names"),
)
SEND: Final = (
    Option("--input", "VAR", variable_name, short="-i", help="the variable of the notebook"),
    Option("--vartype", choices=("str", "df"), default="str", short="-t", help="as text, or as a Spark DataFrame"),
    Option("--varname", "NAME", variable_name, short="-n", help="its name in the session (default: the same)"),
    Option("--maxrows", "N", rows, default=MOST_ROWS, short="-m", help="at most so many rows; below zero for all"),
)
FORCE: Final = (Option("--force", short="-f", help="also when that ends a running session"),)


def read(magic: str, options: tuple[Option, ...], line: str, positionals: tuple[Positional, ...] = ()) -> Parsed:
    """As sparkmagic reads it: also `-q True`, and `-p` without a password. Raises UsageError."""
    line = _PASSWORD.sub("", line) if options is SESSION else _QUIET.sub(lambda found: "-q" if found[1] == "True" else "", line)
    return parse_line(magic, options, line, positionals)


def as_ours(parsed: Parsed, is_shown: bool, var: str | None) -> Parsed:
    """The same cell in the options of `%%spark`."""
    values: dict[str, Any] = {"as": "pandas", "limit": 1000, "view": None, "timeout": None, "save": None, "overwrite": False}
    values |= {"session": parsed.values.get("session"), "quiet": not is_shown}
    return Parsed(parsed.magic, values, frozenset(), {} if var is None else {"VAR": var})


def shape_of(parsed: Parsed) -> Callable[[DataFrame], DataFrame]:
    """What -m, -r and -n make of a result."""

    def shape(frame: DataFrame) -> DataFrame:
        if parsed["samplemethod"] == "sample":
            frame = frame.sample(parsed["samplefraction"])
        return frame if parsed["maxrows"] < 0 or not frame.columns else frame.limit(parsed["maxrows"])

    if "samplefraction" in parsed.given and parsed["samplemethod"] != "sample":
        raise UsageError(f"{parsed.magic}: -r is the share of a sample; add -m sample.")
    return shape
