"""Runs one notebook in the interpreter of its job with papermill, and leaves the executed notebook in RESULT_DIR.

This file goes with the code bundle of a notebook's job and is started there as ``python notebook_runner.py``, so it stands
alone: the standard library and papermill. Beside it lie ``notebook.ipynb`` and ``notebook.json`` (``name``: the file's name,
``parameters``). A node of a DAG has its parameters in the environment, where variables of the run were put into them.

The log has ``cell 3 of 9`` before each code cell and what the cells print. The executed notebook is saved after each cell, so
whatever ends the job leaves what was run. Exit codes: 0 done, 1 a cell raised (``error.json`` says which, in the form of
``runner.py``), 78 papermill or the kernel is not there.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

NOT_THERE = 78
PARAMETER = "TUTTILAB_PARAMETER_"
AROUND = 2
"""Lines shown before and after the one that failed."""
LONGEST = 2000
"""Characters of an error's message that are told."""


class Stopped(Exception):
    """The notebook cannot be run at all. The message is one sentence."""


def main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    results = os.environ.get("RESULT_DIR", here)
    with open(os.path.join(here, "notebook.json"), encoding="utf-8") as file:
        about = json.load(file)
    # The notebook's own folder is searched for modules; this one, beside this file, is not.
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]
    try:
        parameters = {**about["parameters"], **told_parameters()}
        return run(os.path.join(here, "notebook.ipynb"), results, about["name"], parameters)
    except Stopped as problem:
        say(str(problem))
        return NOT_THERE


def told_parameters() -> dict[str, Any]:
    """Those of the environment: ``=VALUE``, JSON where it is JSON."""
    found: dict[str, Any] = {}
    for name, text in os.environ.items():
        if name.startswith(PARAMETER) and text.startswith("="):
            try:
                found[name[len(PARAMETER) :]] = json.loads(text[1:])
            except ValueError:
                found[name[len(PARAMETER) :]] = text[1:]
    return found


def run(source: str, results: str, name: str, parameters: dict[str, Any]) -> int:
    try:
        import papermill
        from papermill.engines import NBClientEngine, papermill_engines
        from papermill.exceptions import PapermillExecutionError
    except ImportError as error:
        raise Stopped(
            f"{name} needs papermill to run as a job, and {sys.executable} has none ({error}): "
            "install it there, or `pip install 'tuttilab[lab]'`."
        ) from error

    progress = Progress()

    class Engine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
        """papermill's own engine; it also says in the log which cell runs."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            progress.begin(nb_man)
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("tuttilab", Engine)
    kernel, is_python = kernel_of(source, name)
    # papermill takes braces in a path for parameters.
    target = os.path.join(results, name).replace("{", "{{").replace("}", "}}")
    try:
        papermill.execute_notebook(
            source.replace("{", "{{").replace("}", "}}"),
            target,
            parameters=parameters,
            engine_name="tuttilab",
            kernel_name=kernel,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            # Warnings of the kernel about itself are not about the notebook.
            extra_arguments=["--log-level=ERROR"] if is_python else [],
        )
    except PapermillExecutionError as error:
        cell = progress.number_of(error.source)
        save_error(results, name, cell, progress.count, error)
        return 1
    except Exception as error:
        if type(error).__name__ != "DeadKernelError":
            raise
        message = f"the kernel ended in {progress.where}; it may have run out of memory: give it more with --memory"
        write_error(results, "DeadKernelError", message, [], message)
        say(f"{name}: {message}.")
        return 1
    say(f"{name}: {progress.count} cells done.")
    return 0


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def kernel_of(source: str, name: str) -> tuple[str, bool]:
    """The kernel that the notebook names, where it is installed; for Python else the one of this interpreter. And whether it is
    IPython's."""
    from jupyter_client.kernelspec import KernelSpecManager

    with open(source, encoding="utf-8") as file:
        about = json.load(file).get("metadata") or {}
    spec = about.get("kernelspec") or {}
    wanted = spec.get("name") or "python3"
    known = KernelSpecManager().find_kernel_specs()
    if wanted in known:
        return str(wanted), any("ipykernel" in word for word in KernelSpecManager().get_kernel_spec(wanted).argv)
    language = str(spec.get("language") or (about.get("language_info") or {}).get("name") or "python")
    if language.lower() == "python" and "python3" in known:
        say(f"{name}: there is no kernel {wanted!r} here; it runs in that of {sys.executable}.")
        return "python3", True
    raise Stopped(
        f"{name} names the kernel {wanted!r} ({language}), which is not installed where the job runs; "
        f"there are {', '.join(sorted(known)) or 'none'}: choose one of these in the notebook."
    )


class Progress:
    """Which code cell runs, for the log."""

    def __init__(self) -> None:
        self.count = 0
        self.where = "its start"
        self._cells: list[Any] = []
        self._now = -1

    def begin(self, nb_man: Any) -> None:
        self._cells = [cell for cell in nb_man.nb.cells if is_run(cell)]
        self.count = len(self._cells)
        start = nb_man.cell_start

        def cell_start(cell: Any, cell_index: int | None = None, **options: Any) -> Any:
            if is_run(cell):
                self._now = next((i for i, known in enumerate(self._cells) if known is cell), self._now + 1)
                self.where = f"cell {self._now + 1} of {self.count}"
                say(self.where)
            return start(cell, cell_index, **options)

        nb_man.cell_start = cell_start

    def number_of(self, source: str) -> int:
        """The number of the cell that failed, from 1: the one that ran last."""
        return self._now + 1


def is_run(cell: Any) -> bool:
    return bool(cell.cell_type == "code" and cell.source.strip() and "skip-execution" not in cell.metadata.get("tags", []))


def save_error(results: str, name: str, cell: int, count: int, error: Any) -> None:
    """``error.json`` for the notebook that submitted the job, and one line for the log."""
    place = f"{name}, cell {cell} of {count}"
    message = str(error.evalue)[:LONGEST]
    text = plain("\n".join(error.traceback or []))
    lines = str(error.source).splitlines()
    found = re.findall(r"Cell In\s*\[\d+\], line (\d+)", text)
    line = next((int(one) for one in found if 0 < int(one) <= len(lines)), 0)
    frames = []
    if line:
        near = range(max(1, line - AROUND), min(len(lines), line + AROUND) + 1)
        around = {str(number): lines[number - 1] for number in near}
        frames = [{"file": place, "line": line, "function": "<module>", "code": lines[line - 1], "around": around, "own": True}]
    write_error(results, str(error.ename), message if frames else f"{message} ({place})", frames, text)
    first = message.splitlines()[0] if message else ""
    say(f"{place} failed: {error.ename}{': ' if first else ''}{first}")


def write_error(results: str, kind: str, message: str, frames: list[dict[str, Any]], text: str) -> None:
    body = {"type": kind, "message": message, "frames": frames, "traceback": text}
    path = os.path.join(results, "error.json")
    with open(path + ".new", "w", encoding="utf-8", errors="replace") as file:
        json.dump(body, file)
    os.replace(path + ".new", path)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


if __name__ == "__main__":
    sys.exit(main())
