"""As which account of a machine somebody's work may run there: said here once, for jobs and for notebook servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class ProxyUser:
    """An account other than their owner's as which jobs may run. ``groups``: whose members may say so."""

    name: str
    groups: tuple[str, ...]
    account: str
    """On the machines of local clusters."""
    uid: int | None = None
    """In containers, with ``gid``; None: not there."""
    gid: int | None = None


class Entry(NamedTuple):
    """What the machine says of an account."""

    uid: int
    gid: int


def refusal_of(owner: str, name: str, entry: Entry | None, least_uid: int, what: str) -> str:
    """Why ``what`` of this owner cannot run as the account ``name``, which is ``entry`` on the machine; "" if it can."""
    listed = "" if name == owner else f" (listed for {owner})"
    if entry is None:
        return (
            f"user {owner} has no account {name!r}{listed} on this machine, and {what} run here as their owners; ask the site's "
            "admin to make it, or to list another one under `accounts`."
        )
    if entry.uid < max(1, least_uid) or entry.gid == 0:
        return (
            f"the account {name}{listed} of user {owner} has uid {entry.uid} and group {entry.gid}, and {what} run as people only "
            f"(uid {least_uid} or above), never as root or a service; ask the site's admin to list an account of a person under "
            "`accounts`."
        )
    return ""


def refusal_of_proxy(proxy: ProxyUser, entry: Entry | None, least_uid: int) -> str:
    """Why jobs cannot run as the proxy user, whose account is ``entry`` on the machine; "" if they can."""
    mend = "list another account for it under `proxy_users`"
    if entry is None:
        whose = f"proxy user {proxy.name} has no account {proxy.account!r} on this machine"
        return f"{whose}; ask the site's admin to make it, or to {mend}."
    if entry.uid < max(1, least_uid) or entry.gid == 0:
        return (
            f"the account {proxy.account} of proxy user {proxy.name} has uid {entry.uid} and group {entry.gid}, and jobs run as "
            f"uid {least_uid} or above, never as root or a service of the machine; ask the site's admin to {mend}."
        )
    return ""
