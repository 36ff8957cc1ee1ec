"""Checks `proxy_users` of `tuttilab.yaml`: accounts as which jobs of the members of some groups may run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tuttilab.scheduler.config.file import ProxyUserFile
from tuttilab.scheduler.config.kubernetes import LARGEST_UID
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.errors import BadInput

_NAME: Final = re.compile(r"[a-z_][-a-z0-9_.]{0,31}")


def proxy_users_of(files: Sequence[ProxyUserFile], clusters: Sequence[ClusterConfig]) -> dict[str, ProxyUser]:
    """By name. Raises BadInput naming the key."""
    found: dict[str, ProxyUser] = {}
    for index, file in enumerate(files):
        user = _user_of(file, f"proxy_users[{index}]")
        if user.name in found:
            raise BadInput(f"proxy_users[{index}]: {user.name!r} stands there twice; expected each once, with all its groups.")
        if not any(can_run_as(cluster, user) for cluster in clusters):
            raise BadInput(
                f"proxy_users[{index}]: no cluster runs jobs as {user.name!r}; expected a local cluster with run_as: owner, or uid "
                "and gid for one of kind kubernetes."
            )
        found[user.name] = user
    return found


def can_run_as(cluster: ClusterConfig, user: ProxyUser) -> bool:
    """A local cluster that runs all as the user of the control plane cannot, nor containers without the numbers."""
    match cluster.kind:
        case "local":
            return cluster.owners is not None
        case "kubernetes":
            return user.uid is not None
        case _:
            return True


def _user_of(file: ProxyUserFile, where: str) -> ProxyUser:
    account = file.account or file.name
    for key, name in (("name", file.name), ("account", account)):
        if not _NAME.fullmatch(name) or name == "root":
            raise BadInput(f"{where}.{key}: {name[:40]!r} is no account for jobs; expected one such as etl, never root.")
    if not file.groups or not all(file.groups):
        raise BadInput(f"{where}.groups: nobody may use {file.name!r}; expected groups, such as [quant].")
    if (file.uid is None) != (file.gid is None):
        raise BadInput(f"{where}: one of uid and gid is missing; expected both, for pods of Kubernetes, or neither.")
    for key, number in (("uid", file.uid), ("gid", file.gid)):
        if number is not None and not 1 <= number <= LARGEST_UID:
            raise BadInput(f"{where}.{key}: {number} cannot be used; expected 1 to {LARGEST_UID}: nobody runs as root.")
    return ProxyUser(file.name, tuple(file.groups), account, file.uid, file.gid)
