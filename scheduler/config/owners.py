"""Checks what `tuttilab.yaml` says of a local cluster whose pods run as the users who own their jobs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.local.owners import OwnersSettings
from tuttilab.scheduler.config.file import ClusterFile
from tuttilab.scheduler.domain.errors import BadInput

OWNER: Final = "owner"
SERVICE: Final = "service"
OWN_KEYS: Final = ("folder", "sidecar_user", "accounts", "least_uid", "python")
"""Keys that go with ``run_as: owner`` alone."""
FOLDER: Final = "/var/lib/tuttilab-pods"


def settings_of(file: ClusterFile, path: str, state_dir: Path, port: int) -> OwnersSettings | None:
    """None where pods run as the user of the control plane. ``port``: where it listens. Raises BadInput naming the key."""
    if file.run_as not in (OWNER, SERVICE):
        raise BadInput(f"{path}.run_as: {file.run_as[:40]!r} is not known; expected {SERVICE} or {OWNER}.")
    if file.run_as == SERVICE:
        none = ClusterFile(name="", kind="")
        given = [
            item.name for item in fields(file) if item.name in OWN_KEYS and getattr(file, item.name) != getattr(none, item.name)
        ]
        if given:
            raise BadInput(f"{path}.{given[0]}: it goes with run_as: {OWNER}; expected no such key without it.")
        return None
    if file.kind != "local":
        raise BadInput(f"{path}.run_as: it goes with kind local; expected no such key with kind {file.kind}.")
    if not port:
        raise BadInput(f"{path}.run_as: pods of others find the control plane by its port alone; expected a fixed listen.port.")
    if file.least_uid < 1:
        raise BadInput(f"{path}.least_uid: {file.least_uid} lets jobs run as root; expected 1 or more, such as 1000.")
    if file.python is not None and not Path(file.python).is_absolute():
        raise BadInput(f"{path}.python: {file.python!r} is no absolute path; expected one such as /usr/bin/python3.")
    for owner, account in file.accounts.items():
        if not owner or not account:
            raise BadInput(f"{path}.accounts: {owner!r}: {account!r} has an empty name; expected OWNER: ACCOUNT.")
    return OwnersSettings(
        folder=state_dir / Path(file.folder or FOLDER).expanduser(),
        sidecar_user=file.sidecar_user,
        accounts=dict(file.accounts),
        least_uid=file.least_uid,
        python=file.python,
    )
