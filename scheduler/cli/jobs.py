"""The commands about one job: job, logs, cancel, retry, delete, explain. `listing` has the list of all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.completing import JOB
from tuttilab.scheduler.cli.console import at_prompt, clock, run_time, short
from tuttilab.scheduler.cli.listing import why
from tuttilab.scheduler.domain.asked_size import asked_workers
from tuttilab.scheduler.domain.words import kept_text, overtaken_text, passed_text, pod_word, start_text, word

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.domain.wire import JobView

LEFT_SHOWN = 20
"""Of the members that an attempt gave back, the newest."""


@click.command()
@click.argument("job_id", metavar="JOB", type=JOB)
@click.option("--export", is_flag=True, help="Print the manifest that submits the same job again.")
@click.option(
    "--download",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Fetch its outputs into a folder.",
)
@console.json_option
def job(job_id: str, export: bool, download: Path | None, as_json: bool) -> None:
    """Show one job: its size, attempts and pods. JOB is a name, the beginning of an id, or `last`."""
    if export + (download is not None) + as_json > 1:
        raise click.UsageError("--export, --download and --json print different things: give one of them.")
    client = console.connected_client()
    if export:
        console.put(client.manifest(job_id), nl=False)
        return
    view = client.job(job_id)
    if download is not None:
        _download(client, view, download)
        return
    if as_json:
        console.put_json(view)
        return
    facts = [
        ("id", view.id),
        ("name", view.name),
        ("owner", f"{view.owner}, group {view.group}"),
        ("runs as", view.run_as or ""),
        ("queue", f"{view.queue}, priority {view.priority}"),
        ("kind", view.kind),
        ("phase", word(view.phase)),
        ("why", why(view)),
        ("command", " ".join(view.command)),
        ("pods", "; ".join(f"{p.count} {p.role}: {p.cpus} CPU, {p.memory}, {p.gpus} GPU" for p in view.pods)),
        ("asks for", _asked(view)),
        ("after", ", ".join(short(one) for one in view.after)),
        ("retry of", short(view.retry_of) if view.retry_of else ""),
        ("submitted", clock(view.created_at)),
        ("started", clock(view.started_at)),
        ("ended", clock(view.ended_at)),
        ("ran", run_time(view)),
        ("exit code", "" if view.exit_code is None else str(view.exit_code)),
        ("outputs", _outputs(view)),
    ]
    for name, text in facts:
        if text:
            console.put(f"{name:<10} {text}")
    rows = [
        (
            str(one.number),
            word(one.phase),
            str(pod.rank),
            pod.role,
            pod.node,
            pod_word(pod.phase),
            _code(pod.exit_code),
            ", ".join(text for text in (pod.reason or one.reason, pod.given_back) if text),
        )
        for one in view.attempts
        for pod in (*one.left[-LEFT_SHOWN:], *one.pods)
    ]
    if rows:
        console.put()
        console.put_table(("ATTEMPT", "PHASE", "RANK", "ROLE", "NODE", "POD", "EXIT", "REASON"), rows, "")


def _asked(view: JobView) -> str:
    text = view.attempts[-1].asks_for if view.attempts else ""
    return asked_workers(text) if text else ""


def _outputs(view: JobView) -> str:
    names = sorted({name for pod in (view.attempts[-1].pods if view.attempts else ()) for name in pod.outputs})
    return f"{', '.join(names)}; `tuttilab job {short(view.id)} --download FOLDER` fetches them" if names else ""


def _download(client: Client, view: JobView, folder: Path) -> None:
    from tuttilab.scheduler.client.downloads import download

    saved = download(client, view, folder)
    for path in saved:
        console.put(str(path))
    if not saved:
        console.note(f"Job {short(view.id)} {view.name} left no outputs.")


def _code(exit_code: int | None) -> str:
    return "" if exit_code is None else str(exit_code)


@click.command()
@click.argument("job_id", metavar="JOB", type=JOB)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@click.option("--rank", type=click.IntRange(-1), help="Only this rank (-1: the master); else all, each line with its rank.")
@click.option("--from", "start", type=click.IntRange(0), default=0, metavar="LINE", help="Begin at this line, counted from 0.")
@click.option("--tail", "-n", type=click.IntRange(0), metavar="N", help="Begin with the last N lines of each rank.")
@click.option("--attempt", type=click.IntRange(1), help="An earlier attempt than the newest.")
def logs(job_id: str, follow: bool, rank: int | None, start: int, tail: int | None, attempt: int | None) -> None:
    """Print what a job printed."""
    from tuttilab.scheduler.cli.follow import print_log

    if tail is not None and start:
        raise click.UsageError("--from and --tail both say where to begin: give one of them.")
    print_log(console.connected_client(), job_id, rank=rank, start=start, tail=tail, attempt=attempt, follow=follow)


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True, type=JOB)
def cancel(job_ids: tuple[str, ...]) -> None:
    """Cancel jobs; a running one gets its grace period."""
    client = console.connected_client()
    for job_id in job_ids:
        view = client.cancel(job_id)
        console.put(f"{short(view.id)} {view.name}: {word(view.phase)}")


@click.command()
@click.argument("job_id", metavar="JOB", type=JOB)
@console.json_option
def retry(job_id: str, as_json: bool) -> None:
    """Submit an ended job again; prints the new id."""
    view = console.connected_client().retry(job_id)
    console.put_json(view) if as_json else console.put(view.id)


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True, type=JOB)
def delete(job_ids: tuple[str, ...]) -> None:
    """Delete ended jobs with their logs and results."""
    client = console.connected_client()
    for job_id in job_ids:
        view = client.job(job_id)
        client.delete(view.id)
        console.put(f"{short(view.id)} {view.name}: deleted")


@click.command()
@click.argument("job_id", metavar="JOB", type=JOB)
@console.json_option
def explain(job_id: str, as_json: bool) -> None:
    """Show why a job waits, and when it will probably start."""
    client = console.connected_client()
    wait = client.explain(job_id)
    if as_json:
        console.put_json(wait)
        return
    if wait is None:
        view = client.job(job_id)
        reason = why(view)
        console.put(
            f"{short(view.id)} {view.name} does not wait: it is {word(view.phase).lower()}" + (f" ({reason})." if reason else ".")
        )
        return
    console.put(at_prompt(wait.sentence))
    if wait.queue is not None or wait.place:
        console.put(f"place     {wait.place}" + (f" in queue {wait.queue}" if wait.queue else ""))
    if wait.short:
        console.put("short of  " + ", ".join(f"{amount} {key}" for key, amount in wait.short.items()))
    for number, holder in enumerate(wait.held_by):
        console.put(f"{'held by' if not number else '':<10}{at_prompt(holder)}")
    start = start_text(wait.earliest, wait.latest, time.time())
    if start:
        console.put(f"start     {start.removeprefix('starts ')}, from {wait.basis}")
    elif wait.basis:
        console.put(f"start     {at_prompt(wait.basis).removeprefix('no start is told: ')}")
    if wait.kept is not None:
        console.put(f"kept      {at_prompt(kept_text(wait.kept, time.time()))}")
    for number, one in enumerate(wait.passed):
        console.put(f"{'passed by' if not number else '':<10}{at_prompt(passed_text(one, time.time()))}")
    if overtaken := overtaken_text(wait):
        console.put(f"overtaken {overtaken}")
    if wait.rule:
        console.put(f"rule      {at_prompt(wait.rule)}")


COMMANDS = (job, logs, cancel, retry, delete, explain)
