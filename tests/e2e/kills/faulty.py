"""The control plane on a disk that fails when a test says so: `python faulty.py --config FILE`, with FAULTS_IN naming a folder.

`now` in that folder holds the name of a write and an error: from that write on every write of the process fails with it (of EIO
only that one, each time), as long as the file is there; `hit` says that it came to that. `log` gets the name of every write, when
it is there. Writes are calls of `os` and `open` on files below TUTTILAB_STATE_DIR, and statements and commits of SQLite.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

FOLDER = os.environ["FAULTS_IN"]
STATE = os.path.realpath(os.environ["TUTTILAB_STATE_DIR"])
BY_SQLITE = {"ENOSPC": "SQLITE_FULL", "EIO": "SQLITE_IOERR_WRITE", "EROFS": "SQLITE_READONLY"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SHORT = (
    (r"artifacts/[0-9a-f]{2}(/[0-9a-f]{62})?(/\.\w{8}$)?", "artifacts/A"),
    (r"[0-9a-v]{26}-\d+-(master|worker)[^/]*", "POD"),
    (r"[0-9a-v]{26}", "JOB"),
    (r"\.secret\.key\.\w+", ".secret.key.NEW"),
    (r"\d+", "N"),
)
_open, _os_open, _write = builtins.open, os.open, os.write
_hit: list[str] = []


def told() -> tuple[str, str] | None:
    try:
        with _open(f"{FOLDER}/now") as file:
            name, error = file.read().rsplit(" ", 1)
    except OSError:
        _hit.clear()
        return None
    return name, error


def failing(name: str) -> str:
    """The error that this write meets now, if any."""
    if os.path.exists(f"{FOLDER}/log"):
        with _open(f"{FOLDER}/log", "a") as file:
            file.write(name + "\n")
    now = told()
    if now is None:
        return ""
    wanted, error = now
    if name == wanted and not _hit:
        _hit.append(name)
        _open(f"{FOLDER}/hit", "w").close()
    return error if _hit and (error != "EIO" or name == wanted) else ""


def named(path: Any) -> str | None:
    """What a path below the state folder is called whichever job it is of; None for another one."""
    try:
        text = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.abspath(os.fsdecode(path))
    except (OSError, TypeError):
        return None
    text = text.removesuffix(" (deleted)")
    if not text.startswith(STATE + "/") or text.endswith((".log", ".log.1")):
        return None  # logging tells its own failures
    text = text[len(STATE) + 1 :]
    for pattern, short in SHORT:
        text = re.sub(pattern, short, text)
    return text


def check(call: str, path: Any) -> None:
    name = named(path)
    error = failing(f"{call} {name}") if name is not None else ""
    if error:
        number = getattr(errno, error)
        raise OSError(number, os.strerror(number), path if isinstance(path, str) else None)


def before(call: str, function: Callable[..., Any], which: int = 0) -> Callable[..., Any]:
    def wrapped(*given: Any, **more: Any) -> Any:
        check(call, given[which])
        return function(*given, **more)

    return wrapped


def os_open(path: Any, flags: int, *given: Any, **more: Any) -> int:
    if flags & WRITES and more.get("dir_fd") is None:
        check("open", path)
    return _os_open(path, flags, *given, **more)


def any_open(path: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
    if set(mode) & set("wax+"):
        check("open", path)
    return _open(path, mode, *given, **more)


def check_sql(statement: str) -> None:
    error = failing(f"sql {' '.join(statement.split()[:3])}")
    if error:
        failure = sqlite3.OperationalError(f"made to fail: {error}")
        failure.sqlite_errorname = BY_SQLITE[error]
        raise failure


def is_write(statement: str) -> bool:
    return statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE", "CREATE", "BEGIN IMMEDIATE"))


def patch() -> None:
    for call, which in (("pwrite", 0), ("write", 0), ("fsync", 0), ("mkdir", 0), ("rename", 1), ("replace", 1), ("link", 1)):
        setattr(os, call, before(call, getattr(os, call), which))
    os.open = os_open
    builtins.open = io.open = any_open  # type: ignore[assignment]

    def execute(_cursor: Any, statement: str, *_: Any) -> None:
        if is_write(statement):
            check_sql(statement)

    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(Engine, name, execute)
    commit: Callable[[Any, Any], None] = DefaultDialect.do_commit

    def do_commit(self: Any, connection: Any) -> None:
        check_sql("COMMIT")
        commit(self, connection)

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]


if __name__ == "__main__":
    from tuttilab.scheduler.server import serve

    patch()
    sys.exit(serve.main(sys.argv[1:]))
