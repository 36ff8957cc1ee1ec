"""What Tab completes: job names and ids, runs, queues, clusters. Never starts a control plane, and never says anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from tuttilab.scheduler.client import Client

ANSWER_S: Final = 2.0
"""How long a person waits for Tab."""
MOST: Final = 50


class Completed(click.ParamType[str]):
    """A text whose candidates come from the service."""

    name = "text"

    def __init__(self, candidates: Callable[[Client], Iterable[CompletionItem]]) -> None:
        self._candidates = candidates

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What begins as the word under the cursor does; nothing when the service does not answer at once."""
        try:
            client = _client()
            if client is None:
                return []
            try:
                return [item for item in self._candidates(client) if str(item.value).startswith(incomplete)]
            finally:
                client.close()
        except Exception:  # whatever went wrong: to complete is a courtesy, and a message would disturb the line being typed
            return []


def _client() -> Client | None:
    from tuttilab.scheduler.client import Client, connect
    from tuttilab.scheduler.runtime import discovery

    if os.environ.get("TUTTILAB_URL"):
        return connect(start=False)
    runtime = discovery.find(discovery.state_dir(os.environ)).runtime
    return None if runtime is None else Client(runtime.url, runtime.token, timeout_s=ANSWER_S)


def _jobs(client: Client) -> Iterable[CompletionItem]:
    """Each job's name if one job has it, and its short id with the name as help."""
    views = client.jobs(all=True, limit=MOST).jobs
    names = [view.name for view in views]
    yield from (CompletionItem(name) for name in dict.fromkeys(names) if names.count(name) == 1 and name.isprintable())
    yield from (CompletionItem(view.id[:8], help=f"{view.name} {view.phase}") for view in views)
    if views:
        yield CompletionItem("last", help=f"the newest: {views[0].name}")


def _runs(client: Client) -> Iterable[CompletionItem]:
    views = client.runs(MOST)
    yield from (CompletionItem(view.id[:8], help=f"{view.name} {view.phase}") for view in views)
    if views:
        yield CompletionItem("last", help=f"the newest: {views[0].name}")


def _queues(client: Client) -> Iterable[CompletionItem]:
    return (CompletionItem(queue.name) for queue in client.queues() if queue.mine)


def _clusters(client: Client) -> Iterable[CompletionItem]:
    return (CompletionItem(cluster.name) for cluster in client.clusters())


JOB: Final = Completed(_jobs)
RUN: Final = Completed(_runs)
QUEUE: Final = Completed(_queues)
CLUSTER: Final = Completed(_clusters)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes Tab complete commands, options, jobs, queues and files.

    \b
    bash:  echo 'eval "$(tuttilab completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(tuttilab completion zsh)"' >> ~/.zshrc
    fish:  tuttilab completion fish > ~/.config/fish/completions/tuttilab.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(found(context.find_root().command, {}, "tuttilab", COMPLETE_VARIABLE).source())


COMPLETE_VARIABLE: Final = "_TUTTILAB_COMPLETE"

COMMANDS = (completion,)
