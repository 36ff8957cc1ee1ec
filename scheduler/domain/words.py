"""Words of the model for people: the phases that users see, and when something starts. The same in every surface.

The table is in docs/glossary.md, and the panel has it in labextension/src/text/words.ts; a test compares them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from tuttilab.scheduler.domain.model import StopReason

WAITING: Final = "Waiting"
STARTING: Final = "Starting"

PHASES: Final[Mapping[str, str]] = {
    "Queued": WAITING,
    "Pending": WAITING,
    "Submitted": WAITING,
    "Active": STARTING,
    "Admitted": STARTING,
    "Launching": STARTING,
    "Running": "Running",
    "Stopping": "Stopping",
    "Succeeded": "Succeeded",
    "Failed": "Failed",
    "Cancelled": "Cancelled",
    "Skipped": "Skipped",
    "Lost": "Lost",
    "Preempted": "Preempted",
}
"""Word of each phase of a job, an attempt, a DAG run and its nodes. The API keeps the names on the left."""

POD_PHASES: Final[Mapping[str, str]] = {"Pending": STARTING, "Ready": "Ready", "Running": "Running", "Ended": "Ended"}
"""Word of each phase of a pod."""


STOPPED_BECAUSE: Final[Mapping[StopReason, str]] = {
    StopReason.CANCELLED: "it was cancelled",
    StopReason.TIMEOUT: "its time limit has passed",
    StopReason.MEMBER_FAILED: "another of its pods failed",
    StopReason.MEMBER_LOST: "another of its pods was lost",
    StopReason.BARRIER_TIMEOUT: "its pods were not all ready in time",
    StopReason.LAUNCH_FAILED: "its pods could not all start",
    StopReason.PREEMPTED: "it makes room for other work",
    StopReason.REQUIRED_DONE: "the pods that decide its end are done",
}
"""Why the pods of an attempt are stopped, for their logs."""
GIVEN_BACK: Final = "the job gives this pod back"
OVER: Final = "its attempt is over"


def word(phase: str) -> str:
    """``Waiting`` for ``Queued``; a phase of a newer service stays as it is."""
    return PHASES.get(phase, phase)


def pod_word(phase: str) -> str:
    return POD_PHASES.get(phase, phase)


def start_text(earliest: float | None, latest: float | None, now: float, *, with_zone: bool = False) -> str:
    """``starts between 14:05 and 14:20`` in local time, ``starts by 14:20`` after the first; empty where no start is told.

    ``with_zone``: for readers who may be in another time zone than this process.
    """
    if earliest is None or latest is None or now > latest:
        return ""
    if latest - now < 60:
        return "starts within a minute"
    last = _clock(-(-latest // 60) * 60, now)
    zone = time.strftime(" %Z", time.localtime(latest)) if with_zone else ""
    first = _clock(earliest, now)
    if earliest <= now or first == last or earliest - now < 0.05 * (latest - now):
        return f"starts by {last}{zone}"
    return f"starts between {first} and {last}{zone}"


def _clock(at: float, now: float) -> str:
    """``14:05``, ``Mon 14:05`` on another day, ``Dec 24 14:05`` in another week."""
    local, today = time.localtime(at), time.localtime(now)
    if local[:3] == today[:3]:
        return time.strftime("%H:%M", local)
    return time.strftime("%a %H:%M" if at - now < 6 * 86400 else "%b %d %H:%M", local)
