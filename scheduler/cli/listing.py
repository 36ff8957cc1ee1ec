"""`tuttilab jobs`: one line a job that fits the terminal; `--watch` keeps it up to date."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.completing import QUEUE
from tuttilab.scheduler.cli.console import at_prompt, run_time, short, when
from tuttilab.scheduler.domain.errors import Unavailable
from tuttilab.scheduler.domain.model import JobPhase
from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.domain.terminal import plain
from tuttilab.scheduler.domain.words import word

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.domain.wire import JobView

PAUSE_S: Final = 1.0

LONGEST_PAUSE_S: Final = 5.0
_NAME: Final = (32, 18, 12)
"""Most cells of a name, those of it in a narrow terminal, and in a very narrow one."""
_WHY: Final = 24
"""Least cells of the reason; where they are not there, other columns give way."""
_GIVE_WAY: Final = ("PODS", "QUEUE", "OWNER")
_CLEAR: Final = "\x1b[H\x1b[J"


@click.command()
@click.option("--all", "-a", "with_ended", is_flag=True, help="Ended ones too.")
@click.option("--state", metavar="PHASE", help="Only this phase: waiting, running, succeeded, failed …")
@click.option("--group", help="Only this group.")
@click.option("--owner", help="Another user's, or * for everybody's (admins).")
@click.option("--queue", type=QUEUE, help="Only this queue.")
@click.option("--kind", help="Only this kind: batch, distributed, spark …")
@click.option("--text", help="Only where name or id has this in it.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, newest first.")
@click.option("--watch", "-w", is_flag=True, help="Keep the list up to date until Ctrl-C.")
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
    watch: bool,
    as_json: bool,
) -> None:
    """List your jobs, newest first."""
    phase = state.capitalize() if state else None
    # A filter by a terminal phase implies --all.
    with_ended = with_ended or phase in {one.value for one in JobPhase if one.is_terminal}
    if watch and (as_json or not sys.stdout.isatty()):
        raise click.UsageError("--watch redraws a terminal; for a program use `tuttilab jobs --json`.")
    client = console.connected_client()

    def fetch() -> tuple[list[JobView], bool]:
        found: list[JobView] = []
        cursor = None
        while len(found) < limit:
            page = client.jobs(
                all=with_ended,
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
                return found, False
        return found, True

    if watch:
        _watch(client, fetch)
        return
    found, has_more = fetch()
    if as_json:
        console.put_json(found)
        return
    _print(found, "No jobs." if with_ended else "No live jobs; --all shows ended ones too.")
    if has_more:
        console.note(f"There are more; --limit {limit * 10} shows them.")


def _print(found: Sequence[JobView], empty: str) -> None:
    if not found:
        console.note(empty)
    elif sys.stdout.isatty():
        for line in fitted(found, shutil.get_terminal_size().columns, time.time()):
            console.put(line)
    else:
        columns, rows = _cells(found, time.time())
        console.put_table(columns, rows, empty)


def _watch(client: Client, fetch: Callable[[], tuple[list[JobView], bool]]) -> None:
    pause = PAUSE_S
    problem = ""
    found: list[JobView] = []
    try:
        while True:
            try:
                found, _ = fetch()
                pause, problem = PAUSE_S, ""
            except Unavailable as error:
                pause, problem = min(pause * 2, LONGEST_PAUSE_S), f"{error} The list below is older."
            size = shutil.get_terminal_size()
            lines = screen(found, size.columns, size.lines, time.time(), problem)
            sys.stdout.write(_CLEAR + "\n".join(lines))
            sys.stdout.flush()
            time.sleep(pause)
    except KeyboardInterrupt:
        sys.stdout.write("\n")


def screen(found: Sequence[JobView], width: int, height: int, now: float, problem: str = "") -> list[str]:
    """What ``--watch`` draws: a head, and as many jobs as there are lines for."""
    counts = ", ".join(f"{number} {phase}" for phase, number in sorted(Counter(word(job.phase) for job in found).items()))
    head = f"{time.strftime('%H:%M:%S', time.localtime(now))}  {counts or 'no live jobs'}  (Ctrl-C ends)"
    lines = [cut(head, width), *([cut(problem, width)] if problem else [])]
    table = fitted(found, width, now) if found else []
    room = max(2, height - len(lines) - 1)
    if len(table) > room:
        table = [*table[: room - 1], cut(f"… and {len(table) - room + 1} more", width)]
    return [*lines, *table]


def fitted(found: Sequence[JobView], width: int, now: float) -> list[str]:
    """The table, no line of it wider than ``width`` cells."""
    columns, rows = _cells(found, now)
    # A column that says the same for all says nothing.
    shown = [
        name for name in columns if name not in ("OWNER", "QUEUE", "PODS") or len({row[columns.index(name)] for row in rows}) > 1
    ]
    widths = {name: max(cells(name), *(cells(row[columns.index(name)]) for row in rows)) for name in shown}
    longest, shorter, least = _NAME
    widths["NAME"] = min(widths["NAME"], longest)
    for name in (*_GIVE_WAY, "RAN"):
        if name == "RAN":
            _shorten_names(widths, shorter, width)
        if _lacking(widths, width) > 0 and name in widths:
            shown.remove(name)
            del widths[name]
    _shorten_names(widths, least, width)
    widths["WHY"] = max(0, width - _left(widths))
    lines = []
    for row in (columns, *rows):
        texts = [pad(row[columns.index(name)], widths[name]) for name in shown]
        lines.append(cut("  ".join(texts).rstrip(), width))
    return lines


def _shorten_names(widths: dict[str, int], least: int, width: int) -> None:
    widths["NAME"] = max(min(widths["NAME"], least), widths["NAME"] - max(0, _lacking(widths, width)))


def _lacking(widths: dict[str, int], width: int) -> int:
    """Cells that are missing for a reason of some length."""
    return _left(widths) + min(widths["WHY"], _WHY) - width


def _left(widths: dict[str, int]) -> int:
    """Cells of all columns but the last, with two blanks after each."""
    return sum(width + 2 for name, width in widths.items() if name != "WHY")


def _cells(found: Sequence[JobView], now: float) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = ("ID", "NAME", "OWNER", "QUEUE", "PODS", "PHASE", "TIME", "RAN", "WHY")
    rows: list[tuple[str, ...]] = [
        (
            short(job.id),
            plain(job.name),
            job.owner,
            job.queue,
            _size(job),
            word(job.phase),
            when(job.created_at, now),
            run_time(job, now),
            plain(why(job)),
        )
        for job in found
    ]
    return columns, rows


def _size(job: JobView) -> str:
    count = sum(shape.count for shape in job.pods)
    gpus = sum(shape.count * shape.gpus for shape in job.pods)
    return f"{count}" + (f" ({gpus} GPU)" if gpus else "")


def why(job: JobView) -> str:
    """Why the job waits, whether its cluster answers, or how it ended."""
    if job.wait is not None and not job.is_ended:
        return at_prompt(job.wait.sentence)
    if job.unreachable_since is not None and not job.is_ended:
        silent = f"cluster {job.cluster} has not answered for {show_duration(time.time() - job.unreachable_since)}"
        return f"{job.reason}; {silent}" if job.reason else silent
    is_in_reason = not job.exit_code or str(job.exit_code) in job.reason
    return job.reason if is_in_reason else f"{job.reason} (exit code {job.exit_code})".strip()


def cells(text: str) -> int:
    """The width on a terminal: a Chinese character has two cells."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, width: int) -> str:
    """At most ``width`` cells, with an ellipsis where something is left out."""
    if cells(text) <= width:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, max(0, width - 1)).rstrip() + "…" if width > 0 else ""


def pad(text: str, width: int) -> str:
    shown = cut(text, width)
    return shown + " " * (width - cells(shown))


COMMANDS = (jobs,)
