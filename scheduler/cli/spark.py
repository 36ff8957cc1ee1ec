"""`tuttilab spark`: sessions by name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import ago, short
from tuttilab.scheduler.errors import NotFound, TuttiError
from tuttilab.scheduler.resources import parse_cpu, parse_duration, parse_memory

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.wire import SparkSessionView


@click.group()
def spark() -> None:
    """List, start and stop Spark sessions."""


@spark.command("list")
@console.json_option
def list_sessions(as_json: bool) -> None:
    """List your sessions."""
    views = console.connected().spark_sessions()
    if as_json:
        console.put_json(views)
        return
    rows = [
        (
            view.name,
            short(view.job_id),
            view.phase,
            "yes" if view.is_ready else "no",
            view.cpus,
            view.memory,
            ago(view.created_at),
            _why(view),
        )
        for view in views
    ]
    console.put_table(("SESSION", "JOB", "PHASE", "READY", "CPUS", "MEMORY", "AGE", "WHY"), rows, "No Spark sessions.")


def _why(view: SparkSessionView) -> str:
    return view.wait.sentence if view.wait is not None else view.reason


@spark.command()
@click.argument("name", default="default")
@click.option("--cpus", default="2", show_default=True, help="Cores of the session.")
@click.option("--memory", default="2Gi", show_default=True, help="Memory of the session.")
@click.option("--queue", help="Queue to wait in.")
@click.option("--conf", multiple=True, metavar="K=V", callback=console.pairs("--conf"), help="Spark setting; repeat it.")
@click.option("--idle", default="60m", show_default=True, metavar="TIME", help="Ends by itself after this long without work.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is ready.")
@console.json_option
def start(
    name: str, cpus: str, memory: str, queue: str | None, conf: dict[str, str], idle: str, no_wait: bool, as_json: bool
) -> int:
    """Start the session NAME, unless it is there; waits until it is ready."""
    from tuttilab.scheduler.requests import SparkRequest

    parse_cpu(cpus, "--cpus")
    parse_memory(memory, "--memory")
    parse_duration(idle, "--idle")
    client = console.connected()
    view = client.spark_start(SparkRequest(name=name, cpus=cpus, memory=memory, queue=queue, conf=conf, idle=idle))
    if not no_wait:
        view = _until_ready(client, view)
    if as_json:
        console.put_json(view)
    else:
        click.echo(f"{view.name}: {view.phase}, {'ready' if view.is_ready else 'not ready'} (job {short(view.job_id)})")
    return 0


def _until_ready(client: Client, view: SparkSessionView) -> SparkSessionView:
    said = ""
    while not view.is_ready:
        why = _why(view) or view.phase
        if why != said:
            console.note(f"{view.name}: {why}")
            said = why
        time.sleep(0.3)
        view = next((one for one in client.spark_sessions() if one.job_id == view.job_id), view)
        if not view.is_ready:
            job = client.job(view.job_id)
            if job.is_ended:
                raise TuttiError(
                    f"The session {view.name} ended before it was ready ({job.reason or job.phase}); "
                    f"`tuttilab logs {short(job.id)}` says more."
                )
    return view


@spark.command()
@click.argument("name", default="default")
def stop(name: str) -> None:
    """Stop the session NAME."""
    client = console.connected()
    try:
        client.spark_stop(name)
    except NotFound as error:
        names = ", ".join(view.name for view in client.spark_sessions()) or "none"
        raise NotFound(f"There is no Spark session {name!r}; running: {names}.") from error
    click.echo(f"{name}: stopped")


COMMANDS = (spark,)
