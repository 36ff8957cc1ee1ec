"""`%dag`: runs graphs of jobs from a notebook, shows their nodes, cancels runs, retries failed nodes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from tuttilab.magics.jobs.watch import Stopped
from tuttilab.magics.shared import job_text
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Area, Shown, count, show, show_duration, table
from tuttilab.magics.shared.parse import Option, Positional, UsageError, key_value, nearest, parse_line
from tuttilab.scheduler.client import read_dags, run_environment
from tuttilab.scheduler.client.notebooks import with_notebooks
from tuttilab.scheduler.domain.requests import RunRequest
from tuttilab.scheduler.domain.terminal import clean
from tuttilab.scheduler.domain.wire import DagView, RunView
from tuttilab.scheduler.domain.words import word

DAG_OPTIONS: Final = (
    Option("--variable", "K=V", key_value, repeatable=True, short="-v", help="a run variable; repeat it"),
    Option("--detach", help="do not wait for the end of the run"),
)

COMMANDS: Final = ("run", "status", "runs", "list", "cancel", "retry")


class RunFailed(Exception):
    """A run that was waited for did not succeed; the exception stops a run of all cells."""

    def _render_traceback_(self) -> list[str]:
        return [clean(str(self))]


@magics_class
class DagMagics(Magics):
    """``%dag run FILE``, ``%dag status [RUN]``, ``%dag runs``, ``%dag list``, ``%dag cancel|retry RUN``, ``%dag FILE``."""

    shell: InteractiveShell

    @line_magic
    def dag(self, line: str) -> None:
        """Run a graph of jobs and look after its runs."""
        first = Positional("COMMAND", required=True, help=f"{', '.join(COMMANDS)}, or a file whose DAGs are kept by name")
        second = Positional(
            "WHAT", help="a file or a DAG's name to run; for the others the beginning of a run's id, its DAG's name, or last"
        )
        parsed = parse_line("%dag", DAG_OPTIONS, line, positionals=(first, second))
        if parsed.help_text:
            show(Shown(parsed.help_text))
            return
        command, what = parsed.positionals["COMMAND"], parsed.positionals.get("WHAT")
        if _is_file(command):
            show(_apply_file(Path(command)))
        elif command in ("status", "runs") and what is None:
            show(_run_list(client().runs()))
        elif command == "list" and what is None:
            show(_dag_list(client().dags()))
        elif command in ("runs", "list"):
            raise UsageError(f"%dag {command}: {what!r} was not expected; `%dag status {what}` shows one run.")
        elif command not in COMMANDS:
            guess = nearest(command, COMMANDS)
            hint = f"did you mean {guess}?" if guess else f"it takes {', '.join(COMMANDS)}, or a file that is there."
            raise UsageError(f"%dag: unknown command {command}; {hint}")
        elif what is None:
            missing = "a file or a name" if command == "run" else "a run"
            raise UsageError(f"%dag {command}: {missing} is missing; see `%dag --help`.")
        elif command == "run":
            request = replace(_request(what, dict(parsed["variable"] or ())), inherited=run_environment(client().clusters()))
            if request.dag is not None:
                request = replace(request, dag=with_notebooks(client(), request.dag))
            _follow(client().run_dag(request), parsed["detach"])
        else:
            act: Any = {"status": client().run, "cancel": client().cancel_run, "retry": client().retry_run}[command]
            view = act(what)
            if command == "retry":
                _follow(view, parsed["detach"])
            else:
                show(run_status(view, time.time()))


def _is_file(text: str) -> bool:
    return text.endswith((".yaml", ".yml"))


def _request(what: str, variables: dict[str, str]) -> RunRequest:
    if not _is_file(what):
        return RunRequest(name=what, variables=variables)
    found = read_dags(Path(what))
    if len(found) != 1:
        raise UsageError(
            f"%dag run: {what} holds {count(len(found), 'DAG')}; keep them with `%dag {what}` and run one by its name."
        )
    return RunRequest(dag=found[0], variables=variables)


def _apply_file(path: Path) -> Shown:
    views = [client().apply_dag(with_notebooks(client(), one)) for one in read_dags(path)]
    return table(("DAG", "version", "nodes"), [(v.name, str(v.version), ", ".join(v.nodes)) for v in views])


def _run_list(views: list[RunView]) -> Shown:
    if not views:
        return Shown("No runs; `%dag run FILE` starts one.")
    now = time.time()
    rows = [(job_text.short_id(v.id), v.name, word(v.phase), f"{show_duration(now - v.created_at)} ago") for v in views]
    return table(("run", "DAG", "phase", "started"), rows)


def _dag_list(views: list[DagView]) -> Shown:
    if not views:
        return Shown("No DAGs are kept; `%dag FILE.yaml` keeps those of a file, `%dag run FILE.yaml` runs one at once.")
    now = time.time()
    rows = [(v.name, str(v.version), f"{show_duration(now - v.applied_at)} ago", ", ".join(v.nodes)) for v in views]
    return table(("DAG", "version", "kept", "nodes"), rows)


def _follow(view: RunView, is_detached: bool) -> None:
    """Redraws the nodes until the run has ended; Stop leaves the run going and says how to attach to it."""
    short = job_text.short_id(view.id)
    if is_detached:
        show(Shown(f"run {short} of {view.name} started; `%dag status {short}` shows it, `%dag cancel {short}` ends it."))
        return
    area = Area()
    try:
        view = client().wait_run(view.id, on_change=lambda now: area.update(run_status(now, time.time())))
    except KeyboardInterrupt:
        back = f"`%dag status {short}` shows it, `%dag cancel {short}` ends it"
        raise Stopped(f"detached: run {short} of {view.name} goes on; {back}.") from None
    area.finish(run_status(view, time.time()))
    if view.phase != "Succeeded":
        failed = next((node for node in view.nodes if node.phase == "Failed"), None)
        why = f"node {failed.name} failed: {failed.reason}" if failed else f"it was {view.phase.lower()}"
        log = f"`%job {job_text.short_id(failed.job_id)} logs` shows what it printed, " if failed and failed.job_id else ""
        raise RunFailed(f"Run {short} of {view.name} did not succeed: {why}. {log}`%dag retry {short}` starts over what failed.")


def run_status(view: RunView, now: float) -> Shown:
    """The run's nodes, one per line, as text and as a table."""
    took = show_duration((view.ended_at or now) - view.created_at)
    caption = f"run {job_text.short_id(view.id)} of {view.name}: {word(view.phase)} ({took})"
    rows = [
        (
            node.name,
            word(node.phase),
            ", ".join(node.after),
            job_text.short_id(node.job_id) if node.job_id else "",
            node.reason if node.phase not in ("Succeeded", "Running") else "",
        )
        for node in view.nodes
    ]
    nodes = table(("node", "phase", "after", "job", "why"), rows, caption)
    phases = " ".join(f"{node.name}={node.phase}" for node in view.nodes)
    return Shown(nodes.text, nodes.html, f"{view.phase} {phases}")
