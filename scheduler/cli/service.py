"""`tuttilab scheduler serve | check | reload | tune | verify | backup | restore`: operation of the service itself."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tuttilab.scheduler.cli import console, tune
from tuttilab.scheduler.cli.local import config_option
from tuttilab.scheduler.domain.errors import Conflict, EnvironmentProblem, NotFound, StoreError, Unavailable
from tuttilab.scheduler.runtime import discovery

if TYPE_CHECKING:
    from tuttilab.scheduler.store.base import Store

T = TypeVar("T")


@click.group()
def scheduler() -> None:
    """Run the service, check its configuration, tune its decisions; verify, back up and restore its database."""


@scheduler.command()
@config_option
def serve(config: Path | None) -> int:
    """Run the control plane here until SIGTERM; `tuttilab up` runs it in the background."""
    from tuttilab.scheduler.server.serve import serve as run

    return run(config, os.environ, in_foreground=True)


@scheduler.command()
@config_option
@console.json_option
def check(config: Path | None, as_json: bool) -> None:
    """Check a configuration and show what it means, without starting anything.

    A tuttilab.yaml may have the keys store, artifacts, auth, listen, clusters, queues, storages, sidecars,
    defaults, limits, policy, tune and spark; missing ones are as in
    the built-in configuration. Variables such as TUTTILAB_LISTEN_PORT override its values.
    """
    from tuttilab.scheduler.config.load import load_config
    from tuttilab.scheduler.config.resources import unchecked_resources

    state = discovery.state_dir(os.environ)
    checked = load_config(config, state, os.environ)
    unchecked = unchecked_resources(checked.queues, checked.clusters)
    if checked.auth.key_file is not None:
        unchecked += _check_key(checked.auth.key_file, state)
    if as_json:
        for sentence in unchecked:
            console.note(f"unchecked: {sentence}")
        console.put_json(checked)
        return
    console.put(f"{config or 'The built-in configuration'} is sound.")
    console.put(f"store     {without_password(checked.store.url)}")
    console.put(f"artifacts {checked.artifacts.url}")
    console.put(f"listen    {checked.listen.host}:{checked.listen.port or 'any free port'}")
    for cluster in checked.clusters:
        nodes = "what this machine has" if cluster.nodes is None else ""
        console.put(f"cluster   {cluster.name} ({cluster.kind}): {nodes}".rstrip())
        for node in cluster.nodes or ():
            taints = "".join(f", taint {taint.key}={taint.value}:{taint.effect}" for taint in node.taints)
            console.put(f"  node    {node.name}: {node.allocatable}{taints}")
    for queue in checked.queues:
        parts = [f"below {queue.parent}" if queue.parent else "the root", f"weight {queue.weight}"]
        parts += [f"guaranteed {queue.guaranteed}"] if queue.guaranteed else []
        parts += [f"max {queue.max.as_limits()}" if queue.max else "no limit"]
        console.put(f"queue     {queue.name}: {', '.join(parts)}" + (" (default)" if queue.name == checked.defaults.queue else ""))
    for sentence in unchecked:
        console.put(f"unchecked {sentence}")


def _check_key(file: str, state: Path) -> tuple[str, ...]:
    """A sentence where the caller may not read it. Raises EnvironmentProblem where the control plane could not start with it."""
    from tuttilab.scheduler.service.launch_plans import Secrets

    try:
        Secrets.of(file, state)
    except EnvironmentProblem as problem:
        if isinstance(problem.__cause__, PermissionError):
            return (f"auth.key_file: {file} is not for you to read; the user of the control plane must be able to",)
        raise
    return ()


@scheduler.command()
@click.option("--yes", is_flag=True, help="Loosen limits without a question, as in a script.")
@console.json_option
def reload(yes: bool, as_json: bool) -> int:
    """Have the control plane read its configuration file again, while jobs run.

    That is queues, policy, tune, defaults, storages and sidecars. Running jobs go on. A file that is invalid, that changes more
    than these, or that leaves out a queue with live jobs is refused as a whole. Limits that would be gone or larger are named,
    and nothing is changed before you have agreed.
    """
    client = console.connected_client()
    plan = client.reload(dry_run=True)
    may_loosen = yes
    if plan.loosened and not yes and sys.stdin.isatty():
        for sentence in plan.loosened:
            console.note(f"loosens  {sentence}")
        if not click.confirm("Is that meant?", err=True):
            console.note("Nothing was changed.")
            return Conflict.exit_code
        may_loosen = True
    view = client.reload(accept=plan.loosened if may_loosen else ())
    if as_json:
        console.put_json(view)
        return 0
    for change in view.changes or ("Nothing changed.",):
        console.put(change)
    for sentence in view.unchecked:
        console.note(f"unchecked: {sentence}")
    return 0


@scheduler.command()
@config_option
@click.option("--decisions", is_flag=True, help="Also repeat every scheduling decision, and compare it with the journal.")
def verify(config: Path | None, decisions: bool) -> None:
    """Replay the journal from its last checkpoint and compare the result with the rows; the service may run meanwhile."""
    import asyncio

    url = _store_url(config)
    events, jobs, found = asyncio.run(_attached(url, _rows_that_differ))
    for sentence in found:
        console.put(sentence)
    if found:
        raise StoreError(
            f"{console.count_of(len(found), 'difference')} between the rows of {jobs} jobs, with all that belongs to them, and the "
            "journal; keep a copy of the database and report it."
        )
    console.put(f"{events} events replayed: the rows of {jobs} jobs are what the journal says.")
    if decisions:
        places, others = asyncio.run(_attached(url, _decisions_that_differ))
        for sentence in others:
            console.put(sentence)
        if others:
            raise StoreError(
                f"{len(others)} of {places} decisions are not what this version decides; if it took them itself, report it."
            )
        console.put(f"{places} decisions are those that the scheduler takes there again.")


async def _attached(url: str, read: Callable[[Store], Awaitable[T]]) -> T:
    from tuttilab.scheduler.store.sql import SqlStore

    store = SqlStore(url)
    if not await store.attach():
        raise NotFound(f"There is no database {without_password(url)} of this version yet; the first start makes or upgrades it.")
    try:
        await store.pin_snapshot()
        return await read(store)
    finally:
        await store.close()


async def _rows_that_differ(store: Store) -> tuple[int, int, list[str]]:
    from tuttilab.scheduler.store.verify import differences, replay

    replayed = await replay(store)
    found = [sentence async for sentence in differences(store, replayed)]
    return replayed.events, len(replayed.jobs), found


async def _decisions_that_differ(store: Store) -> tuple[int, list[str]]:
    from tuttilab.scheduler.simulation import replay_store

    replayed = await replay_store(store)
    return replayed.cycles, [str(one) for one in replayed.differing]


@scheduler.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
def backup(file: Path, config: Path | None) -> None:
    """Write the database, as it is at this moment, to a new FILE; the service may run meanwhile.

    The file can be restored into SQLite and into Postgres. It holds no artifacts: copy their folder (`tuttilab scheduler check`
    names it) after the backup.
    """
    from tuttilab.scheduler.store.backup import backup as write

    content = write(_store_url(config), file.absolute())
    console.put(f"{file}: {content.jobs} jobs, up to change {content.last_seq}.")


@scheduler.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@click.option("--force", is_flag=True, help="Replace what the database holds; a SQLite file is kept as ….old.")
def restore(file: Path, config: Path | None, force: bool) -> None:
    """Load a backup into the configured database, which has to be empty.

    On SQLite the service must not run. Jobs accepted or started after the backup are unknown afterwards: the next start ends their
    pods. Jobs in the backup continue from their state at that time.
    """
    from tuttilab.scheduler.store.backup import restore as put

    state = discovery.state_dir(os.environ)
    url = _store_url(config)
    try:
        discovery.prepare(state)
        with contextlib.ExitStack() as held:
            if url.startswith("sqlite"):
                held.enter_context(discovery.locked(state / "control.lock", 0.5))
                discovery.note_holder(state, discovery.RESTORE)
            content = put(file.absolute(), url, force=force)
    except Unavailable as error:
        running = discovery.find(state).runtime
        if running is None and (restoring := discovery.being_restored(state)):
            raise Conflict(restoring) from error
        who = f"(pid {running.pid}) " if running else ""
        raise Conflict(f"The control plane {who}uses the database; run `tuttilab down` first.") from error
    console.put(f"{without_password(url)}: {content.jobs} jobs, up to change {content.last_seq}.")


def without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)


def _store_url(config: Path | None) -> str:
    from tuttilab.scheduler.config.load import load_config

    return load_config(config, discovery.state_dir(os.environ), os.environ).store.url


tune.add_to(scheduler)
COMMANDS = (scheduler,)
