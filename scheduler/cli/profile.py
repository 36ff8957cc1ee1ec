"""`tuttilab profile`: what notebook servers get, from manifests; admins apply them, users see what they are offered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import ago

if TYPE_CHECKING:
    from tuttilab.scheduler.requests import ProfileRequest


@click.group()
def profile() -> None:
    """Profiles of notebook servers: their image, size and volumes, by group."""


@profile.command()
@click.argument("file", type=click.Path(dir_okay=False))
@console.json_option
def apply(file: str, as_json: bool) -> None:
    """Keep the profiles of FILE by their names, in place of those before. For admins."""
    from tuttilab.scheduler import manifests
    from tuttilab.scheduler.requests import ProfileRequest

    # Read as a whole first: a file with a mistake in it changes nothing.
    requests = manifests.read(Path(file), ProfileRequest)
    client = console.connected()
    views = [client.apply_profile(request) for request in requests]
    if as_json:
        console.put_json(views)
        return
    for view in views:
        click.echo(f"{view.profile.name}: {_size(view.profile)}, for {_groups(view.profile)}")


@profile.command("list")
@console.json_option
def list_profiles(as_json: bool) -> None:
    """List the profiles that you are offered; an admin sees all."""
    views = console.connected().profiles()
    if as_json:
        console.put_json(views)
        return
    rows = [(v.profile.name, _groups(v.profile), _size(v.profile), v.profile.image or "", ago(v.applied_at)) for v in views]
    console.put_table(("PROFILE", "GROUPS", "SIZE", "IMAGE", "AGE"), rows, "No profiles; `tuttilab profile apply FILE` keeps one.")


@profile.command()
@click.argument("name")
@console.json_option
def show(name: str, as_json: bool) -> None:
    """Show a profile as a manifest that `apply` takes, also under another name."""
    import yaml

    from tuttilab.scheduler.requests import ProfileRequest
    from tuttilab.scheduler.wire import to_data

    view = console.connected().profile(name)
    if as_json:
        console.put_json(view)
        return
    empty = to_data(ProfileRequest(name=""))
    said = {key: value for key, value in to_data(view.profile).items() if value != empty[key]}
    click.echo(yaml.safe_dump({"kind": "Profile", **said}, sort_keys=False, allow_unicode=True), nl=False)


@profile.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete a profile. Servers that were started with it go on. For admins."""
    console.connected().delete_profile(name)


def _size(profile: ProfileRequest) -> str:
    gpus = f", {profile.gpus} GPU" if profile.gpus else ""
    return f"{profile.cpus} CPU, {profile.memory}{gpus}" + (" (disabled)" if profile.disabled else "")


def _groups(profile: ProfileRequest) -> str:
    return ", ".join(profile.groups) or "everybody"


COMMANDS = (profile,)
