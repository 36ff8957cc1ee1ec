"""Instructions: what to do, as plain data. `core.state` returns them for events; `service` performs them after the commit."""

from __future__ import annotations

from dataclasses import dataclass

from tuttilab.scheduler.domain.model import StopReason


@dataclass(frozen=True, slots=True)
class LaunchGang:
    """Create every pod of the attempt that does not exist yet. Idempotent: pod names and digests identify what exists."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopGang:
    """Stop every pod of the attempt; kill after ``grace_s``."""

    job_id: str
    attempt: int
    grace_s: float
    why: StopReason


@dataclass(frozen=True, slots=True)
class StopPods:
    """Stop the named pods; kill after ``grace_s``. The attempt continues with the others."""

    job_id: str
    attempt: int
    pods: tuple[str, ...]
    grace_s: float


@dataclass(frozen=True, slots=True)
class ForgetPods:
    """The attempt's end is committed: remove the finalizers that kept its pods' terminal records."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class DropOrphans:
    """The cluster shows pods of an attempt that is not live there: stop and forget them."""

    job_id: str
    attempt: int
    cluster: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class DropJob:
    """The job was deleted: remove what its attempts left on the clusters. ``attempts`` is the number of the newest attempt."""

    job_id: str
    attempts: int


Instruction = LaunchGang | StopGang | StopPods | ForgetPods | DropOrphans | DropJob
