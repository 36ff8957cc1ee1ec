"""Output of the commands: JSON for programs, tables and bars for people, notes on stderr; and the client that they use."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.domain.terminal import clean, plain

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.domain.wire import JobView

BAR_CELLS = 20
_MAGIC = re.compile(r"`%(?=spark stop)")

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")


def put(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print to stdout or stderr. What may hold the words of a job goes this way: a terminal gets no control sequences of it."""
    stream = sys.stderr if err else sys.stdout
    click.echo(clean(text) if stream.isatty() else text, err=err, nl=nl)


def note(text: str) -> None:
    """Print to stderr, for the user and not for a program that reads the output."""
    put(text, err=True)


def connected_client() -> Client:
    """A client of this user's service. A local service is started first; a note says what a crashed one left behind."""
    from tuttilab.scheduler.client import connect
    from tuttilab.scheduler.runtime import discovery

    if not os.environ.get("TUTTILAB_URL"):
        discovery.ensure_started(os.environ, say=note)
    return connect(say=note)


# Any: a view of `wire`, or what `json` can write.
def put_json(value: Any) -> None:
    from dataclasses import is_dataclass

    from tuttilab.scheduler.domain.wire import to_data

    def data(item: Any) -> Any:
        if is_dataclass(item):
            return to_data(item)
        return [data(one) for one in item] if isinstance(item, (list, tuple)) else item

    click.echo(json.dumps(data(value), indent=2))


def put_table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty_note: str) -> None:
    """Print a table, its columns separated by two blanks. ``empty_note`` goes to stderr when there is no row."""
    lines = list(rows)
    if not lines:
        note(empty_note)
    elif sys.stdout.isatty():
        _draw(columns, lines)
    else:
        # On a pipe nothing is cut off to fit a terminal's width.
        widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
        for line in (columns, *lines):
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*map(plain, row))
    Console(highlight=False, markup=False, emoji=False).print(table)


def bar(used: int, whole: int | None, mark: int = 0) -> str:
    """``used`` of ``whole`` in 20 cells, with ``|`` where ``mark`` (what is guaranteed) ends; blank without a whole."""
    if not whole:
        return ""
    encoding = (sys.stdout.encoding or "").lower()
    full, empty = ("█", "░") if encoding.startswith("utf") else ("#", ".")
    # Any use fills at least one cell, and only full use fills all.
    cells = min(BAR_CELLS, -(-used * BAR_CELLS // whole)) if used < whole else BAR_CELLS
    if 0 < used < whole:
        cells = min(cells, BAR_CELLS - 1)
    text = full * cells + empty * (BAR_CELLS - cells)
    at = mark * BAR_CELLS // whole
    return text[:at] + "|" + text[at:] if 0 < at < BAR_CELLS else text


def ago(at: float | None) -> str:
    """The time since ``at``, such as ``3m05s``; empty for None."""
    return "" if at is None else show_duration(max(0.0, time.time() - at))


def clock(at: float | None) -> str:
    """Local date and time; empty for None."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def when(at: float, now: float) -> str:
    """The time of day, ``14:05``; of another day ``Nov 28``, of another year ``2025-11-28``."""
    then, today = time.localtime(at), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%b %d" if then.tm_year == today.tm_year else "%Y-%m-%d", then)


def run_time(job: JobView, now: float | None = None) -> str:
    """How long the job has run; empty before it started."""
    if job.started_at is None:
        return ""
    return show_duration((job.ended_at or now or time.time()) - job.started_at)


def count_of(count: int, what: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def short(job_id: str) -> str:
    return job_id[:8]


def at_prompt(text: str) -> str:
    """A reason with the commands of a prompt in the place of those of a notebook: both tell the same."""
    return _MAGIC.sub("`tuttilab ", text)


def pairs(option: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, str]]:
    """The callback of an option that takes KEY=VALUE and may be repeated."""

    def split(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
        for value in values:
            if not value.partition("=")[1] or not value.partition("=")[0]:
                raise click.UsageError(f"{option}: {value!r} is not KEY=VALUE.")
        return dict(value.split("=", 1) for value in values)

    return split
