"""How the commands speak: JSON for programs, tables and bars for people, notes on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tuttilab.scheduler.resources import show_duration

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client
    from tuttilab.scheduler.wire import JobView

BAR_CELLS = 20

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")


def note(text: str) -> None:
    """To the person, not to what reads the output."""
    click.echo(text, err=True)


def connected() -> Client:
    """The service this user has, started first when it is the local one, and told what a dead one left behind."""
    from tuttilab.scheduler import discovery
    from tuttilab.scheduler.client import connect

    if not os.environ.get("TUTTILAB_URL"):
        discovery.ensure_started(os.environ, say=note)
    return connect()


# Any: a view of `wire`, or what `json` takes.
def put_json(value: Any) -> None:
    from dataclasses import is_dataclass

    from tuttilab.scheduler.wire import to_data

    def plain(item: Any) -> Any:
        if is_dataclass(item):
            return to_data(item)
        return [plain(one) for one in item] if isinstance(item, (list, tuple)) else item

    click.echo(json.dumps(plain(value), indent=2))


def put_table(columns: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
    """Columns separated by two blanks. ``nothing`` is said on stderr when there is no row."""
    lines = list(rows)
    if not lines:
        note(nothing)
    elif sys.stdout.isatty():
        _draw(columns, lines)
    else:
        # On a pipe nothing is cut off to fit a terminal that is not there.
        widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
        for line in (columns, *lines):
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, emoji=False).print(table)


def bar(used: int, whole: int | None, mark: int = 0) -> str:
    """``used`` of ``whole`` in 20 cells, with ``|`` where ``mark`` (what is guaranteed) ends; blank without a whole."""
    if not whole:
        return ""
    encoding = (sys.stdout.encoding or "").lower()
    full, empty = ("█", "░") if encoding.startswith("utf") else ("#", ".")
    # Whatever is used shows, and only what is full looks full.
    cells = min(BAR_CELLS, -(-used * BAR_CELLS // whole)) if used < whole else BAR_CELLS
    if 0 < used < whole:
        cells = min(cells, BAR_CELLS - 1)
    text = full * cells + empty * (BAR_CELLS - cells)
    at = mark * BAR_CELLS // whole
    return text[:at] + "|" + text[at:] if 0 < at < BAR_CELLS else text


def ago(at: float | None) -> str:
    """``3m05s`` for what was that long ago; empty for what never was."""
    return "" if at is None else show_duration(max(0.0, time.time() - at))


def clock(at: float | None) -> str:
    """Local date and time, for people."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def took(job: JobView) -> str:
    """How long the job runs or ran; empty before it started."""
    if job.started_at is None:
        return ""
    return show_duration((job.ended_at if job.ended_at is not None else time.time()) - job.started_at)


def counted(count: int, what: str) -> str:
    """``1 job``, ``2 jobs``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def short(job_id: str) -> str:
    return job_id[:8]


def pairs(option: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, str]]:
    """Callback of an option that is given as KEY=VALUE, several times."""

    def split(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
        for value in values:
            if not value.partition("=")[1] or not value.partition("=")[0]:
                raise click.UsageError(f"{option}: {value!r} is not KEY=VALUE.")
        return dict(value.split("=", 1) for value in values)

    return split
