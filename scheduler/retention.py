"""What is older than the configuration keeps is let go of: ended jobs, and the lines of the journal before a checkpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.config import Config
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.errors import StoreError, Unavailable
from tuttilab.scheduler.model import Attempt, Job
from tuttilab.scheduler.store.base import Store
from tuttilab.scheduler.store.rows import is_over
from tuttilab.scheduler.turn import Turn

T = TypeVar("T")
log = logging.getLogger(__name__)

TIDY_FIRST_S: Final = 60.0
"""After the start: a control plane that ends when nobody needs it may never be an hour old."""
TIDY_EVERY_S: Final = 3600.0
TIDY_AT_ONCE: Final = 200
"""Old jobs that are deleted in one commit."""


class Loop(Protocol):
    """What retention needs of the service."""

    config: Config
    store: Store
    state: State

    def now(self) -> float: ...

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        """``run`` in the next turn; its answer after the commit of what it applied."""
        ...


class Retention:
    def __init__(self, loop: Loop, turning: asyncio.Lock) -> None:
        """``turning``: held by a turn, and by a checkpoint, which is one state of all rows."""
        self._loop = loop
        self._turning = turning

    async def now_and_then(self) -> None:
        pause = TIDY_FIRST_S
        while True:
            await asyncio.sleep(pause)
            pause = TIDY_EVERY_S
            try:
                await self.tidy()
            except (StoreError, Unavailable) as error:
                log.warning("old jobs and events could not be removed, they are looked at again: %s", error)

    async def tidy(self) -> tuple[int, int]:
        """Let go of what is older than the configuration keeps; answers how many ended jobs and journal lines went."""
        loop, store, limits = self._loop, self._loop.store, self._loop.config.limits
        deleted = trimmed = 0
        while ids := await store.ended_before(loop.now() - limits.keep_jobs_s, TIDY_AT_ONCE):
            old = [(job, await store.attempts(job_id)) for job_id in ids if (job := await store.job(job_id)) is not None]
            went = await loop.ask(partial(self._delete_old, old))
            deleted += went
            if not went:
                break
        before = loop.now() - limits.keep_journal_s
        oldest = await store.oldest_line_at()
        # Not at each call: a checkpoint copies all rows.
        if oldest is not None and oldest < before - limits.keep_journal_s / 10:
            async with self._turning:
                seq = await store.checkpoint(loop.state.epoch, tuple(loop.state.clusters.values()))
            await loop.ask(partial(self._forget_runs, before))
            while gone := await store.trim(loop.state.epoch, before):
                trimmed += gone
            log.info("checkpoint at %d, %d older events and %d old jobs removed", seq, trimmed, deleted)
        return deleted, trimmed

    @staticmethod
    def _delete_old(old: Sequence[tuple[Job, Sequence[Attempt]]], turn: Turn) -> int:
        # Of what runs too: it may be queued again.
        wanted = {job_id for job in turn.state.unended() for job_id in job.after}
        chosen = [job for job, attempts in old if job.id not in wanted and turn.adopt(job, attempts)]
        for job in chosen:
            turn.apply(ev.JobDeleted(job.id), job.id)
        return len(chosen)

    @staticmethod
    def _forget_runs(before: float, turn: Turn) -> None:
        """Out of memory before their rows go: one that has no row any more is not to be retried."""
        for run in [run for run in turn.state.runs.values() if is_over(run, before)]:
            del turn.state.runs[run.id]
