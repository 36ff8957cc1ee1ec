"""`tuttilab dag`: DAGs from manifests, and their runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.completing import RUN
from tuttilab.scheduler.cli.console import ago, short
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.words import word

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.requests import DagRequest, RunRequest
    from tuttilab.scheduler.domain.wire import RunView

FAILED = 1


@click.group()
def dag() -> None:
    """Run graphs of jobs; show, cancel and retry their runs."""


@dag.command()
@click.argument("file", type=click.Path(dir_okay=False))
@console.json_option
def apply(file: str, as_json: bool) -> None:
    """Store the DAGs of FILE under their names; a changed DAG becomes its next version."""
    from tuttilab.scheduler.client.notebooks import with_notebooks

    requests = _read(Path(file))
    client = console.connected_client()
    views = [client.apply_dag(with_notebooks(client, request)) for request in requests]
    if as_json:
        console.put_json(views)
        return
    for view in views:
        console.put(f"{view.name}: version {view.version}, {console.count_of(len(view.nodes), 'node')}")


dag.add_command(apply, "import")


@dag.command()
@click.argument("name")
def export(name: str) -> None:
    """Print an applied DAG as the manifest that `dag import` (which is `dag apply`) takes."""
    from tuttilab.scheduler.client import manifests

    console.put(manifests.write(console.connected_client().dag_definition(name)), nl=False)


@dag.command("list")
@console.json_option
def list_dags(as_json: bool) -> None:
    """List the DAGs that were applied."""
    views = console.connected_client().dags()
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
@click.option("--no-env", is_flag=True, help="Nothing of this shell's environment, only the env of the nodes.")
@click.option("--wait", is_flag=True, help="Follow the run; exit 1 if it does not succeed.")
@console.json_option
def run(what: str, variables: dict[str, str], no_env: bool, wait: bool, as_json: bool) -> int:
    """Run a DAG that was applied, by its name, or the one of a file. Nodes without a workdir run in the file's folder."""
    from tuttilab.scheduler.client.environment import run_environment
    from tuttilab.scheduler.client.notebooks import with_notebooks

    request = _request(what, variables)
    client = console.connected_client()
    if request.dag is not None:
        request = replace(request, dag=with_notebooks(client, request.dag))
    view = client.run_dag(request if no_env else replace(request, inherited=run_environment(client.clusters())))
    if wait:
        view = client.wait_run(view.id, on_change=None if as_json else PhasePrinter().print_changes)
    if as_json:
        console.put_json(view)
    elif not wait:
        console.put(view.id)
    return FAILED if wait and view.phase != "Succeeded" else 0


def _request(what: str, variables: dict[str, str]) -> RunRequest:
    from tuttilab.scheduler.domain.requests import RunRequest

    if not (what.endswith((".yaml", ".yml")) or Path(what).exists()):
        return RunRequest(name=what, variables=variables)
    found = _read(Path(what))
    if len(found) != 1:
        raise BadInput(f"{what}: it holds {len(found)} DAGs; expected one to run. Apply the file and run one by its name.")
    return RunRequest(dag=found[0], variables=variables)


def _read(path: Path) -> list[DagRequest]:
    from tuttilab.scheduler.client import manifests
    from tuttilab.scheduler.domain.requests import DagRequest

    return manifests.read(path, DagRequest)


class PhasePrinter:
    """Prints each change of a node's phase once."""

    def __init__(self) -> None:
        self.phases: dict[str, str] = {}

    def print_changes(self, view: RunView) -> None:
        if not self.phases:
            console.note(f"run {short(view.id)} of {view.name}")
        for node in view.nodes:
            if self.phases.get(node.name) != node.phase:
                why = f": {node.reason}" if node.reason and node.phase not in ("Succeeded", "Running") else ""
                console.note(f"  {node.name}: {word(node.phase)}{why}")
        self.phases = {node.name: node.phase for node in view.nodes}
        if view.is_ended:
            console.note(f"run {short(view.id)}: {word(view.phase)}")


@dag.command()
@click.option("--limit", default=50, show_default=True, help="The newest so many.")
@console.json_option
def runs(limit: int, as_json: bool) -> None:
    """List your runs, newest first."""
    views = console.connected_client().runs(limit)
    if as_json:
        console.put_json(views)
        return
    rows = [(short(v.id), v.name, word(v.phase), ago(v.created_at), _phase_counts(v)) for v in views]
    console.put_table(("RUN", "DAG", "PHASE", "AGE", "NODES"), rows, "No runs; `tuttilab dag run FILE` starts one.")


def _phase_counts(view: RunView) -> str:
    """The number of nodes in each phase."""
    phases = [word(node.phase) for node in view.nodes]
    return ", ".join(f"{phases.count(phase)} {phase}" for phase in dict.fromkeys(phases))


@dag.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@console.json_option
def show(run_id: str, as_json: bool) -> None:
    """Show a run with its nodes."""
    _show(console.connected_client().run(run_id), as_json)


@dag.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@console.json_option
def cancel(run_id: str, as_json: bool) -> None:
    """Cancel a run: its running jobs are stopped, its waiting nodes never start."""
    _show(console.connected_client().cancel_run(run_id), as_json)


@dag.command()
@click.argument("run_id", metavar="RUN", type=RUN)
@console.json_option
def retry(run_id: str, as_json: bool) -> None:
    """Run the nodes that did not succeed and all nodes after them again; what succeeded is not run again."""
    _show(console.connected_client().retry_run(run_id), as_json)


def _show(view: RunView, as_json: bool) -> None:
    if as_json:
        console.put_json(view)
        return
    console.put(f"run {short(view.id)} of {view.name}: {word(view.phase)}")
    rows = [(n.name, word(n.phase), " ".join(n.after), short(n.job_id) if n.job_id else "", n.reason) for n in view.nodes]
    console.put_table(("NODE", "PHASE", "AFTER", "JOB", "WHY"), rows, "")


COMMANDS = (dag,)
