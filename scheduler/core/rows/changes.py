"""What a commit writes: the rows that changed since the last one."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuttilab.scheduler.domain.model import Attempt, Dag, Job, Overtaking, Profile, Queue, Run, RunHistory

AttemptKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Changes:
    jobs: tuple[Job, ...]
    attempts: tuple[Attempt, ...]
    queues: tuple[Queue, ...] | None
    """All of them; None when unchanged."""
    deleted_jobs: tuple[str, ...]
    runs: tuple[Run, ...] = ()
    dags: tuple[Dag, ...] = ()
    profiles: tuple[Profile, ...] = ()
    deleted_profiles: tuple[str, ...] = ()
    accounts: tuple[Overtaking, ...] = ()
    ended_accounts: tuple[str, ...] = ()
    """Jobs that no longer wait: their account rows are deleted."""
    history: tuple[RunHistory, ...] = ()
    dropped_history: tuple[str, ...] = ()
    """Keys of history rows to delete."""


@dataclass(slots=True)
class ChangedKeys:
    """Keys of the rows that were put or deleted since the last commit, in the order of the first change."""

    jobs: dict[str, None] = field(default_factory=dict)
    attempts: dict[AttemptKey, None] = field(default_factory=dict)
    runs: dict[str, None] = field(default_factory=dict)
    dags: dict[str, None] = field(default_factory=dict)
    profiles: dict[str, None] = field(default_factory=dict)
    """Deleted ones too."""
    deleted_jobs: list[str] = field(default_factory=list)
    has_queues: bool = False
