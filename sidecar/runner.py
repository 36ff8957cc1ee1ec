"""Runs one captured cell in the interpreter of the job's image, and leaves its result or its error in RESULT_DIR.

This file goes with every code bundle and is started there as ``python runner.py``, so it stands alone: the standard library of
Python 3.9 or later, and cloudpickle (xgboost too, for a cell that trains with it). Beside it lie ``bundle.json`` (versions, names),
``cell.py`` (the source) and, where the cell uses names of the notebook, ``inputs.pkl``.

``files/`` (what the submit took along) is importable. With ``map_name`` that variable becomes one of its own elements, the
one that TUTTILAB_MAP_INDEX counts.

Exit codes: 0 done, 1 the cell raised (``error.json`` says what), 78 the versions here are not those of the notebook, and
whatever the cell itself exits with. ``result.pkl`` holds ``{"value": last expression, "out": {name: value}}``; ``error.json``
``{"type", "message", "frames": [{"file", "line", "function", "code", "around": {line: text}}], "traceback": text}``.
"""

from __future__ import annotations

import ast
import io
import json
import linecache
import os
import socket
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WRONG_VERSIONS = 78
TRACKER_S = 300
AROUND = 2
"""Lines before and after the one that failed."""


class NotSent(Exception):
    """A value that the cell made cannot go back to the notebook."""


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    results = os.environ.get("RESULT_DIR", here)
    with open(os.path.join(here, "bundle.json"), encoding="utf-8") as file:
        bundle = json.load(file)
    problem = compare_versions(bundle)
    if problem:
        sys.stderr.write(problem + "\n")
        return WRONG_VERSIONS
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what a terminal would see, the log sees
    with open(os.path.join(here, "cell.py"), encoding="utf-8") as file:
        source = file.read()
    name = bundle["cell_name"]
    # With None for its time the entry is never compared with a file: tracebacks show the cell's own lines.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module = types.ModuleType("__main__")
    # What the cell defines is pickled as part of __main__, so __main__ is the cell and not this file.
    sys.modules["__main__"] = module
    sys.argv = [name]
    find_modules(here)
    try:
        load_inputs(os.path.join(here, "inputs.pkl"), module.__dict__)
        choose_element(bundle.get("map_name"), module.__dict__)
        with communicator(bundle.get("framework")):
            value = execute(source, name, module.__dict__)
        save_result(results, value, bundle.get("out") or [], module.__dict__)
    except SystemExit as leaving:
        return left(leaving, results, name, lambda: save_result(results, None, bundle.get("out") or [], module.__dict__))
    except BaseException as error:
        save_error(results, error, name)
        return 1
    return 0


def compare_versions(bundle: dict[str, Any]) -> str:
    """One sentence when this interpreter cannot read what the notebook's wrote, else ""."""
    here = "{}.{}.{}".format(*sys.version_info[:3])
    wanted = bundle["python"]
    if here.split(".")[:2] != wanted.split(".")[:2]:
        return (
            f"The notebook runs Python {wanted} and the job's image Python {here}: "
            "a captured cell needs the same major and minor version, so choose an image with it."
        )
    try:
        import cloudpickle
    except ImportError:
        return (
            f"The notebook runs cloudpickle {bundle['cloudpickle']} and the job's image ({sys.executable}) has none: "
            "install cloudpickle there."
        )
    if cloudpickle.__version__.split(".")[0] != bundle["cloudpickle"].split(".")[0]:
        return (
            f"The notebook runs cloudpickle {bundle['cloudpickle']} and the job's image cloudpickle {cloudpickle.__version__}: "
            "a captured cell needs the same major version, so install it there."
        )
    return ""


def load_inputs(path: str, namespace: dict[str, Any]) -> None:
    if not os.path.exists(path) or not os.path.getsize(path):
        return
    import cloudpickle

    with open(path, "rb") as file:
        try:
            namespace.update(cloudpickle.load(file))
        except ImportError as error:
            raise ImportError(
                f"The values that the cell uses need the module {error.name!r}, which the job's image does not have."
            ) from error


def find_modules(here: str) -> None:
    """Imports look where the notebook's do: in what ``--files`` sent, then in the working directory. Not here, beside this file."""
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]
    sys.path[0:0] = [path for path in (os.path.join(here, "files"), os.getcwd()) if os.path.isdir(path)]


def choose_element(name: str | None, namespace: dict[str, Any]) -> None:
    """For ``--map``: every job has the whole list, and TUTTILAB_MAP_INDEX says which element the variable is in this one."""
    index = os.environ.get("TUTTILAB_MAP_INDEX")
    if name is not None and index is not None:
        namespace[name] = namespace[name][int(index)]


def take_element(name: str | None, namespace: dict[str, Any]) -> None:
    index = os.environ.get("TUTTILAB_MAP_INDEX")
    if name and index is not None:
        namespace[name] = list(namespace[name])[int(index)]


def execute(source: str, name: str, namespace: dict[str, Any]) -> Any:
    """As a notebook does: the value of the last expression is the cell's, None when it ends in a statement."""
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec", dont_inherit=True), namespace)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), namespace)  # noqa: S307
    return None


@contextmanager
def communicator(framework: str | None) -> Iterator[None]:
    """For xgboost: rank 0 runs the tracker, every rank is part of the group while the cell runs. Others need environment only."""
    if framework != "xgboost":
        yield
        return
    from xgboost import collective
    from xgboost.tracker import RabitTracker

    address, port = os.environ["DMLC_TRACKER_URI"], int(os.environ["DMLC_TRACKER_PORT"])
    rank, count = int(os.environ["DMLC_TASK_ID"]), int(os.environ["DMLC_NUM_WORKER"])
    tracker = None
    if rank == 0:
        tracker = RabitTracker(n_workers=count, host_ip=address, port=port, sortby="task")
        tracker.start()
    else:
        await_tracker(address, port)
    # Task ids are compared as text.
    context = collective.CommunicatorContext(
        dmlc_communicator="rabit",
        dmlc_tracker_uri=address,
        dmlc_tracker_port=port,
        dmlc_task_id=f"{rank:08d}",
        dmlc_retry=10,
        dmlc_timeout=TRACKER_S,
    )
    context.__enter__()
    yield
    # Only after success: to say good-bye is collective, and would wait for ever for members that go on.
    context.__exit__(None, None, None)
    if tracker is not None:
        tracker.wait_for(timeout=TRACKER_S)


def await_tracker(address: str, port: int) -> None:
    """Until rank 0 listens, as far as one can see without disturbing it: xgboost's own retries warn loudly and wait ever longer."""
    until = time.monotonic() + TRACKER_S
    while not is_listening(address, port) and time.monotonic() < until:
        time.sleep(0.1)


def is_listening(address: str, port: int) -> bool:
    if address.startswith("127.") and os.path.exists("/proc/net/tcp"):
        with open("/proc/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file]
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def save_result(results: str, value: Any, out: list[str], namespace: dict[str, Any]) -> None:
    """Raises NotSent naming the variable that cannot be sent."""
    import cloudpickle

    for name in out:
        if name not in namespace:
            raise NotSent(f"--out {name}: the cell has set no variable {name}.")
    values = {name: namespace[name] for name in out}
    try:
        body = cloudpickle.dumps({"value": value, "out": values})
    except Exception as error:
        raise NotSent(find_unsendable(value, values, error)) from error
    write_whole(os.path.join(results, "result.pkl"), body)


def find_unsendable(value: Any, values: dict[str, Any], error: Exception) -> str:
    import cloudpickle

    candidates = [(f"variable {name}", each) for name, each in values.items()]
    for what, each in [*candidates, ("the value of its last expression", value)]:
        try:
            cloudpickle.dumps(each)
        except Exception as reason:
            kind = f"{type(each).__module__}.{type(each).__qualname__}"
            return f"The cell ran, but {what} (a {kind}) cannot be sent back: {type(reason).__name__}: {reason}"
    return f"The cell ran, but its result cannot be sent back: {type(error).__name__}: {error}"


def left(leaving: SystemExit, results: str, name: str, save: Callable[[], None]) -> int:
    """What `sys.exit` in the cell means, as for a script: None is 0, a text is printed and is 1."""
    code = leaving.code
    if code is None or code == 0:
        try:
            save()
        except NotSent:
            pass  # the cell chose to leave before it had all
        return 0
    save_error(results, leaving, name)
    return code & 0xFF if isinstance(code, int) else 1


def save_error(results: str, error: BaseException, name: str) -> None:
    """``error.json``, and the same text for the log: both begin at the cell, for what calls it is ours."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != name:
        frame = frame.tb_next
    shown = traceback.TracebackException(type(error), error, frame)
    text = "".join(shown.format(chain=not isinstance(error, NotSent)))
    frames = [describe(each.filename, each.lineno or 0, each.name) for each in shown.stack]
    if isinstance(error, SyntaxError) and error.filename == name:
        frames.append(describe(name, error.lineno or 0, "<module>"))
    body = {"type": type(error).__name__, "message": str(error), "frames": frames, "traceback": text}
    sys.stderr.write(text)
    write_whole(os.path.join(results, "error.json"), json.dumps(body).encode())


def describe(file: str, line: int, function: str) -> dict[str, Any]:
    around = {n: linecache.getline(file, n).rstrip("\n") for n in range(max(1, line - AROUND), line + AROUND + 1)}
    known = {str(n): text for n, text in around.items() if text}
    return {"file": file, "line": line, "function": function, "code": around.get(line, ""), "around": known}


def write_whole(path: str, body: bytes) -> None:
    with open(path + ".new", "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread that the cell or a library left behind must not hold the job.
    os._exit(status)
