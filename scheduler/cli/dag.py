"""`tuttilab dag`: graphs of jobs from manifests, and their runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import ago, short
from tuttilab.scheduler.errors import BadInput

if TYPE_CHECKING:
    from tuttilab.scheduler.requests import DagRequest, RunRequest
    from tuttilab.scheduler.wire import RunView

FAILED = 1


@click.group()
def dag() -> None:
    """Run graphs of jobs, and look after their runs."""


@dag.command()
@click.argument("file", type=click.Path(dir_okay=False))
@console.json_option
def apply(file: str, as_json: bool) -> None:
    """Keep the DAGs of FILE by their names; a changed one becomes its next version."""
    client = console.connected()
    views = [client.apply_dag(request) for request in _read(Path(file))]
    if as_json:
        console.put_json(views)
        return
    for view in views:
        click.echo(f"{view.name}: version {view.version}, {console.counted(len(view.nodes), 'node')}")


@dag.command("list")
@console.json_option
def list_dags(as_json: bool) -> None:
    """List the DAGs that were applied."""
    views = console.connected().dags()
    if as_json:
        console.put_json(views)
        return
    rows = [(v.name, str(v.version), ago(v.applied_at), " ".join(v.nodes)) for v in views]
    console.put_table(("DAG", "VERSION", "AGE", "NODES"), rows, "No DAGs; `tuttilab dag apply FILE` keeps one.")


@dag.command()
@click.argument("what", metavar="NAME-OR-FILE")
@click.option(
    "-v", "--variable", "variables", multiple=True, metavar="K=V", callback=console.pairs("--variable"), help="Run variable."
)
@click.option("--wait", is_flag=True, help="Follow the run; exit 1 if it does not succeed.")
@console.json_option
def run(what: str, variables: dict[str, str], wait: bool, as_json: bool) -> int:
    """Run a DAG that was applied, by its name, or the one of a file. Nodes without a workdir run in the current directory."""
    client = console.connected()
    view = client.run_dag(_request(what, variables))
    if wait:
        view = client.wait_run(view.id, on_change=None if as_json else _Told().tell)
    if as_json:
        console.put_json(view)
    elif not wait:
        click.echo(view.id)
    return FAILED if wait and view.phase != "Succeeded" else 0


def _request(what: str, variables: dict[str, str]) -> RunRequest:
    from tuttilab.scheduler.requests import RunRequest

    if not (what.endswith((".yaml", ".yml")) or Path(what).exists()):
        return RunRequest(name=what, variables=variables)
    found = _read(Path(what))
    if len(found) != 1:
        raise BadInput(f"{what}: it holds {len(found)} DAGs; expected one to run. Apply the file and run one by its name.")
    return RunRequest(dag=found[0], variables=variables)


def _read(path: Path) -> list[DagRequest]:
    from tuttilab.scheduler import manifests
    from tuttilab.scheduler.requests import DagRequest

    return [replace(one, workdir=one.workdir or os.getcwd()) for one in manifests.read(path, DagRequest)]


class _Told:
    """Says each change of a node once, so that the lines read as a story."""

    def __init__(self) -> None:
        self.phases: dict[str, str] = {}

    def tell(self, view: RunView) -> None:
        if not self.phases:
            console.note(f"run {short(view.id)} of {view.name}")
        for node in view.nodes:
            if self.phases.get(node.name) != node.phase:
                why = f": {node.reason}" if node.reason and node.phase not in ("Succeeded", "Running") else ""
                console.note(f"  {node.name} {node.phase}{why}")
        self.phases = {node.name: node.phase for node in view.nodes}
        if view.is_ended:
            console.note(f"run {short(view.id)}: {view.phase}")


@dag.command()
@click.option("--limit", default=50, show_default=True, help="The newest so many.")
@console.json_option
def runs(limit: int, as_json: bool) -> None:
    """List your runs, newest first."""
    views = console.connected().runs(limit)
    if as_json:
        console.put_json(views)
        return
    rows = [(short(v.id), v.name, v.phase, ago(v.created_at), _buckets(v)) for v in views]
    console.put_table(("RUN", "DAG", "PHASE", "AGE", "NODES"), rows, "No runs; `tuttilab dag run FILE` starts one.")


def _buckets(view: RunView) -> str:
    """How many nodes are in each phase."""
    phases = [node.phase for node in view.nodes]
    return ", ".join(f"{phases.count(phase)} {phase}" for phase in dict.fromkeys(phases))


@dag.command()
@click.argument("run_id", metavar="RUN")
@console.json_option
def show(run_id: str, as_json: bool) -> None:
    """Show a run with its nodes."""
    _show(console.connected().run(run_id), as_json)


@dag.command()
@click.argument("run_id", metavar="RUN")
@console.json_option
def cancel(run_id: str, as_json: bool) -> None:
    """Cancel a run: what runs is stopped, what waits never starts."""
    _show(console.connected().cancel_run(run_id), as_json)


@dag.command()
@click.argument("run_id", metavar="RUN")
@console.json_option
def retry(run_id: str, as_json: bool) -> None:
    """Start over the nodes that did not end well and what is below them; what succeeded is not run again."""
    _show(console.connected().retry_run(run_id), as_json)


def _show(view: RunView, as_json: bool) -> None:
    if as_json:
        console.put_json(view)
        return
    click.echo(f"run {view.id} of {view.name}: {view.phase}")
    rows = [(n.name, n.phase, " ".join(n.after), short(n.job_id) if n.job_id else "", n.reason) for n in view.nodes]
    console.put_table(("NODE", "PHASE", "AFTER", "JOB", "WHY"), rows, "")


COMMANDS = (dag,)
