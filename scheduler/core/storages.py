"""Storages: the volumes that the configuration lists, and for each group whether it may write there.

A profile's mount has to be one of them. Volumes of the cluster itself (``cephfs``, ``claim``) need no list where there is none; a
path of a node or of an NFS server always does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput, Forbidden
from tuttilab.scheduler.domain.requests import MountRequest, ProfileRequest

KINDS: Final = ("cephfs", "claim", "nfs", "host_path")
"""Of volumes; the keys of a mount and of a storage."""
ALWAYS_LISTED: Final = ("nfs", "host_path")
READ, WRITE = "r", "rw"


@dataclass(frozen=True, slots=True)
class Storage:
    kind: str
    source: str
    modes: Mapping[str, str]
    """``r`` or ``rw`` by group."""
    sub_path: str = ""
    """Only this folder of the volume and what is below it. Empty: all of it."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.source}{f' below {self.sub_path}' if self.sub_path else ''}"


def source_of(mount: MountRequest) -> tuple[str, str]:
    """Kind and source of a mount that was checked."""
    return next((kind, str(value)) for kind in KINDS if (value := getattr(mount, kind)) is not None)


def check_listed(profile: ProfileRequest, storages: Sequence[Storage], groups: Sequence[str]) -> None:
    """Raises BadInput with the mount that is not listed, or not for one of the groups. No groups: the profile is for everybody."""
    for index, mount in enumerate(profile.mounts):
        kind, source = source_of(mount)
        where = f"mounts[{index}]"
        if not storages and kind not in ALWAYS_LISTED:
            continue
        listed = _covering(mount, storages)
        if not listed:
            known = ", ".join(storage.title for storage in storages) or "none"
            place = f"{source!r}{f' with sub_path {mount.sub_path!r}' if mount.sub_path else ''}"
            raise BadInput(f"{where}.{kind}: {place} is not in storages of tuttilab.yaml; expected {known}.")
        if not groups:
            raise BadInput(f"{where}.{kind}: {source!r} is for groups, and the profile is for everybody; give it groups.")
        missing = [group for group in groups if not any(group in storage.modes for storage in listed)]
        if missing:
            allowed = ", ".join(sorted({group for storage in listed for group in storage.modes}))
            raise BadInput(f"{where}.{kind}: {source!r} is not for group {missing[0]!r}; expected groups {allowed}.")


def as_seen_by(group: str, profile: ProfileRequest, storages: Sequence[Storage]) -> ProfileRequest:
    """The profile with the mounts that a server of this group gets: read-only where the group may only read.

    Raises Forbidden for a mount that was taken off the list since the profile was applied.
    """
    mounts = tuple(_as_seen_by(group, mount, storages, profile.name) for mount in profile.mounts)
    return replace(profile, mounts=mounts)


def _as_seen_by(group: str, mount: MountRequest, storages: Sequence[Storage], profile: str) -> MountRequest:
    kind, source = source_of(mount)
    if not storages and kind not in ALWAYS_LISTED:
        return mount
    modes = [storage.modes[group] for storage in _covering(mount, storages) if group in storage.modes]
    if not modes:
        raise Forbidden(
            f"profile: {profile!r} mounts {kind} {source!r}, which storages of tuttilab.yaml do not list for group {group!r}; "
            "choose another profile, or ask an admin."
        )
    return mount if WRITE in modes else replace(mount, mode=READ)


def _covering(mount: MountRequest, storages: Sequence[Storage]) -> list[Storage]:
    """Those that list the mount's folder, or one that it is below."""
    where = source_of(mount)
    return [each for each in storages if (each.kind, each.source) == where and _is_within(mount.sub_path, each.sub_path)]


def _is_within(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(f"{folder}/")
