"""The start of a captured cell: checks versions, prepares the namespace, executes, saves."""

from __future__ import annotations

import ast
import io
import json
import linecache
import os
import signal
import sys
import threading
import time
import types
from dataclasses import replace
from typing import Any, NoReturn

from . import communicator, display, ending, errors, interactive, results, versions

WRONG_VERSIONS = 78
STOPPED = 143
FLUSH_S = 0.3
_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_IS_COROUTINE = 0x80
"""`inspect.CO_COROUTINE`, without the import."""


class Stopped(SystemExit):
    """SIGTERM while the cell runs: `finally` and context managers run, as after Ctrl-C."""


def start() -> NoReturn:
    """Runs the bundle in the folder above this package, and ends the process."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    status = run(here, os.environ.get("RESULT_DIR", here))
    ending.finish(status, here)


def run(here: str, folder: str) -> int:
    with open(os.path.join(here, "bundle.json"), encoding="utf-8") as file:
        bundle = json.load(file)
    problem = versions.problem_of(bundle)
    if problem:
        sys.stderr.write(problem + "\n")
        return WRONG_VERSIONS
    _adjust_streams()
    with open(os.path.join(here, "cell.py"), encoding="utf-8") as file:
        source = file.read()
    name = bundle["cell_name"]
    keep_lines(name, source.splitlines(keepends=True))
    for other, lines in (bundle.get("sources") or {}).items():
        keep_lines(other, [lines.get(str(n), "") + "\n" for n in range(1, max(map(int, lines)) + 1)])
    own = {name, *(bundle.get("sources") or {})}
    module = types.ModuleType("__main__")
    # What the cell defines is pickled as part of __main__, so __main__ is the cell and not this program.
    sys.modules["__main__"] = module
    sys.argv = [name]
    find_modules(here, bundle.get("path") or [])
    shown = display.install(os.path.join(folder, "display.jsonl"))
    interactive.install()
    wanted = results.Wanted.of(bundle)
    _raise_on_sigterm()
    try:
        sent = load_inputs(os.path.join(here, "inputs.pkl"), module.__dict__, is_image=bool(bundle.get("is_image")))
        wanted = replace(wanted, sent=sent)
        choose_element(bundle.get("map_name"), module.__dict__)
        with communicator.joined(bundle.get("framework")):
            value = execute(source, name, module.__dict__)
        _ignore_sigterm()
        value = wanted.value_of(value, module.__dict__)
        shown.show_open_figures(except_for=value)
        shown.keep_value(value)
        results.save(folder, value, wanted, module.__dict__)
    except Stopped:
        return STOPPED
    except SystemExit as leaving:
        _ignore_sigterm()
        shown.show_open_figures()
        results.save(folder, None, wanted.optional(), module.__dict__)
        return errors.left(leaving, folder, name, own)
    except BaseException as error:
        _ignore_sigterm()
        shown.show_open_figures()
        errors.save(folder, error, name, own)
        return 1
    return 0


def _adjust_streams() -> None:
    """What a terminal would see, the log sees at once; and what cannot be encoded is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    threading.Thread(target=_flush_often, name="tuttilab-flush", daemon=True).start()


def _flush_often() -> None:
    """For ``print(".", end="")``, which a notebook shows at once too."""
    while True:
        time.sleep(FLUSH_S)
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the cell closed or replaced it


def _raise_on_sigterm() -> None:
    def stop(*_: object) -> NoReturn:
        _ignore_sigterm()
        raise Stopped(STOPPED)

    signal.signal(signal.SIGTERM, stop)
    # A child process ends as any process does, unless the cell has said otherwise.
    os.register_at_fork(
        after_in_child=lambda: signal.getsignal(signal.SIGTERM) is stop and signal.signal(signal.SIGTERM, signal.SIG_DFL)
    )


def _ignore_sigterm() -> None:
    """From now on the grace period alone limits how long the end takes."""
    signal.signal(signal.SIGTERM, lambda *_: None)


def keep_lines(name: str, lines: list[str]) -> None:
    """For tracebacks. With None for its time the entry is never compared with a file."""
    linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


def load_inputs(path: str, namespace: dict[str, Any], *, is_image: bool) -> tuple[str, ...]:
    """Returns the names. Functions of the notebook find their globals in the same namespace, which is that of ``__main__``."""
    if not os.path.exists(path) or not os.path.getsize(path):
        return ()
    import pickle

    with open(path, "rb") as file:
        # As it was written: one pickler, so that objects that names share stay shared.
        unpickler = pickle.Unpickler(file)
        try:
            names: tuple[str, ...] = unpickler.load()
            for name in names:
                namespace[name] = unpickler.load()
            return names
        except ImportError as error:
            where = "which the job's image does not have" if is_image else "which was not found where this job looks for modules"
            raise ImportError(
                f"The values that the cell uses need the module {error.name!r}, {where}; --files takes a module or folder along."
            ) from error


def find_modules(here: str, path: list[str]) -> None:
    """Imports look where the notebook's do: in what ``--files`` sent, then in the working directory, then in ``path``.

    Not in ``here``, beside the runner.
    """
    own = [each for each in sys.path if os.path.abspath(each or ".") != here]
    first = [each for each in (os.path.join(here, "files"), os.getcwd()) if os.path.isdir(each)]
    known = {os.path.abspath(each) for each in [*first, *own]}
    more = [each for each in path if os.path.abspath(each) not in known and os.path.exists(each)]
    sys.path[:] = [*first, *more, *own]


def choose_element(name: str | None, namespace: dict[str, Any]) -> None:
    """For ``--map``: every job has the whole list, and TUTTILAB_MAP_INDEX says which element the variable is in this one."""
    index = os.environ.get("TUTTILAB_MAP_INDEX")
    if name is not None and index is not None:
        namespace[name] = namespace[name][int(index)]


def execute(source: str, name: str, namespace: dict[str, Any]) -> Any:
    """As a notebook does: the value of the last expression is the cell's, None when it ends in a statement; `await` works."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    body = compile(tree, name, "exec", _AWAIT, dont_inherit=True)
    tail = None
    if isinstance(last, ast.Expr):
        tail = compile(ast.Expression(last.value), name, "eval", _AWAIT, dont_inherit=True)
    if (body.co_flags | (tail.co_flags if tail else 0)) & _IS_COROUTINE:
        import asyncio

        return asyncio.run(_execute_with_await(body, tail, namespace))
    exec(body, namespace)
    return eval(tail, namespace) if tail is not None else None


async def _execute_with_await(body: types.CodeType, tail: types.CodeType | None, namespace: dict[str, Any]) -> Any:
    value = None
    for code in (body, tail):
        if code is not None:
            value = eval(code, namespace)
            if code.co_flags & _IS_COROUTINE:
                value = await value
    await _end_tasks()
    return value if tail is not None else None


async def _end_tasks() -> None:
    """Tasks that the cell started go on for a while, as in a notebook."""
    import asyncio

    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=ending.limit_s())
    if left:
        ending.say(f"given up after {ending.limit_s():g} s: {len(left)} tasks of asyncio that the cell left running.")
