"""Storages: the volumes that the configuration lists, and for each group whether it may write there.

A mount has to be one of them. For profiles, which an admin applies, volumes of the cluster itself (``cephfs``, ``claim``) need no
list where there is none; a path of a node or of an NFS server always does, and so does whatever a job mounts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput, Forbidden
from tuttilab.scheduler.domain.model import Mount
from tuttilab.scheduler.domain.requests import MountRequest, ProfileRequest

KINDS: Final = ("cephfs", "claim", "nfs", "host_path")
"""Of volumes; the keys of a mount and of a storage."""
ALWAYS_LISTED: Final = ("nfs", "host_path")
READ, WRITE = "r", "rw"
MODES: Final = (READ, WRITE)
OWNER: Final = "{owner}"
"""Placeholder in a sub-path for the user's name, made safe for a folder."""
SYSTEM_FOLDERS: Final = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr")
"""Top-level folders that belong to the image or the node."""
OWN_FOLDER: Final = "tuttilab"
"""Top-level folder of a job's own volume."""

_KUBERNETES_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_PATH = re.compile(r"/[-A-Za-z0-9._/]{1,1023}")
_NFS_SERVER = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9.]{0,251}[A-Za-z0-9])?")
_SUB_PATH = re.compile(r"[-A-Za-z0-9._/]{0,512}")


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
            raise _not_listed(mount, where, storages)
        if not groups:
            raise BadInput(f"{where}.{kind}: {source!r} is for groups, and the profile is for everybody; give it groups.")
        missing = [group for group in groups if not any(group in storage.modes for storage in listed)]
        if missing:
            allowed = ", ".join(sorted({group for storage in listed for group in storage.modes}))
            raise BadInput(f"{where}.{kind}: {source!r} is not for group {missing[0]!r}; expected groups {allowed}.")


def _not_listed(mount: MountRequest, where: str, storages: Sequence[Storage]) -> BadInput:
    kind, source = source_of(mount)
    known = ", ".join(storage.title for storage in storages) or "none"
    place = f"{source!r}{f' with sub_path {mount.sub_path!r}' if mount.sub_path else ''}"
    return BadInput(f"{where}.{kind}: {place} is not in storages of tuttilab.yaml; expected {known}.")


def for_job(mounts: Sequence[MountRequest], group: str, storages: Sequence[Storage]) -> tuple[Mount, ...]:
    """The mounts of a job that is charged to this group: read-only where the group may only read.

    Raises BadInput for a mistake and for what is not listed, Forbidden for what is listed for other groups.
    """
    check_mounts(mounts)
    found = []
    for index, mount in enumerate(mounts):
        kind, source = source_of(mount)
        where = f"mounts[{index}]"
        if mount.path.split("/")[1] == OWN_FOLDER:
            raise BadInput(f"{where}.path: {mount.path!r} belongs to the pod itself; expected another such as /workspace.")
        listed = _covering(mount, storages)
        if not listed:
            raise _not_listed(mount, where, storages)
        modes = {storage.modes[group] for storage in listed if group in storage.modes}
        if not modes:
            allowed = ", ".join(sorted({group for storage in listed for group in storage.modes}))
            raise Forbidden(
                f"{where}.{kind}: {source!r} is not for group {group!r}, to which the job is charged; expected groups {allowed}."
            )
        found.append(Mount(mount.path, kind, source, mount.sub_path, mount.mode == WRITE and WRITE in modes))
    return tuple(found)


def refusal_now(mounts: Sequence[Mount], group: str, storages: Sequence[Storage]) -> str:
    """Why a job that was accepted may not start with these mounts any more; empty when it may."""
    for mount in mounts:
        request = request_of(mount)
        modes = {each.modes[group] for each in _covering(request, storages) if group in each.modes}
        if not modes or (mount.is_writable and WRITE not in modes):
            what = "write to" if modes else "mount"
            return (
                f"storages of tuttilab.yaml do not let group {group!r} {what} {mount.kind} {mount.source!r} any more, which the "
                f"job mounts at {mount.path}; ask an admin, or submit it again without."
            )
    return ""


def request_of(mount: Mount) -> MountRequest:
    """The request that gives this mount."""
    mode = WRITE if mount.is_writable else READ
    return MountRequest(path=mount.path, sub_path=mount.sub_path, mode=mode, **{mount.kind: mount.source})


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


def check_mounts(mounts: Sequence[MountRequest]) -> None:
    """Raises BadInput with the place of the mistake. Whether the list has them is another question (`check_listed`, `for_job`)."""
    for index, mount in enumerate(mounts):
        where = f"mounts[{index}]"
        if not _PATH.fullmatch(mount.path) or posixpath.normpath(mount.path) != mount.path or mount.path.startswith("//"):
            raise BadInput(f"{where}.path: {mount.path[:80]!r} is no plain absolute path; expected one such as /workspace.")
        if mount.path.split("/")[1] in SYSTEM_FOLDERS:
            raise BadInput(f"{where}.path: {mount.path!r} belongs to the image; expected a folder of its own such as /workspace.")
        if mount.path in [other.path for other in mounts[:index]]:
            raise BadInput(f"{where}.path: {mount.path!r} stands there twice; expected each path once.")
        if mount.mode not in MODES:
            raise BadInput(f"{where}.mode: {mount.mode!r} is not known; expected {' or '.join(MODES)}.")
        if sum(getattr(mount, kind) is not None for kind in KINDS) != 1:
            raise BadInput(
                f"{where}: expected either cephfs (a shared volume) or claim (a PersistentVolumeClaim), nfs or host_path."
            )
        check_source(*source_of(mount), where)
        check_folder(mount.sub_path, where)
        if OWNER in mount.sub_path.rpartition("/")[0]:
            raise BadInput(
                f"{where}.sub_path: {mount.sub_path[:80]!r} goes on below the user's own folder, where a link could lead to "
                f"another's; expected {OWNER} in the last step."
            )
    _check_links(mounts)


def _check_links(mounts: Sequence[MountRequest]) -> None:
    """A folder below one that is writable in the same server could be replaced by a link to another folder of the volume."""
    for index, mount in enumerate(mounts):
        for other in mounts:
            is_above = mount.sub_path != other.sub_path and (not other.sub_path or mount.sub_path.startswith(f"{other.sub_path}/"))
            if is_above and other.mode == WRITE and source_of(other) == source_of(mount):
                raise BadInput(
                    f"mounts[{index}].sub_path: {mount.sub_path[:80]!r} is below what is mounted at {other.path} with mode rw, "
                    "where a link could take its place; mount one of the two, or the upper one with mode r."
                )


def check_folder(sub_path: str, where: str) -> None:
    """Raises BadInput for a folder of a volume that could lead out of it. Empty: the volume itself."""
    steps = sub_path.replace(OWNER, "owner").split("/")
    if sub_path and (not _SUB_PATH.fullmatch("/".join(steps)) or {"", ".", ".."} & set(steps)):
        raise BadInput(f"{where}.sub_path: {sub_path[:80]!r} is no folder; expected one such as users/{OWNER}.")


def check_source(kind: str, source: str, where: str) -> None:
    """Of a mount, or of a storage of the configuration. Raises BadInput."""
    if kind in ("cephfs", "claim"):
        check_kubernetes_name(source, f"{where}.{kind}")
        return
    server, colon, path = source.partition(":") if kind == "nfs" else ("", "", source)
    is_path = _PATH.fullmatch(path) is not None and posixpath.normpath(path) == path and not path.startswith("//")
    if not is_path or (kind == "nfs" and not (colon and _NFS_SERVER.fullmatch(server))):
        example = "nas.example:/export/team" if kind == "nfs" else "/srv/data"
        raise BadInput(f"{where}.{kind}: {source[:80]!r} is no plain absolute path; expected one such as {example}.")


def check_kubernetes_name(name: str, where: str) -> None:
    if not _KUBERNETES_NAME.fullmatch(name):
        raise BadInput(f"{where}: {name[:80]!r} is not a name; expected lower-case letters, digits, '-' and '.'.")
