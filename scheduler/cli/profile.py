"""`tuttilab profile`: profiles of notebook servers. Admins apply them from manifests, users list those that they may use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuttilab.scheduler.cli import console
from tuttilab.scheduler.cli.console import ago

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.requests import ProfileRequest


@click.group()
def profile() -> None:
    """Profiles of notebook servers: their image, size and volumes, by group."""


@profile.command()
@click.argument("file", type=click.Path(dir_okay=False))
@console.json_option
def apply(file: str, as_json: bool) -> None:
    """Store the profiles of FILE under their names, replacing earlier ones. For admins."""
    from tuttilab.scheduler.client import manifests
    from tuttilab.scheduler.domain.requests import ProfileRequest

    # The whole file is read first, so that a file with an error changes nothing.
    requests = manifests.read(Path(file), ProfileRequest)
    client = console.connected_client()
    views = [client.apply_profile(request) for request in requests]
    if as_json:
        console.put_json(views)
        return
    for view in views:
        console.put(f"{view.profile.name}: {_size(view.profile)}, for {_groups(view.profile)}")


@profile.command("list")
@console.json_option
def list_profiles(as_json: bool) -> None:
    """List the profiles that you may use; an admin sees all."""
    views = console.connected_client().profiles()
    if as_json:
        console.put_json(views)
        return
    rows = [(v.profile.name, _groups(v.profile), _size(v.profile), v.profile.image or "", ago(v.applied_at)) for v in views]
    console.put_table(("PROFILE", "GROUPS", "SIZE", "IMAGE", "AGE"), rows, "No profiles; `tuttilab profile apply FILE` keeps one.")


@profile.command()
@click.argument("name")
@console.json_option
def show(name: str, as_json: bool) -> None:
    """Show a profile as a manifest for `apply`, which may get another name."""
    import yaml

    from tuttilab.scheduler.domain.requests import ProfileRequest
    from tuttilab.scheduler.domain.wire import to_data

    view = console.connected_client().profile(name)
    if as_json:
        console.put_json(view)
        return
    empty = to_data(ProfileRequest(name=""))
    changed = {key: value for key, value in to_data(view.profile).items() if value != empty[key]}
    console.put(yaml.safe_dump({"kind": "Profile", **changed}, sort_keys=False, allow_unicode=True), nl=False)


@profile.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete a profile. Running servers of it go on. For admins."""
    console.connected_client().delete_profile(name)


def _size(profile: ProfileRequest) -> str:
    gpus = f", {profile.gpus} GPU" if profile.gpus else ""
    return f"{profile.cpus} CPU, {profile.memory}{gpus}" + (" (disabled)" if profile.disabled else "")


def _groups(profile: ProfileRequest) -> str:
    return ", ".join(profile.groups) or "everybody"


COMMANDS = (profile,)
