"""``error.json``: the error that ended a cell, with the lines of the user's own code.

``{"type", "message", "frames": [{"file", "line", "function", "code", "around": {line: text}, "own": bool}], "traceback": text}``;
``own`` are frames of the notebook's code and of modules of the user's, not of a library.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import traceback
from typing import Any

from . import results

AROUND = 2
"""Lines before and after the one that failed."""
MOST_MESSAGE = 10_000
MOST_TRACE = 200_000
MOST_CAUSES = 3
"""Characters."""


def left(leaving: SystemExit, folder: str, name: str, own: set[str]) -> int:
    """What `sys.exit` in the cell means, as for a script: None is 0, a text is printed and is 1."""
    code = leaving.code
    if code is None or code == 0:
        return 0
    save(folder, leaving, name, own)
    return code & 0xFF if isinstance(code, int) else 1


def save(folder: str, error: BaseException, name: str, own: set[str]) -> None:
    """Writes the file, and the same text to the log: both begin at the cell, for what calls it is ours."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != name:
        frame = frame.tb_next
    shown = traceback.TracebackException(type(error), error, frame)
    text = _cut(valid("".join(shown.format(chain=not isinstance(error, results.NotSent)))), MOST_TRACE)
    frames = [{**describe(each.filename, each.lineno or 0, each.name), "own": is_own(each.filename, own)} for each in shown.stack]
    if isinstance(error, SyntaxError) and error.filename == name:
        frames.append({**describe(name, error.lineno or 0, "<module>"), "own": True})
    body = {
        "type": type(error).__name__,
        "message": _cut(valid(message_of(error)), MOST_MESSAGE),
        "frames": frames,
        "traceback": text,
        "causes": causes_of(error),
    }
    sys.stderr.write(text)
    results.write_whole(os.path.join(folder, "error.json"), json.dumps(body).encode())


def causes_of(error: BaseException) -> list[str]:
    """What it came from, or what a group of errors holds, in a line each."""
    found: list[str] = []
    for inner in getattr(error, "exceptions", ())[:MOST_CAUSES]:
        found.append(f"with {_line_of(inner)}")
    seen = {id(error)}
    while len(found) < MOST_CAUSES:
        word, cause = ("from", error.__cause__) if error.__cause__ is not None else ("while handling", error.__context__)
        if cause is None or (word != "from" and error.__suppress_context__) or id(cause) in seen:
            break
        seen.add(id(cause))
        found.append(f"{word} {_line_of(cause)}")
        error = cause
    return found


def _line_of(error: BaseException) -> str:
    text = valid(" ".join(message_of(error).split()))
    return _cut(f"{type(error).__name__}: {text}" if text else type(error).__name__, 300)


def message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<the text of this {type(error).__name__} cannot be had: its __str__ raised {type(broken).__name__}>"


def is_own(file: str, own: set[str]) -> bool:
    """Whether the user wrote it: a cell, or a module outside of Python's own folders."""
    if file in own:
        return True
    if file.startswith("<"):
        return False
    import sysconfig

    path = os.path.realpath(file)
    here = os.path.dirname(os.path.abspath(__file__))
    libraries = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    if any(path.startswith(os.path.realpath(folder) + os.sep) for folder in [*libraries, here] if folder):
        return False
    return "site-packages" not in path and "dist-packages" not in path


def describe(file: str, line: int, function: str) -> dict[str, Any]:
    around = {n: valid(linecache.getline(file, n).rstrip("\n")) for n in range(max(1, line - AROUND), line + AROUND + 1)}
    known = {str(n): text[:1000] for n, text in around.items() if text}
    return {"file": file, "line": line, "function": function, "code": around.get(line, "")[:1000], "around": known}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} […] {text[-most // 2 :]}"


def valid(text: str) -> str:
    """Without surrogates, which no file and no front end takes."""
    return text.encode("utf-8", "backslashreplace").decode()
