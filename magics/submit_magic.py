"""`%%submit`: the cell runs as a batch job. Thin: reading the line here, the rest in capture, submission, watch and results."""

from __future__ import annotations

import re
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand, output_can_be_silenced

from tuttilab.magics.bundle import read_files
from tuttilab.magics.capture import Captured, capture, choose_names, show_bytes
from tuttilab.magics.collect import resolve, wait_and_collect
from tuttilab.magics.connection import client
from tuttilab.magics.display import Area, Shown, show
from tuttilab.magics.handle import JobHandle
from tuttilab.magics.job_text import short_id, waiting
from tuttilab.magics.map_handle import MapHandle
from tuttilab.magics.parse import Option, Parsed, UsageError, duration_s, key_value, parse_line, variable_name, whole_number
from tuttilab.magics.send import key_stem, origin_labels, send
from tuttilab.magics.submission import Options, Submission, compiled, elements_of, prepare
from tuttilab.magics.watch import Stopped
from tuttilab.scheduler.errors import TuttiError
from tuttilab.scheduler.resources import parse_count, parse_cpu, parse_memory
from tuttilab.scheduler.wire import DryRunView


def names(text: str) -> tuple[str, ...]:
    """A converter: variable names with commas between."""
    found = tuple(part.strip() for part in text.split(","))
    try:
        return tuple(variable_name(part) for part in found)
    except ValueError:
        raise ValueError("variable names with commas between, such as a,b") from None


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
    Option("--priority", "P", signed, default=0, help="higher goes first"),
    Option("--image", "I", help="container image to run in"),
    Option("--in", "a,b", names, help="send exactly these variables instead of those the cell uses"),
    Option("--out", "a,b", names, default=(), help="bind these variables of the cell in the notebook afterwards"),
    Option("--files", "PATH", repeatable=True, help="file or folder to take along, importable and below TUTTILAB_CODE_DIR/files"),
    Option("--map", "VAR", variable_name, help="one job an element of VAR, which is that element in the cell"),
    Option("--timeout", "T", duration_s, help="end the job after this time, such as 2h"),
    Option("--retries", "N", whole_number, default=0, help="further tries when it fails"),
    Option("--after", "JOB", repeatable=True, help="start when this job (handle or id) has succeeded"),
    Option("--cluster", "C", help="run on this cluster"),
    Option("--env", "K=V", key_value, repeatable=True, help="environment variable of the job"),
    Option("--framework", choices=("torch", "tensorflow", "xgboost", "none"), default="none", help="whose environment to set up"),
    Option("--wait", help="wait with live progress (the default)"),
    Option("--detach", help="return at once"),
    Option("--on-interrupt", choices=("detach", "cancel"), default="detach", help="what the first Stop does"),
    Option("--dry-run", help="say what would happen, submit nothing"),
)
_LATER = {
    "--template": Option("--template", "T", help="not in this version"),
    "--param": Option("--param", "K=V", repeatable=True, help="not in this version"),
    "--cron": Option("--cron", "C", help="not in this version"),
    "--pip": Option("--pip", "X", repeatable=True, help="not in this version"),
}
_INSTEAD = {
    "--template": "give the options that you need on the line",
    "--param": "set a variable in the notebook, the cell takes it along",
    "--cron": "submit the cell when you need it",
    "--pip": "use an interpreter or an --image that has the package",
}
_SHELL_SYNTAX = re.compile(r"^\s*(?:[A-Za-z_]\w*\s*=\s*)?[%!]", re.MULTILINE)


class CellSyntaxError(Exception):
    """The cell is no Python. Shown as IPython shows a SyntaxError of its own, which is its ``__cause__``."""

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
        """Run the cell as a batch job and show its value; `%%submit --help` lists the options."""
        if cell is None and line.strip() not in ("--help", "-h"):
            raise UsageError("%submit of a notebook file comes in a later version; write %%submit above the cell that shall run.")
        parsed = parse_line("%%submit", (*OPTIONS, *_LATER.values()), line)
        if parsed.help_text is not None:
            return show(Shown(parsed.help_text))
        for name, instead in _INSTEAD.items():
            if name.lstrip("-") in parsed.given:
                raise UsageError(f"%%submit {name} comes in a later version; {instead}.")
        if cell is None or not cell.strip():
            raise UsageError("%%submit: the cell is empty; write what the job shall run below the first line.")
        if parsed["wait"] and parsed["detach"]:
            raise UsageError("%%submit: --wait and --detach exclude each other; give one of them.")
        if parsed["map"] and parsed["out"]:
            raise UsageError(
                "%%submit: --out names variables of one job, and --map makes many; let the last expression be what you need."
            )
        return self._run(parsed, cell)

    def _run(self, parsed: Parsed, cell: str) -> Any:
        cell_name = f"<%%submit In[{self.shell.execution_count}]>"
        self._check_syntax(cell, cell_name)
        submission, captured = self._prepared(parsed, cell, cell_name)
        if parsed["dry-run"]:
            return show(_verdict(client().dry_run(submission.requests[0]), captured))
        area = Area(header=str(captured))
        area.update(Shown(f"sending {show_bytes(len(submission.bundle))} …"))
        jobs = self._sent(submission, area, is_map=parsed["map"] is not None)
        if parsed.var is not None:
            # Bound before the wait: whatever happens to this cell, the job can be reached.
            self.shell.user_ns[parsed.var] = jobs
        if parsed["detach"]:
            return area.finish(_accepted(jobs))
        return wait_and_collect(self.shell, jobs, area, parsed["on-interrupt"])

    def _sent(self, submission: Submission, area: Area, *, is_map: bool) -> JobHandle | MapHandle:
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
            compiled(cell, cell_name)
        except SyntaxError as error:
            line = (error.text or "").strip()
            if _SHELL_SYNTAX.search(line):
                raise UsageError(
                    f"%%submit: line {error.lineno} ({line[:60]}) is notebook syntax, and a job runs plain Python; "
                    "do it in a cell before, or use subprocess."
                ) from None
            raise CellSyntaxError(error, self.shell) from error

    def _prepared(self, parsed: Parsed, cell: str, cell_name: str) -> tuple[Submission, Captured]:
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
        submission = prepare(
            cell,
            cell_name,
            captured,
            self._options(parsed),
            key_stem,
            out=parsed["out"],
            map_name=map_name,
            elements=elements,
            files=read_files(parsed["files"]),
        )
        return submission, captured

    def _options(self, parsed: Parsed) -> Options:
        after: list[str] = []
        for text in parsed["after"]:
            jobs = resolve(self.shell, text)
            after += jobs.ids if isinstance(jobs, MapHandle) else [jobs.id]
        return Options(
            name=parsed["name"] or parsed.var or f"cell {self.shell.execution_count}",
            cpus=parsed["cpus"],
            memory=parsed["memory"],
            gpus=parsed["gpus"],
            gpu_type=parsed["gpu-type"],
            workers=parsed["workers"],
            min_workers=parsed["min-workers"],
            queue=parsed["queue"],
            priority=parsed["priority"],
            image=parsed["image"],
            timeout=parsed["timeout"],
            retries=parsed["retries"],
            after=tuple(after),
            cluster=parsed["cluster"],
            env=dict(parsed["env"]),
            framework=parsed["framework"],
            labels=origin_labels(parsed.var),
        )


def _accepted(jobs: JobHandle | MapHandle) -> Shown:
    if isinstance(jobs, MapHandle):
        return Shown(f"{len(jobs)} jobs submitted; `%attach {short_id(jobs[0].id)}` shows them.")
    view = jobs.seen
    why = f" It waits: {waiting(view.wait, view.created_at)}." if view.wait is not None else ""
    name = short_id(jobs.id)
    return Shown(f"job {name} {jobs.name!r} submitted; `%attach {name}` shows it, `%job {name} cancel` ends it.{why}")


def _verdict(verdict: DryRunView, captured: Captured) -> Shown:
    lines = [f"{verdict.verdict}: {verdict.sentence}"]
    if verdict.charge:
        lines.append("counts as: " + ", ".join(f"{amount} {key}" for key, amount in verdict.charge.items()))
    if verdict.placements:
        lines.append("places: " + ", ".join(f"{pod} at {node}" for pod, node in verdict.placements.items()))
    return Shown("\n".join([*lines, *([str(captured)] if str(captured) else [])]))
