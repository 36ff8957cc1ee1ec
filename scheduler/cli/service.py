"""`tuttilab scheduler serve | check | verify`: the service itself, for whoever runs it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tuttilab.scheduler import discovery
from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.local import config_option
from tuttilab.scheduler.errors import Conflict, NotFound, StoreError, Unavailable


@click.group()
def scheduler() -> None:
    """Run the service, check its configuration, verify its database."""


@scheduler.command()
@config_option
def serve(config: Path | None) -> int:
    """Run the control plane here until SIGTERM; `tuttilab up` runs it in the background."""
    from tuttilab.scheduler.serve import serve as run

    return run(config, os.environ, in_foreground=True)


@scheduler.command()
@config_option
@console.json_option
def check(config: Path | None, as_json: bool) -> None:
    """Say what a configuration means, without starting anything.

    A tuttilab.yaml may have the keys store, artifacts, auth, listen, clusters, queues, defaults and limits; what it leaves out is
    as in the built-in configuration. Variables such as TUTTILAB_LISTEN_PORT override its values.
    """
    from tuttilab.scheduler.config import load_config

    state = discovery.state_dir(os.environ)
    checked = load_config(config, state, os.environ)
    if as_json:
        console.put_json(checked)
        return
    click.echo(f"{config or 'The built-in configuration'} is sound.")
    click.echo(f"store     {checked.store.url}")
    click.echo(f"artifacts {checked.artifacts.url}")
    click.echo(f"listen    {checked.listen.host}:{checked.listen.port or 'any free port'}")
    for cluster in checked.clusters:
        nodes = "what this machine has" if cluster.nodes is None else ""
        click.echo(f"cluster   {cluster.name} ({cluster.kind}): {nodes}".rstrip())
        for node in cluster.nodes or ():
            click.echo(f"  node    {node.name}: {node.allocatable}")
    for queue in checked.queues:
        parts = [f"below {queue.parent}" if queue.parent else "the root", f"weight {queue.weight}"]
        parts += [f"guaranteed {queue.guaranteed}"] if queue.guaranteed else []
        parts += [f"max {queue.max}" if queue.max else "no limit"]
        click.echo(f"queue     {queue.name}: {', '.join(parts)}" + (" (default)" if queue.name == checked.defaults.queue else ""))


@scheduler.command()
@config_option
def verify(config: Path | None) -> None:
    """Replay the journal and compare it with the rows."""
    import asyncio

    from tuttilab.scheduler.config import load_config

    state = discovery.state_dir(os.environ)
    running = discovery.find(state).runtime
    busy = f"The control plane {f'(pid {running.pid}) ' if running else ''}uses the database; run `tuttilab down` first."
    url = load_config(config, state, os.environ).store.url
    if not Path(url.removeprefix("sqlite:///")).exists():
        raise NotFound(f"There is no database {url} yet; the first start makes it.")
    try:
        # Who opens the database takes over leadership from whoever has it.
        with discovery.locked(state / "control.lock", 0.5):
            events, jobs, found = asyncio.run(_verify(url))
    except Unavailable as error:
        raise Conflict(busy) from error
    for sentence in found:
        click.echo(sentence)
    if found:
        raise StoreError(f"{len(found)} of {jobs} jobs differ from the journal; keep a copy of the database and report it.")
    click.echo(f"{events} events replayed: the rows of {jobs} jobs are what the journal says.")


async def _verify(url: str) -> tuple[int, int, list[str]]:
    from tuttilab.scheduler.store.sql import SqlStore
    from tuttilab.scheduler.verify import differences, replay

    store = SqlStore(url)
    await store.open()
    try:
        replayed = await replay(store)
        found = [sentence async for sentence in differences(store, replayed)]
        return replayed.events, len(replayed.jobs), found
    finally:
        await store.close()


COMMANDS = (scheduler,)
