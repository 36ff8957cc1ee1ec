"""What to do, as plain data. `core.state` answers events with these; `service` performs them after the commit."""

from __future__ import annotations

from dataclasses import dataclass

from tuttilab.scheduler.model import StopReason


@dataclass(frozen=True, slots=True)
class LaunchGang:
    """Create every pod of the attempt that was not made yet. Safe to perform again: names and digests decide."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopGang:
    """Tell every pod of the attempt to end, by force after ``grace_s``."""

    job_id: str
    attempt: int
    grace_s: float
    why: StopReason


@dataclass(frozen=True, slots=True)
class StopPods:
    """Tell some pods of an attempt that goes on to end, by force after ``grace_s``."""

    job_id: str
    attempt: int
    pods: tuple[str, ...]
    grace_s: float


@dataclass(frozen=True, slots=True)
class ForgetPods:
    """The attempt's end is committed: let go of what kept its pods' records."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class DropOrphans:
    """That cluster shows pods of an attempt which is not to be there (any more): end them, and let go of them."""

    job_id: str
    attempt: int
    cluster: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class DropJob:
    """The job was deleted: remove what its attempts left on their clusters. ``attempts`` is the number of the newest."""

    job_id: str
    attempts: int


Instruction = LaunchGang | StopGang | StopPods | ForgetPods | DropOrphans | DropJob
