"""How a job, run or pod is called in sentences for users: by its name and the beginning of its id, never by the id alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.model import Job, Run

SHORT_ID: Final = 8
LONGEST_NAME: Final = 40


def title(job: Job | Run) -> str:
    """``'train' (3f2a9c12)``: the name, and the part of the id that every surface accepts."""
    return title_of(job.id, job.name)


def title_of(id: str, name: str = "") -> str:
    """The same from its parts; the beginning of the id alone where nothing else is known."""
    if not name:
        return id[:SHORT_ID]
    shown = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return f"'{shown}' ({id[:SHORT_ID]})"


def pod_title(name: str) -> str:
    """``worker 0`` for ``01ab…-1-worker-0``: job and attempt are known where the sentence stands."""
    found = _POD_NAME.fullmatch(name)
    if found is None:
        return f"pod {name}"
    return found["role"] + (f" {found['rank']}" if found["rank"] else "")


_POD_NAME: Final = re.compile(r"[0-9a-z]{26}-\d+-(?P<role>.+?)(?:-(?P<rank>\d+))?(?:-g\d+)?")
