"""As which account of a machine somebody's work may run there: said here once, for jobs and for notebook servers."""

from __future__ import annotations

from typing import NamedTuple


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
