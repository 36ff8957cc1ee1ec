"""Words of the model for people: the phases that users see, and when something starts. The same in every surface.

The table is in docs/glossary.md, and the panel has it in labextension/src/text/words.ts; a test compares them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.domain.model import StopReason
from tuttilab.scheduler.domain.resources import show_duration

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.wire import KeptView, PassedView, WaitView

MOST_NODES: Final = 4
"""Nodes that a sentence names."""
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


def kept_text(kept: KeptView, now: float) -> str:
    """``n3 and n5 on cluster gpu from 14:20 on, past predictions``: what is held for a job that waits."""
    names = [*kept.nodes[:MOST_NODES], *([f"{len(kept.nodes) - MOST_NODES} more"] if len(kept.nodes) > MOST_NODES else [])]
    where = (
        f"{', '.join(names)} on cluster {kept.cluster}" if names else f"room on cluster {kept.cluster}, when others have left it"
    )
    start = "from now on" if kept.start <= now else f"from {_clock(kept.start, now)} on"
    return f"{where}, {start}; until then others may use it as far as {kept.trusts} say that they will be gone"


def passed_text(one: PassedView, now: float) -> str:
    """``job 'prep' (3f2a9c12) of ana at 14:02 on n3: was predicted to end before its start (14:20), and is late``."""
    where = f" on {', '.join(one.nodes[:MOST_NODES])}" if one.nodes else ""
    by = f" ({_clock(one.kept_start, now)})" if one.must_end else ""
    if one.ended_at is not None:
        end = f"; ended {_clock(one.ended_at, now)}"
    else:
        end = "" if one.ends_by is None or one.ends_by <= now else f"; ends by {_clock(one.ends_by, now)}"
    late = ", too late" if one.must_end and (one.ended_at or now) > one.kept_start else ""
    return f"{one.job} at {_clock(one.started_at, now)}{where}: {one.promise}{by}{end}{late}"


def overtaken_text(wait: WaitView) -> str:
    """How much jobs that were submitted later have used, where any have."""
    if wait.overtaken_s < 1:
        return ""
    used = f"jobs submitted later used as much as all of the site for {show_duration(wait.overtaken_s)} while it waited"
    if wait.is_protected:
        return f"{used}; so it goes before them now"
    return f"{used}; it goes before them from {show_duration(wait.allowed_s)} on"


def _clock(at: float, now: float) -> str:
    """``14:05``, ``Mon 14:05`` on another day, ``Dec 24 14:05`` in another week."""
    local, today = time.localtime(at), time.localtime(now)
    if local[:3] == today[:3]:
        return time.strftime("%H:%M", local)
    return time.strftime("%a %H:%M" if at - now < 6 * 86400 else "%b %d %H:%M", local)
