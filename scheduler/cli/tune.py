"""`tuttilab scheduler tune | policy`: the parameters of the decision rule, and which would have been better."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.local import config_option
from tuttilab.scheduler.domain.errors import BadInput, NotFound
from tuttilab.scheduler.runtime import discovery

if TYPE_CHECKING:
    from tuttilab.scheduler.config.model import Config
    from tuttilab.scheduler.domain.wire import PolicyView
    from tuttilab.scheduler.simulation.past import Past
    from tuttilab.scheduler.simulation.tune import Proposal


@click.command()
@config_option
@click.option(
    "--days", type=click.IntRange(1, 366), help="How much of the past is replayed; default: tune.days of the file, else 28."
)
@click.option(
    "--limit", metavar="TIME", help="After how long it ends with what it has, such as 10m; default: tune.limit, else 30m."
)
@click.option(
    "--least", "least_jobs", type=click.IntRange(1, 1_000_000), help="Fewer jobs are too little to judge by; default: 500."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write tables and bars as one HTML page.")
@click.option("--apply", "applies", is_flag=True, help="Set what is proposed, if anything is, from the next decision on.")
@click.option("--reset", is_flag=True, help="Replay nothing; put back what the configuration says.")
@console.json_option
def tune(
    config: Path | None,
    days: int | None,
    limit: str | None,
    least_jobs: int | None,
    plot: Path | None,
    applies: bool,
    reset: bool,
    as_json: bool,
) -> None:
    """Replay the site's past under other parameters of the decision rule, and propose what would have been better for whom.

    Candidates are chosen on the first part of the past and judged on the rest, against the rule in force and against EASY
    backfill with the same predictions; what is below EASY there is never proposed. The service may run meanwhile.
    """
    from tuttilab.scheduler.config.load import load_config
    from tuttilab.scheduler.domain.resources import parse_duration

    if reset:
        if applies or plot is not None:
            raise BadInput("--reset: it replays nothing; expected it without --apply and --plot.")
        _put_policy(console.connected_client().set_policy({}, "reset"), as_json)
        return
    if plot is not None and not plot.parent.is_dir():
        raise BadInput(f"{plot}: the folder {plot.parent} does not exist; expected one that does.")
    # Before minutes of replays: nobody wants to learn only then that nothing can be set.
    client = console.connected_client() if applies else None
    config = config or _running_config()
    checked = load_config(config, discovery.state_dir(os.environ), os.environ)
    settings = replace(
        checked.tune,
        days=days or checked.tune.days,
        limit_s=parse_duration(limit, "--limit") if limit else checked.tune.limit_s,
        least_jobs=least_jobs or checked.tune.least_jobs,
    )
    found = _propose(replace(checked, tune=settings), lambda text: console.note(text))
    _put(found, plot, as_json)
    if client is not None and found.values is not None:
        view = client.set_policy(dict(found.values), found.text)
        if not as_json:
            console.put(f"In force from the next decision on: {view.text}.")


def _running_config() -> Path | None:
    """Of the control plane of this state folder, so that nobody tunes another database by leaving --config out."""
    running = discovery.find(discovery.state_dir(os.environ)).runtime
    return Path(running.config) if running is not None and running.config else None


def _propose(config: Config, progress: Callable[[str], None]) -> Proposal:
    from tuttilab.scheduler.runtime.garbage_collection import collect_seldom
    from tuttilab.scheduler.simulation.tune import tune as run

    past = asyncio.run(_read(config, progress))
    collect_seldom()
    return run(past, bounds=config.tune.bounds, least_jobs=config.tune.least_jobs, limit_s=config.tune.limit_s, progress=progress)


async def _read(config: Config, progress: Callable[[str], None]) -> Past:
    from tuttilab.scheduler.cli.service import without_password
    from tuttilab.scheduler.simulation.past import read_past
    from tuttilab.scheduler.store.sql import SqlStore

    store = SqlStore(config.store.url)
    if not await store.attach():
        raise NotFound(
            f"There is no database {without_password(config.store.url)} of this version yet; the first start makes or upgrades it."
        )
    try:
        await store.pin_snapshot()
        return await read_past(store, config.tune.days, progress)
    finally:
        await store.close()


def _put(found: Proposal, plot: Path | None, as_json: bool) -> None:
    from tuttilab.scheduler.domain.wire import to_json
    from tuttilab.scheduler.simulation.tune_report import config_lines, lines, page

    if plot is not None:
        plot.write_text(page(found), encoding="utf-8")
    if as_json:
        console.put(to_json(found).decode())
        return
    for line in lines(found):
        console.put(line)
    for line in config_lines(found):
        console.put(f"To fix it, put this into tuttilab.yaml and reload:\n  {line}")


@click.command()
@console.json_option
def policy(as_json: bool) -> None:
    """Show which parameters of the decision rule are in force, since when, by whom and why."""
    _put_policy(console.connected_client().policy(), as_json)


def _put_policy(view: PolicyView, as_json: bool) -> None:
    from tuttilab.scheduler.core.rows.tuning import parameters, show
    from tuttilab.scheduler.domain.terminal import plain

    if as_json:
        console.put_json(view)
        return
    rows = [
        (name, show(view.values.get(name, one.built_in)), show(one.built_in), "configuration" if name in view.fixed else "")
        for name, one in parameters().items()
    ]
    console.put_table(("PARAMETER", "IN FORCE", "BUILT IN", "FIXED BY"), rows, "There are no parameters.")
    if view.since is not None:
        why = f": {plain(view.why)}" if view.why else ""
        console.put(f"since {console.clock(view.since)} by {plain(view.by)}{why}")


def add_to(group: click.Group) -> None:
    group.add_command(tune)
    group.add_command(policy)
