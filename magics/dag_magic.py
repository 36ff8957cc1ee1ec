"""`%dag`: graphs of jobs from a notebook: run one, watch its nodes, cancel it, retry what failed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from tuttilab.magics import job_text
from tuttilab.magics.connection import client
from tuttilab.magics.display import Area, Shown, count, show, show_duration, table
from tuttilab.magics.parse import Option, Positional, UsageError, key_value, nearest, parse_line
from tuttilab.magics.watch import Stopped
from tuttilab.scheduler.client import read_dags
from tuttilab.scheduler.requests import DagRequest, RunRequest
from tuttilab.scheduler.wire import RunView

DAG_OPTIONS: Final = (
    Option("--variable", "K=V", key_value, repeatable=True, short="-v", help="a run variable; repeat it"),
    Option("--detach", help="do not wait for the end of the run"),
)
COMMANDS: Final = ("run", "status", "cancel", "retry")


class RunFailed(Exception):
    """A waited run that did not succeed, so that a run of all cells stops here."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@magics_class
class DagMagics(Magics):
    """``%dag run FILE``, ``%dag status [RUN]``, ``%dag cancel RUN``, ``%dag retry RUN``, ``%dag FILE``."""

    shell: InteractiveShell

    @line_magic
    def dag(self, line: str) -> None:
        """Run a graph of jobs and look after its runs."""
        first = Positional("COMMAND", required=True, help=f"{', '.join(COMMANDS)}, or a file whose DAGs are kept by name")
        second = Positional("WHAT", help="a file or a DAG's name to run; the beginning of a run's id for the others")
        parsed = parse_line("%dag", DAG_OPTIONS, line, positionals=(first, second))
        if parsed.help_text:
            show(Shown(parsed.help_text))
            return
        word, what = parsed.positionals["COMMAND"], parsed.positionals.get("WHAT")
        if _is_file(word):
            show(_kept(Path(word)))
        elif word == "status" and what is None:
            show(_runs(client().runs()))
        elif word not in COMMANDS:
            guess = nearest(word, COMMANDS)
            hint = f"did you mean {guess}?" if guess else f"it takes {', '.join(COMMANDS)}, or a file that is there."
            raise UsageError(f"%dag: unknown command {word}; {hint}")
        elif what is None:
            raise UsageError(f"%dag {word}: {'a file or a name' if word == 'run' else 'a run'} is missing; see `%dag --help`.")
        elif word == "run":
            _follow(client().run_dag(_request(what, dict(parsed["variable"] or ()))), parsed["detach"])
        else:
            act: Any = {"status": client().run, "cancel": client().cancel_run, "retry": client().retry_run}[word]
            view = act(what)
            if word == "retry":
                _follow(view, parsed["detach"])
            else:
                show(shown(view, time.time()))


def _is_file(text: str) -> bool:
    return text.endswith((".yaml", ".yml"))


def _read(path: Path) -> list[DagRequest]:
    return [replace(one, workdir=one.workdir or os.getcwd()) for one in read_dags(path)]


def _request(what: str, variables: dict[str, str]) -> RunRequest:
    if not _is_file(what):
        return RunRequest(name=what, variables=variables)
    found = _read(Path(what))
    if len(found) != 1:
        raise UsageError(
            f"%dag run: {what} holds {count(len(found), 'DAG')}; keep them with `%dag {what}` and run one by its name."
        )
    return RunRequest(dag=found[0], variables=variables)


def _kept(path: Path) -> Shown:
    views = [client().apply_dag(one) for one in _read(path)]
    return table(("DAG", "version", "nodes"), [(v.name, str(v.version), ", ".join(v.nodes)) for v in views])


def _runs(views: list[RunView]) -> Shown:
    if not views:
        return Shown("No runs; `%dag run FILE` starts one.")
    now = time.time()
    rows = [(job_text.short_id(v.id), v.name, v.phase, f"{show_duration(now - v.created_at)} ago") for v in views]
    return table(("run", "DAG", "phase", "started"), rows)


def _follow(view: RunView, is_detached: bool) -> None:
    """Redraw the nodes until the run is over; Stop leaves it running and says how to come back."""
    short = job_text.short_id(view.id)
    if is_detached:
        show(Shown(f"run {short} of {view.name} started; `%dag status {short}` shows it, `%dag cancel {short}` ends it."))
        return
    area = Area()
    try:
        view = client().wait_run(view.id, on_change=lambda now: area.update(shown(now, time.time())))
    except KeyboardInterrupt:
        raise Stopped(f"detached: run {short} goes on; `%dag status {short}` shows it, `%dag cancel {short}` ends it.") from None
    area.finish(shown(view, time.time()))
    if view.phase != "Succeeded":
        bad = next((node for node in view.nodes if node.phase == "Failed"), None)
        why = f"node {bad.name} failed: {bad.reason}" if bad else f"it was {view.phase.lower()}"
        log = f"`%job {job_text.short_id(bad.job_id)} logs` shows what it printed, " if bad and bad.job_id else ""
        raise RunFailed(f"Run {short} of {view.name} did not succeed: {why}. {log}`%dag retry {short}` starts over what failed.")


def shown(view: RunView, now: float) -> Shown:
    """The run's nodes, one a line, as text and as a table."""
    took = show_duration((view.ended_at or now) - view.created_at)
    caption = f"run {job_text.short_id(view.id)} of {view.name}: {view.phase} ({took})"
    rows = [
        (
            node.name,
            node.phase,
            ", ".join(node.after),
            job_text.short_id(node.job_id) if node.job_id else "",
            node.reason if node.phase not in ("Succeeded", "Running") else "",
        )
        for node in view.nodes
    ]
    drawn = table(("node", "phase", "after", "job", "why"), rows, caption)
    news = " ".join(f"{node.name}={node.phase}" for node in view.nodes)
    return Shown(drawn.text, drawn.html, f"{view.phase} {news}")
