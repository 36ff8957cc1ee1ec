"""Reads the lines of LinkisMagic, and says them in the options of `%%spark` and `%%sparksql`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from tuttilab.magics.shared.parse import Option, Parsed, Positional, UsageError, parse_line, variable_name, whole_number
from tuttilab.magics.spark.save import FORMATS, workspace


def quiet(text: str) -> bool:
    """A converter: `true` or `false`, in the spellings of LinkisMagic."""
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return text.lower() == "true"


CELL: Final = (
    Option("--output", "VAR", variable_name, short="-o", help='the variable that gets {"result0": …}'),
    Option("--path", "PATH", short="-p", help="save the last result below the workspace (.csv when it has no ending)"),
    Option("--quiet", "BOOL", quiet, default=True, short="-q", help="false shows the results"),
)
PYTHON_CELL: Final = (
    *CELL,
    Option("--var", "VAR", variable_name, short="-v", help="brings this name from the session into the notebook"),
    Option("--upload", "VAR", variable_name, short="-u", help="gives this name of the notebook to the session first"),
)
LIST: Final = (Option("--output", "VAR", variable_name, short="-o", help="bind the list instead of showing it"),)
ONE: Final = (Option("--id", "ID", short="-i", default="last", help="a job's id or the beginning of it, its name, or last"),)
LOG: Final = (
    *ONE,
    Option("--output", "VAR", variable_name, short="-o", help="bind all lines instead of showing some"),
    Option("--start", "N", whole_number, help="show from this line on, counted from 0"),
    Option("--lines", "N", whole_number, default=1000, help="how many lines are shown"),
)
ENGINE: Final = (Option("--instance", "ID", short="-i", help="a session's name, or its job's id or the beginning of it"),)
_GLUED: Final = re.compile(r"(?<!\S)-([opqvui])(?=[^\s=-])")
_ALONE: Final = re.compile(r"(?<!\S)(-q|--quiet)(?=\s*$|\s+-)")
_STATEMENT: Final = re.compile(
    r"^\s*(?:(?:SELECT|WITH|SHOW|DESC|DESCRIBE|USE|CREATE|DROP|INSERT|ALTER|SET|EXPLAIN|TRUNCATE|REFRESH|CACHE|UNCACHE|MSCK|FROM)\b|--)",
    re.IGNORECASE,
)


def read_line(magic: str, options: tuple[Option, ...], line: str, positionals: tuple[Positional, ...] = ()) -> Parsed:
    """As LinkisMagic reads it: also `-qfalse`, and `-q` alone for `-q true`."""
    line = _ALONE.sub(r"\1 true", _GLUED.sub(r"-\1 ", line))
    return parse_line(magic, options, line, positionals)


def as_ours(parsed: Parsed) -> Parsed:
    """The same cell in the options of `%%spark`. Raises UsageError for a path that leads out of the workspace."""
    path = None if parsed["path"] is None else _below_workspace(parsed.magic, parsed["path"])
    values = {
        **{"session": None, "as": "pandas", "limit": 1000, "view": None, "timeout": None},
        **{"save": path, "overwrite": path is not None, "quiet": parsed["quiet"]},
    }
    var = parsed["output"]
    return Parsed(parsed.magic, values, frozenset({"as-dict"}), {} if var is None else {"VAR": var})


def _below_workspace(magic: str, text: str) -> str:
    """The path as `--save` takes it; what LinkisMagic wrote as `/name` lies in the workspace."""
    root = workspace(os.environ)
    written = Path(text)
    relative = Path(*written.parts[1:]) if written.is_absolute() and not written.is_relative_to(root) else written
    path = (root / relative).resolve()
    if ".." in written.parts or not path.is_relative_to(root) or path == root:
        raise UsageError(f"{magic}: -p {text} leads out of the workspace {root}; give a path below it.")
    if path.suffix.lstrip(".").lower() not in FORMATS:
        path = path.with_name(f"{path.name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def one_statement_a_line(body: str) -> str:
    """The text of `%%sql` with a `;` after each statement: LinkisMagic took each line for one."""
    lines = body.splitlines()
    written = [line for line in lines if line.strip()]
    if ";" in body or len(written) < 2 or not all(_STATEMENT.search(line) for line in written):
        return body
    return "\n".join(f"{line};" if line.strip() and not line.lstrip().startswith("--") else line for line in lines)
