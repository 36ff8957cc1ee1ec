"""`tuttilab jobs`, and what is done to one job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import ago, clock, short, took
from tuttilab.scheduler.model import JobPhase

if TYPE_CHECKING:
    from tuttilab.scheduler.wire import JobView


@click.command()
@click.option("--all", "-a", "with_ended", is_flag=True, help="Ended ones too.")
@click.option("--state", metavar="PHASE", help="Only this phase: Queued, Running, Succeeded, Failed …")
@click.option("--group", help="Only this group.")
@click.option("--owner", help="Another user's, or * for everybody's (admins).")
@click.option("--queue", help="Only this queue.")
@click.option("--kind", help="Only this kind: batch, distributed, spark …")
@click.option("--text", help="Only where name or id has this in it.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, newest first.")
@console.json_option
def jobs(
    with_ended: bool,
    state: str | None,
    group: str | None,
    owner: str | None,
    queue: str | None,
    kind: str | None,
    text: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List your jobs, newest first."""
    phase = state.capitalize() if state else None
    # Whoever asks for a phase that ends a job means ended jobs.
    is_of_ended = phase in {one.value for one in JobPhase if one.is_terminal}
    client = console.connected()
    found: list[JobView] = []
    cursor = None
    while len(found) < limit:
        page = client.jobs(
            all=with_ended or is_of_ended,
            state=phase,
            group=group,
            owner=owner,
            queue=queue,
            kind=kind,
            text=text,
            limit=min(limit - len(found), 100),
            cursor=cursor,
        )
        found += page.jobs
        cursor = page.next
        if cursor is None:
            break
    if as_json:
        console.put_json(found)
        return
    rows = [
        (short(job.id), job.name, job.owner, job.queue, _size(job), job.phase, ago(job.created_at), took(job), _why(job))
        for job in found
    ]
    columns = ("ID", "NAME", "OWNER", "QUEUE", "PODS", "PHASE", "AGE", "RAN", "WHY")
    console.put_table(columns, rows, "No jobs." if with_ended or is_of_ended else "No live jobs; --all shows ended ones too.")
    if cursor is not None:
        console.note(f"There are more; --limit {limit * 10} shows them.")


def _size(job: JobView) -> str:
    count = sum(shape.count for shape in job.pods)
    gpus = sum(shape.count * shape.gpus for shape in job.pods)
    return f"{count}" + (f" ({gpus} GPU)" if gpus else "")


def _why(job: JobView) -> str:
    if job.wait is not None and not job.is_ended:
        return job.wait.sentence
    is_said = not job.exit_code or str(job.exit_code) in job.reason
    return job.reason if is_said else f"{job.reason} (exit code {job.exit_code})".strip()


@click.command()
@click.argument("job_id", metavar="ID")
@console.json_option
def job(job_id: str, as_json: bool) -> None:
    """Show one job: its size, attempts and pods."""
    view = console.connected().job(job_id)
    if as_json:
        console.put_json(view)
        return
    facts = [
        ("id", view.id),
        ("name", view.name),
        ("owner", f"{view.owner}, group {view.group}"),
        ("queue", f"{view.queue}, priority {view.priority}"),
        ("kind", view.kind),
        ("phase", view.phase),
        ("why", _why(view)),
        ("command", " ".join(view.command)),
        ("pods", "; ".join(f"{p.count} {p.role}: {p.cpus} CPU, {p.memory}, {p.gpus} GPU" for p in view.pods)),
        ("after", ", ".join(short(one) for one in view.after)),
        ("retry of", short(view.retry_of) if view.retry_of else ""),
        ("submitted", clock(view.created_at)),
        ("started", clock(view.started_at)),
        ("ended", clock(view.ended_at)),
        ("ran", took(view)),
        ("exit code", "" if view.exit_code is None else str(view.exit_code)),
    ]
    for name, text in facts:
        if text:
            click.echo(f"{name:<10} {text}")
    rows = [
        (str(one.number), one.phase, str(pod.rank), pod.role, pod.node, pod.phase, _code(pod.exit_code), pod.reason or one.reason)
        for one in view.attempts
        for pod in one.pods
    ]
    if rows:
        click.echo()
        console.put_table(("ATTEMPT", "PHASE", "RANK", "ROLE", "NODE", "POD", "EXIT", "REASON"), rows, "")


def _code(exit_code: int | None) -> str:
    return "" if exit_code is None else str(exit_code)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@click.option("--rank", type=click.IntRange(-1), help="Only this rank (-1: the master); else all, each line with its rank.")
@click.option("--from", "start", type=click.IntRange(0), default=0, metavar="LINE", help="Begin at this line, counted from 0.")
@click.option("--attempt", type=click.IntRange(1), help="An earlier attempt than the newest.")
def logs(job_id: str, follow: bool, rank: int | None, start: int, attempt: int | None) -> None:
    """Print what a job printed."""
    from tuttilab.scheduler.cli.follow import print_log

    print_log(console.connected(), job_id, rank=rank, start=start, attempt=attempt, follow=follow)


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
def cancel(job_ids: tuple[str, ...]) -> None:
    """End jobs, politely first."""
    client = console.connected()
    for job_id in job_ids:
        view = client.cancel(job_id)
        click.echo(f"{short(view.id)} {view.name}: {view.phase}")


@click.command()
@click.argument("job_id", metavar="ID")
@console.json_option
def retry(job_id: str, as_json: bool) -> None:
    """Submit an ended job once more; prints the new id."""
    view = console.connected().retry(job_id)
    console.put_json(view) if as_json else click.echo(view.id)


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
def delete(job_ids: tuple[str, ...]) -> None:
    """Give up ended jobs with their logs and results."""
    client = console.connected()
    for job_id in job_ids:
        client.delete(job_id)
        click.echo(f"{job_id}: deleted")


@click.command()
@click.argument("job_id", metavar="ID")
@console.json_option
def explain(job_id: str, as_json: bool) -> None:
    """Say why a job waits, and until when."""
    client = console.connected()
    wait = client.explain(job_id)
    if as_json:
        console.put_json(wait)
        return
    if wait is None:
        view = client.job(job_id)
        reason = _why(view)
        click.echo(f"{short(view.id)} {view.name} does not wait: it is {view.phase}" + (f" ({reason})." if reason else "."))
        return
    click.echo(wait.sentence)
    if wait.queue is not None or wait.place:
        click.echo(f"place     {wait.place}" + (f" in queue {wait.queue}" if wait.queue else ""))
    if wait.short:
        click.echo("short of  " + ", ".join(f"{amount} {key}" for key, amount in wait.short.items()))
    if wait.blockers:
        click.echo("held by   " + ", ".join(short(one) for one in wait.blockers))
    if wait.estimated_start is not None:
        click.echo(f"start     {clock(wait.estimated_start)}" + (f" ({wait.basis})" if wait.basis else ""))


COMMANDS = (jobs, job, logs, cancel, retry, delete, explain)
