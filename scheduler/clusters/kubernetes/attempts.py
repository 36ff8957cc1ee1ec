"""What the control plane notes of an attempt beside the cluster: a file in its folder, which also holds the logs of its pods.

The pods' labels say what is there. The file says what must not be there again: pods that were made, stopped or forgotten. It is
written before the pods that it is about are made, and on the disk before any is stopped or forgotten. What a crash of the machine
takes from the notes of a launch, the pods' own names, digests and finalizers still say: they are made once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.local import pods as folders
from tuttilab.sidecar import records

FILE: Final = folders.ATTEMPT


@dataclass(slots=True)
class Noted:
    """``digest``: of the plan. ``pods``: their digests, by name; ``made``: uids of those that exist or existed."""

    epoch: int
    digest: str
    namespace: str
    pods: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    never: list[str] = field(default_factory=list)
    """Pods that were stopped before they were made."""
    is_stopped: bool = False
    is_forgotten: bool = False
    refused: str = ""
    told: list[str] = field(default_factory=list)
    """Pods that were asked to stop before they had ended."""
    why: dict[str, str] = field(default_factory=dict)
    """Why we deleted a pod before its user code ran, by its name."""
    notes: dict[str, str] = field(default_factory=dict)
    """A sentence for the pod's log."""


class Attempts:
    """Of one cluster, read once and kept in memory. Writes block for some milliseconds."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._known: dict[tuple[str, int], Noted | None] = {}

    def folder(self, job_id: str, attempt: int) -> Path:
        return folders.attempt_folder(self._state_dir, job_id, attempt)

    def pod_folder(self, job_id: str, attempt: int, pod: str) -> Path:
        return folders.pod_folder(self._state_dir, job_id, attempt, pod)

    def get(self, job_id: str, attempt: int) -> Noted | None:
        key = (job_id, attempt)
        if key not in self._known:
            body = records.read(str(self.folder(job_id, attempt) / FILE))
            self._known[key] = None if body is None else Noted(**body)
        return self._known[key]

    def put(self, job_id: str, attempt: int, noted: Noted, *, is_durable: bool = True) -> None:
        """``is_durable``: it is on the disk, so that it outlives a crash of the machine too."""
        folder = self.folder(job_id, attempt)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        records.write(str(folder / FILE), asdict(noted), is_durable=is_durable)
        if is_durable:
            for parent in (folder.parent, folder.parent.parent):
                records.sync_folder(str(parent))
        self._known[job_id, attempt] = noted

    def make_folders(self, job_id: str, attempt: int, pods: Iterable[str]) -> None:
        for pod in pods:
            self.pod_folder(job_id, attempt, pod).mkdir(mode=0o700, parents=True, exist_ok=True)

    def erase(self, job_id: str, attempt: int) -> None:
        folder = self.folder(job_id, attempt)
        self._known.pop((job_id, attempt), None)
        folders.erase(folder)
        try:
            folder.parent.rmdir()
        except OSError:
            pass  # other attempts are still there, or nothing was
