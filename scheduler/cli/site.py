"""`tuttilab quota`, `queues`, `clusters`, `nodes`: live use of each resource against its limit. `audit`: who changed what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import bar, clock
from tuttilab.scheduler.domain.resources import parse_amount, short_name
from tuttilab.scheduler.domain.terminal import plain

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.wire import QueueView

Row = tuple[str, ...]


@click.command()
@console.json_option
def quota(as_json: bool) -> None:
    """Show the use and the limits of your queues."""
    views = [view for view in console.connected_client().quota() if view.mine or as_json]
    if as_json:
        console.put_json(views)
        return
    rows = [row for view in views for row in use_rows(view.name, view)]
    console.put_table(("QUEUE", "RESOURCE", "USED", "GUARANTEED", "MAX", ""), rows, "No queue takes your jobs; ask your admin.")


@click.command()
@console.json_option
def queues(as_json: bool) -> None:
    """Show the tree of queues: use, waiting and running jobs."""
    views = console.connected_client().queues()
    if as_json:
        console.put_json(views)
        return
    rows = [
        (*row[:1], *counts, *row[1:])
        for depth, view in with_depth(views)
        for row, counts in zip(
            use_rows("  " * depth + view.name, view),
            _once((str(view.weight), str(view.running), str(view.waiting))),
            strict=False,
        )
    ]
    columns = ("QUEUE", "WEIGHT", "RUNNING", "WAITING", "RESOURCE", "USED", "GUARANTEED", "MAX", "")
    console.put_table(columns, rows, "There are no queues.")


@click.command()
@console.json_option
def clusters(as_json: bool) -> None:
    """Show the clusters and what is used of them."""
    views = console.connected_client().clusters()
    if as_json:
        console.put_json(views)
        return
    rows = [
        row
        for view in views
        for row in room_rows(
            (view.name, view.kind, str(view.nodes), "reachable" if view.is_reachable else "unreachable"),
            view.used,
            view.allocatable,
            view.others,
        )
    ]
    console.put_table(("CLUSTER", "KIND", "NODES", "STATE", "RESOURCE", "USED", "OF", ""), rows, "There are no clusters.")
    for view in views:
        if view.unreachable_why:
            console.note(view.unreachable_why)


@click.command()
@console.json_option
def nodes(as_json: bool) -> None:
    """Show the nodes and what is used of them."""
    views = console.connected_client().nodes()
    if as_json:
        console.put_json(views)
        return
    rows = [
        row
        for view in views
        for row in room_rows(
            (view.name, view.cluster, "ready" if view.is_ready else "not ready"), view.used, view.allocatable, view.others
        )
    ]
    console.put_table(("NODE", "CLUSTER", "STATE", "RESOURCE", "USED", "OF", ""), rows, "No cluster has shown its nodes yet.")


@click.command()
@click.argument("of", required=False)
@click.option("-n", "--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many, the newest.")
@console.json_option
def audit(of: str | None, limit: int, as_json: bool) -> None:
    """Show who changed what, newest first: an admin sees all, others what is theirs.

    OF is the name of a profile or a DAG, the id of a job or a run, or how it begins; of a deleted one too.
    """
    found = console.connected_client().audit(key=of, limit=limit)
    if as_json:
        console.put_json(found.writes)
        return
    rows = [(clock(write.at), write.by or "-", plain(write.text)) for write in found.writes]
    console.put_table(("WHEN", "WHO", "WHAT"), rows, "Nothing was changed, or not since the journal is kept.")


def use_rows(title: str, view: QueueView) -> list[Row]:
    """A row for each resource of the queue; the title is in the first row only."""
    lines = [
        (
            short_name(use.resource),
            use.used_text,
            use.guaranteed_text if use.guaranteed else "",
            "no limit" if use.max is None else use.max_text,
            bar(use.used, use.max, use.guaranteed),
        )
        for use in view.use
    ]
    return _titled((title,), lines or [("", "nothing", "", "no limit", "")])


def room_rows(
    title: Sequence[str], used: Mapping[str, str], allocatable: Mapping[str, str], others: Mapping[str, str]
) -> list[Row]:
    """A row for each resource; what pods of others have taken stands beside what ours have, and both are in the bar."""
    lines = []
    for key, whole in allocatable.items():
        text, theirs = used.get(key, "0"), others.get(key, "0")
        taken = parse_amount(key, text, key) + parse_amount(key, theirs, key)
        shown = text if theirs == "0" else f"{text} + {theirs} of others"
        lines.append((short_name(key), shown, whole, bar(taken, parse_amount(key, whole, key))))
    return _titled(title, lines or [("", "", "", "")])


def _titled(title: Sequence[str], lines: Sequence[Row]) -> list[Row]:
    return [(*(title if first else [""] * len(title)), *line) for first, line in zip(_first(), lines, strict=False)]


def _first() -> Iterator[bool]:
    yield True
    while True:
        yield False


def _once(cells: Row) -> Iterator[Row]:
    yield cells
    while True:
        yield ("",) * len(cells)


def with_depth(views: Sequence[QueueView]) -> Iterable[tuple[int, QueueView]]:
    """Every queue after its parent, with its depth."""

    def below(parent: str | None, depth: int) -> Iterator[tuple[int, QueueView]]:
        for view in views:
            if view.parent == parent:
                yield depth, view
                yield from below(view.name, depth + 1)

    known = {view.name for view in views}
    # A caller who may not see a parent still sees the queue.
    orphans = [view for view in views if view.parent is not None and view.parent not in known]
    yield from below(None, 0)
    for orphan in orphans:
        yield 0, orphan
        yield from below(orphan.name, 1)


COMMANDS = (quota, queues, clusters, nodes, audit)
