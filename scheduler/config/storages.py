"""Checks `storages` of `tuttilab.yaml`: the volumes that notebook profiles and jobs may mount, and who may write there."""

from __future__ import annotations

from collections.abc import Sequence

from tuttilab.scheduler.config.file import StorageFile
from tuttilab.scheduler.core.storages import KINDS, READ, WRITE, Storage, check_folder, check_source
from tuttilab.scheduler.domain.errors import BadInput


def storages_of(files: Sequence[StorageFile]) -> tuple[Storage, ...]:
    """Raises BadInput naming the key."""
    found = tuple(_storage_of(file, f"storages[{index}]") for index, file in enumerate(files))
    for index, storage in enumerate(found):
        for other in found[:index]:
            if (other.kind, other.source, other.sub_path) == (storage.kind, storage.source, storage.sub_path):
                raise BadInput(f"storages[{index}]: {storage.title} stands there twice; expected each once, with all its groups.")
    return found


def _storage_of(file: StorageFile, where: str) -> Storage:
    given = [(kind, source) for kind in KINDS if (source := getattr(file, kind)) is not None]
    if len(given) != 1:
        raise BadInput(f"{where}: expected one of {', '.join(KINDS)}.")
    check_source(*given[0], where)
    check_folder(file.sub_path, where)
    if not file.groups:
        raise BadInput(f"{where}.groups: nobody may use it; expected groups with {READ} or {WRITE}, such as {{research: {WRITE}}}.")
    for group, mode in file.groups.items():
        if mode not in (READ, WRITE):
            raise BadInput(f"{where}.groups.{group}: {mode!r} is not known; expected {READ} or {WRITE}.")
    return Storage(*given[0], dict(file.groups), file.sub_path)
