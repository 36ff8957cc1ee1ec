"""`tuttilab spark`: lists, starts and stops Spark sessions by name."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import ago, at_prompt, short
from tuttilab.scheduler.domain.errors import NotFound, TuttiError
from tuttilab.scheduler.domain.resources import parse_cpu, parse_duration, parse_memory

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.domain.wire import SparkSessionView


from tuttilab.scheduler.domain.words import word


@click.group()
def spark() -> None:
    """List, start and stop Spark sessions; make their start faster."""


@spark.command("list")
@console.json_option
def list_sessions(as_json: bool) -> None:
    """List your sessions."""
    views = console.connected_client().spark_sessions()
    if as_json:
        console.put_json(views)
        return
    rows = [
        (
            view.name,
            short(view.job_id),
            word(view.phase),
            "yes" if view.is_ready else "no",
            view.cpus,
            view.memory,
            f"{view.executors} x {view.executor_cores} cores, {view.executor_memory}" if view.executors else "",
            ago(view.created_at),
            _why(view),
        )
        for view in views
    ]
    console.put_table(("SESSION", "JOB", "PHASE", "READY", "CPUS", "MEMORY", "EXECUTORS", "AGE", "WHY"), rows, "No Spark sessions.")


def _why(view: SparkSessionView) -> str:
    return at_prompt(view.wait.sentence) if view.wait is not None else view.reason


@spark.command()
@click.argument("name", default="default")
@click.option("--cpus", help="Cores of its server (default: 2, at most half of the largest node; with executors 1).")
@click.option("--memory", help="Memory of its server in all (default: 2Gi, at most half of the largest node).")
@click.option("--executors", type=int, default=0, metavar="N", help="Executors in pods of their own: all start or none.")
@click.option("--executor-cores", metavar="N", help="Cores of each executor (default: 1).")
@click.option("--executor-memory", metavar="BYTES", help="Heap of each executor, such as 4g (default: 1g).")
@click.option("--driver-cores", metavar="N", help="Another word for --cpus.")
@click.option("--driver-memory", metavar="BYTES", help="Heap of its server, such as 2g.")
@click.option("--image", help="Container image of its pods, with tuttilab[spark] in it.")
@click.option("--cluster", help="Only this cluster.")
@click.option("--queue", help="Queue to wait in.")
@click.option("--conf", multiple=True, metavar="K=V", callback=console.pairs("--conf"), help="Spark setting; repeat it.")
@click.option("--idle", default="60m", show_default=True, metavar="TIME", help="Ends by itself after this long without work.")
@click.option("--ttl", metavar="TIME", help="Ends after this long, whatever runs.")
@click.option("--ui", is_flag=True, help="Serve Spark's own pages.")
@click.option("--keep", is_flag=True, help="Do not give way when it is idle and your other work waits for what it holds.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is ready.")
@console.json_option
def start(
    name: str,
    cpus: str | None,
    memory: str | None,
    executors: int,
    executor_cores: str | None,
    executor_memory: str | None,
    driver_cores: str | None,
    driver_memory: str | None,
    image: str | None,
    cluster: str | None,
    queue: str | None,
    conf: dict[str, str],
    idle: str,
    ttl: str | None,
    ui: bool,
    keep: bool,
    no_wait: bool,
    as_json: bool,
) -> int:
    """Start the session NAME, unless it is live; waits until it is ready."""
    from tuttilab.scheduler.domain.requests import SparkRequest

    if cpus is not None:
        parse_cpu(cpus, "--cpus")
    if memory is not None:
        parse_memory(memory, "--memory")
    parse_duration(idle, "--idle")
    request = SparkRequest(
        name=name,
        cpus=cpus,
        memory=memory,
        executors=executors,
        executor_cores=executor_cores,
        executor_memory=executor_memory,
        driver_cores=driver_cores,
        driver_memory=driver_memory,
        image=image,
        cluster=cluster,
        queue=queue,
        conf=conf,
        idle=idle,
        ttl=ttl,
        ui=ui,
        keep=keep,
    )
    client = console.connected_client()
    view = client.spark_start(request)
    if not no_wait:
        view = _wait_until_ready(client, view)
    if as_json:
        console.put_json(view)
    else:
        console.put(f"{view.name}: {word(view.phase)}, {'ready' if view.is_ready else 'not ready'} (job {short(view.job_id)})")
    return 0


def _wait_until_ready(client: Client, view: SparkSessionView) -> SparkSessionView:
    shown = ""
    while not view.is_ready:
        why = _why(view) or word(view.phase)
        if why != shown:
            console.note(f"{view.name}: {why}")
            shown = why
        time.sleep(0.3)
        view = next((one for one in client.spark_sessions() if one.job_id == view.job_id), view)
        if not view.is_ready:
            job = client.job(view.job_id)
            if job.is_ended:
                raise TuttiError(
                    f"The session {view.name} ended before it was ready ({job.reason or word(job.phase)}); "
                    f"`tuttilab logs {short(job.id)}` says more."
                )
    return view


@spark.command()
@click.argument("name", default="default")
def stop(name: str) -> None:
    """Stop the session NAME."""
    client = console.connected_client()
    try:
        client.spark_stop(name)
    except NotFound as error:
        names = ", ".join(view.name for view in client.spark_sessions()) or "none"
        raise NotFound(f"There is no Spark session {name!r}; running: {names}.") from error
    console.put(f"{name}: stopped")


@spark.command()
@click.option("--again", is_flag=True, help="Also where it is there already.")
def prepare(again: bool) -> int:
    """Let Java load Spark's classes once and keep them, so that sessions start in about half the time.

    The file, 200 MB, lies in the environment of this Python and is for the Java that sessions have now.
    """
    from tuttilab.scheduler.spark import classes

    archive, is_new = classes.make_archive(os.environ, again=again, say=console.note)
    console.put(f"{archive}: {'made' if is_new else 'there already; --again makes it anew'}")
    return 0


@click.command("spark-proxy")
@click.option("--url", required=True, help="Address of the control plane.")
@click.option(
    "--token-file", required=True, type=click.Path(path_type=Path), help="spark-proxy-token of the control plane's state folder."
)
@click.option("--listen", default="127.0.0.1:15002", show_default=True, metavar="HOST:PORT", help="Where kernels connect.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM file; with --key the proxy serves TLS.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of the certificate's key.")
@click.option("--metrics", default="", metavar="HOST:PORT", help="Serve counters for Prometheus there.")
@click.option("--with-parent", is_flag=True, hidden=True)
def spark_proxy(
    url: str, token_file: Path, listen: str, certificate: Path | None, key: Path | None, metrics: str, with_parent: bool
) -> int:
    """Relay the Spark cells of all users to their own sessions, through one port, until SIGTERM.

    A control plane on one machine runs its own. A site names the one that it runs as `spark: {proxy: grpcs://HOST:PORT}`.
    """
    from tuttilab.scheduler.spark.proxy.server import Settings, run

    if not with_parent:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)
    return run(
        Settings(
            url=url,
            token_file=token_file,
            listen=listen,
            certificate=certificate,
            key=key,
            metrics=metrics,
            with_parent=with_parent,
        )
    )


COMMANDS = (spark, spark_proxy)
