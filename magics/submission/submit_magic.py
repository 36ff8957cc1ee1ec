"""`%%submit`: runs the cell as a batch job. Only reads the line; the work is in `capture`, `request`, `send` and `jobs`."""

from __future__ import annotations

import builtins
import os
import re
import time
from dataclasses import replace
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand, output_can_be_silenced

from tuttilab.magics.jobs.collect import remember, resolve, wait_and_collect
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import MapHandle
from tuttilab.magics.jobs.watch import Stopped
from tuttilab.magics.shared.box import job_box
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Area, Shown, cell_number, show, show_bytes
from tuttilab.magics.shared.job_text import short_id, waiting
from tuttilab.magics.shared.notebook import origin_labels
from tuttilab.magics.shared.parse import (
    VAR,
    Option,
    Parsed,
    UsageError,
    duration_s,
    key_value,
    parse_line,
    variable_name,
    whole_number,
)
from tuttilab.magics.submission.bundle import cell_source, read_files
from tuttilab.magics.submission.capture import capture, choose_names
from tuttilab.magics.submission.interpreter import interpreter
from tuttilab.magics.submission.keyboard import in_cell, sentences
from tuttilab.magics.submission.modules import unknown_to_the_image
from tuttilab.magics.submission.names import brought_names
from tuttilab.magics.submission.notebook_line import options_of, submit_notebook
from tuttilab.magics.submission.request import Options, Submission, check_syntax, elements_of, prepare
from tuttilab.magics.submission.send import environment_of, key_stem, send
from tuttilab.scheduler.client import Environment, read_mount, read_sidecar
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.resources import parse_count, parse_cpu, parse_memory
from tuttilab.scheduler.domain.wire import DryRunView


def names(text: str) -> tuple[str, ...]:
    """A converter: variable names, separated by commas."""
    found = tuple(part.strip() for part in text.split(","))
    try:
        return tuple(variable_name(part) for part in found)
    except ValueError:
        raise ValueError("variable names with commas between, such as a,b") from None


def names_or_more(text: str) -> tuple[str, ...]:
    """A converter: variable names, each with a ``+`` before it or none with one."""
    found = tuple(part.strip() for part in text.split(","))
    for part in found:
        names(part.removeprefix("+"))
    return found


def cpus(text: str) -> str:
    parse_cpu(text, "--cpus")
    return text


def memory(text: str) -> str:
    parse_memory(text, "--memory")
    return text


def gpus(text: str) -> str:
    parse_count(text, "--gpus")
    return text


def signed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


OPTIONS = (
    Option("--name", "N", help="of the job (default: VAR, or the cell's number)"),
    Option("--cpus", "N", cpus, default="1", help="cores of each worker"),
    Option("--memory", "M", memory, default="1Gi", help="memory of each worker, such as 8Gi"),
    Option("--gpus", "N", gpus, default="0", help="GPUs of each worker"),
    Option("--gpu-type", "T", help="GPU model, such as a100"),
    Option("--workers", "N", whole_number, default=1, help="pods that start together or not at all"),
    Option("--min-workers", "N", whole_number, help="start and go on with as few as this; more as there is room"),
    Option("--queue", "Q", help="queue to submit to"),
    Option("--run-as", "NAME", help="a proxy user of your groups to run as"),
    Option("--priority", "P", signed, default=0, help="higher goes first"),
    Option("--image", "I", help="container image to run in"),
    Option("--mount", "VOLUME:PATH", read_mount, repeatable=True, help="volume that the site lists, such as work:/workspace"),
    Option("--sidecar", "NAME[:K=V,...]", read_sidecar, repeatable=True, help="side-car that the site offers"),
    Option("--python", "P", interpreter, help="interpreter or environment of this machine to run in (default: the kernel's)"),
    Option("--in", "a,b", names_or_more, help="send exactly these variables; with +a,+b, these beside those the cell uses"),
    Option("--out", "a,b", names, default=(), help="variables of the cell that come back beside those that it ends with"),
    Option("--files", "PATH", repeatable=True, help="file or folder to take along, importable and below TUTTILAB_CODE_DIR/files"),
    Option("--map", "VAR", variable_name, help="one job an element of VAR, which is that element in the cell"),
    Option("--timeout", "T", duration_s, help="end the job after this time, such as 2h"),
    Option("--retries", "N", whole_number, default=0, help="further tries when it fails"),
    Option("--after", "JOB", repeatable=True, help="start when this job (handle or id) has succeeded"),
    Option("--cluster", "C", help="run on this cluster"),
    Option("--env", "K=V", key_value, repeatable=True, help="environment variable of the job"),
    Option("--framework", choices=("torch", "tensorflow", "xgboost", "none"), default="none", help="whose environment to set up"),
    Option("--spark", "K=V[,K=V]", repeatable=True, help="run it as a Spark application, with executors=4,executor-memory=2g"),
    Option("--wait", help="wait with live progress (the default)"),
    Option("--detach", help="return at once"),
    Option("--on-interrupt", choices=("detach", "cancel"), default="detach", help="what the first Stop does"),
    Option("--dry-run", help="say what would happen, submit nothing"),
)
_NOT_OF_SPARK = ("cpus", "memory", "gpus", "gpu-type", "workers", "min-workers", "framework", "map")
_VAR = replace(VAR, help="the job's handle; when the cell assigns VAR itself, what it assigned")
NOTEBOOK_OPTIONS = options_of(OPTIONS)
_NOT_YET = {
    "--template": Option("--template", "T", help="not in this version"),
    "--param": Option("--param", "K=V", repeatable=True, help="not in this version"),
    "--cron": Option("--cron", "C", help="not in this version"),
    "--pip": Option("--pip", "X", repeatable=True, help="not in this version"),
}
_NOT_YET_ADVICE = {
    "--template": "give the options that you need on the line",
    "--param": "set a variable in the notebook, the cell takes it along",
    "--cron": "submit the cell when you need it",
    "--pip": "use a --python or an --image that has the package",
}
_SHELL_SYNTAX = re.compile(r"^\s*(?:[A-Za-z_]\w*\s*=\s*)?[%!]", re.MULTILINE)
_DEBUG_MAGIC = re.compile(r"^%{1,2}(?:debug|pdb)\b")


class CellSyntaxError(Exception):
    """The cell is not valid Python. Shown as IPython shows a SyntaxError; the SyntaxError is the ``__cause__``."""

    def __init__(self, error: SyntaxError, shell: InteractiveShell) -> None:
        super().__init__(str(error))
        self._lines = shell.SyntaxTB.structured_traceback(type(error), error, None)

    def _render_traceback_(self) -> list[str]:
        return list(self._lines)


@magics_class
class SubmitMagics(Magics):
    """``%%submit`` of one kernel."""

    shell: InteractiveShell

    @no_var_expand
    @output_can_be_silenced
    @line_cell_magic
    def submit(self, line: str, cell: str | None = None) -> Any:
        """Run the cell as a batch job and show its value, or with `%submit NOTEBOOK.ipynb` a notebook; --help lists the options."""
        if cell is None:
            return submit_notebook(self.shell, line, OPTIONS)
        parsed = parse_line("%%submit", (*OPTIONS, *_NOT_YET.values()), line, positionals=(_VAR,))
        if parsed.help_text is not None:
            return show(Shown(parsed.help_text))
        for name, instead in _NOT_YET_ADVICE.items():
            if name.lstrip("-") in parsed.given:
                raise UsageError(f"%%submit {name} comes in a later version; {instead}.")
        if cell is None or not cell.strip():
            raise UsageError("%%submit: the cell is empty; write what the job shall run below the first line.")
        if parsed["wait"] and parsed["detach"]:
            raise UsageError("%%submit: --wait and --detach exclude each other; give one of them.")
        if parsed["spark"] and (other := [name for name in _NOT_OF_SPARK if name in parsed.given]):
            raise UsageError(
                f"%%submit: {', '.join(f'--{name}' for name in other)}: a Spark application has its size in --spark, such as "
                "--spark executors=4,executor-memory=2g,driver-memory=2g."
            )
        if parsed["map"] and parsed["out"]:
            raise UsageError(
                "%%submit: --out names variables of one job, and --map makes many; let the last expression be what you need."
            )
        return self._run(parsed, cell)

    def _run(self, parsed: Parsed, cell: str) -> Any:
        cell_name = f"<%%submit In[{cell_number(self.shell)}]>"
        self._check_syntax(cell, cell_name)
        self._check_variable(parsed.var, cell)
        submission, header = self._prepare(parsed, cell, cell_name)
        if parsed["dry-run"]:
            verdict = client().dry_run(submission.requests[0])
            return show(_dry_run_text(verdict, header, environment_of(submission)))
        area = Area(header=header)
        area.update(Shown(f"sending {show_bytes(len(submission.bundle))} …"))
        jobs = self._send(submission, area, is_map=parsed["map"] is not None)
        if parsed.var is not None:
            # Before the wait, so that the job can be reached whatever happens to this cell.
            remember(self.shell, parsed.var, jobs)
        if parsed["detach"]:
            return area.finish(_accepted_text(jobs))
        return wait_and_collect(self.shell, jobs, area, parsed["on-interrupt"])

    def _check_variable(self, variable: str | None, cell: str) -> None:
        """Refuses to put a handle in the place of something else: what the cell assigns may replace it, a handle may not."""
        if variable is None or variable in brought_names(cell, variable).names:
            return
        value = self.shell.user_ns.get(variable, getattr(builtins, variable, None))
        if value is not None and not isinstance(value, (JobHandle, MapHandle)):
            raise UsageError(
                f"%%submit {variable}: {variable} is a {type(value).__name__} here, and the job's handle would take its place; "
                f"choose another name, or let the cell assign {variable}."
            )

    def _send(self, submission: Submission, area: Area, *, is_map: bool) -> JobHandle | MapHandle:
        try:
            return send(submission, is_map=is_map)
        except KeyboardInterrupt:
            area.finish(Shown("stopped"))
            raise Stopped("stopped while the job was being sent; `%jobs` shows whether it was accepted.") from None
        except TuttiError:
            area.finish(Shown("not submitted"))
            raise

    def _check_syntax(self, cell: str, cell_name: str) -> None:
        try:
            check_syntax(cell, cell_name)
        except SyntaxError as error:
            line = (error.text or "").strip()
            if _DEBUG_MAGIC.search(line):
                raise UsageError(
                    f"%%submit: line {error.lineno} ({line[:60]}) needs a keyboard, and a job has none: run the cell here, without "
                    "its %%submit line, and debug it here."
                ) from None
            if _SHELL_SYNTAX.search(line):
                raise UsageError(
                    f"%%submit: line {error.lineno} ({line[:60]}) is notebook syntax, and a job runs plain Python; "
                    "do it in a cell before, or use subprocess."
                ) from None
            if not line and error.lineno is not None:
                # What only the compiler refuses, as `return` outside a function, comes without its line.
                error.text = f"\n{cell}".split("\n")[error.lineno - 1]
            raise CellSyntaxError(error, self.shell) from error

    def _prepare(self, parsed: Parsed, cell: str, cell_name: str) -> tuple[Submission, str]:
        """What is sent, and what is said about it before."""
        map_name = parsed["map"]
        chosen = choose_names(cell, self.shell.user_ns, self.shell.user_ns_hidden, parsed["in"])
        values = {name: self.shell.user_ns[name] for name in chosen}
        elements = None
        if map_name is not None:
            if map_name not in self.shell.user_ns:
                raise UsageError(f"%%submit: --map names {map_name}, which this notebook does not define.")
            values[map_name] = elements_of(map_name, self.shell.user_ns[map_name])
            elements = len(values[map_name])
        captured = capture(values)
        files = read_files(parsed["files"])
        submission = prepare(
            cell,
            cell_name,
            captured,
            self._options(parsed),
            key_stem,
            out=parsed["out"],
            brought=brought_names(cell, parsed.var),
            map_name=map_name,
            elements=elements,
            files=files,
        )
        is_elsewhere = parsed["image"] or parsed["mount"] or parsed["sidecar"]
        notes = [unknown_to_the_image(cell, values, files)] if is_elsewhere else []
        waiting = (*in_cell(cell_source(cell), cell_name, self.shell.user_ns), *captured.waiting)
        notes += sentences(waiting, {**os.environ, **dict(parsed["env"])})
        return submission, "\n".join(line for line in (str(captured), *notes) if line)

    def _options(self, parsed: Parsed) -> Options:
        after: list[str] = []
        for text in parsed["after"]:
            jobs = resolve(self.shell, text)
            after += jobs.ids if isinstance(jobs, MapHandle) else [jobs.id]
        return Options(
            name=parsed["name"] or parsed.var or f"cell {cell_number(self.shell)}",
            cpus=parsed["cpus"],
            memory=parsed["memory"],
            gpus=parsed["gpus"],
            gpu_type=parsed["gpu-type"],
            workers=parsed["workers"],
            min_workers=parsed["min-workers"],
            queue=parsed["queue"],
            run_as=parsed["run-as"],
            priority=parsed["priority"],
            image=parsed["image"],
            python=parsed["python"],
            timeout=parsed["timeout"],
            retries=parsed["retries"],
            after=tuple(after),
            cluster=parsed["cluster"],
            env=dict(parsed["env"]),
            framework=parsed["framework"],
            mounts=tuple(parsed["mount"]),
            sidecars=tuple(parsed["sidecar"]),
            labels=origin_labels(parsed.var),
            spark=tuple(parsed["spark"]),
        )


def _accepted_text(jobs: JobHandle | MapHandle) -> Shown:
    if isinstance(jobs, MapHandle):
        box = jobs.shown(time.time()).box
        return Shown(f"{len(jobs)} jobs submitted; `%attach {short_id(jobs[0].id)}` shows them.", box=box)
    view = jobs.seen
    why = f" It waits: {waiting(view.wait, view.created_at)}." if view.wait is not None else ""
    name = short_id(jobs.id)
    text = f"job {name} {jobs.name!r} submitted; `%attach {name}` shows it, `%job {name} cancel` ends it.{why}"
    return Shown(text, box=job_box(view, time.time()))


def _dry_run_text(verdict: DryRunView, header: str, environment: Environment) -> Shown:
    lines = [f"{verdict.verdict}: {verdict.sentence}"]
    if verdict.charge:
        lines.append("counts as: " + ", ".join(f"{amount} {key}" for key, amount in verdict.charge.items()))
    if verdict.placements:
        lines.append("places: " + ", ".join(f"{pod} at {node}" for pod, node in verdict.placements.items()))
    return Shown("\n".join([*lines, *([header] if header else []), str(environment)]))
