"""How many unfinished jobs a user may have, decided in the turn that submits them."""

from __future__ import annotations

from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.errors import TooManyJobs


def check_caps(state: State, limits: Limits, owner: str, fresh: int) -> None:
    """Raises TooManyJobs if ``fresh`` more jobs of the owner would be more than `limits` allow."""
    if not fresh:
        return
    has = state.unfinished
    if has.waiting(owner) + fresh > limits.user_waiting_jobs:
        _refuse(owner, has.waiting(owner), "waiting", fresh, limits.user_waiting_jobs, "user_waiting_jobs", "started")
    if has.live(owner) + fresh > limits.user_live_jobs:
        _refuse(owner, has.live(owner), "unfinished", fresh, limits.user_live_jobs, "user_live_jobs", "ended")


def _refuse(owner: str, has: int, which: str, fresh: int, allowed: int, key: str, until: str) -> None:
    raise TooManyJobs(
        f"{owner} has {has} {which} {'job' if has == 1 else 'jobs'}, and {fresh} more would pass the limit of {allowed} "
        f"(limits.{key}); wait until some have {until}, or cancel some with `tuttilab cancel`. Nothing was submitted."
    )
