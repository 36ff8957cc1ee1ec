"""What a cell's output box knows of its job, for Lab to bind it again after a reload, in a second tab, or when the kernel is gone.

Beside the text and the HTML of the box goes an entry of its own MIME type. Other front ends ignore it; a saved notebook keeps it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from tuttilab.scheduler.domain.wire import JobView

MIME: Final = "application/vnd.tuttilab.job+json"
VERSION: Final = 1
HEAD_CLASS: Final = "tuttilab-box-head"
"""Of the part of the HTML that says the state: Lab shows the true one in its place."""
_NAME: Final = 200

Box = Mapping[str, object]


def job_box(view: JobView, now: float) -> Box:
    """One job. ``at``: when that was true, in seconds since the epoch."""
    return {
        "version": VERSION,
        "id": view.id,
        "name": view.name[:_NAME],
        "phase": view.phase,
        "is_ended": view.is_ended,
        "at": round(now, 3),
    }


def map_box(views: Sequence[JobView], stem: str, now: float) -> Box:
    """All jobs of one map. ``stem``: what their names begin with and no other job's does; ``phases``: how many are in which."""
    return {
        "version": VERSION,
        "id": views[0].id,
        "name": stem[:_NAME],
        "stem": stem[:_NAME],
        "count": len(views),
        "phases": dict(sorted(Counter(view.phase for view in views).items())),
        "is_ended": all(view.is_ended for view in views),
        "at": round(now, 3),
    }
