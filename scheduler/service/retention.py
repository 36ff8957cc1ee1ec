"""Deletes ended jobs and journal lines that are older than the configured retention."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import StoreError, Unavailable
from tuttilab.scheduler.domain.model import Attempt, Job
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.store.base import Store
from tuttilab.scheduler.store.rows import has_ended_before

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_PURGE_S: Final = 60.0
"""After the start: a control plane that ends when it is idle may never run for an hour."""
PURGE_EVERY_S: Final = 3600.0
PURGE_BATCH: Final = 200
"""Jobs deleted in one commit."""


class Loop(Protocol):
    """What retention needs of the service."""

    config: Config
    store: Store
    state: State

    def now(self) -> float: ...

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        """``run`` in the next turn; returns after the commit of what it applied."""
        ...


class Retention:
    def __init__(self, loop: Loop, turn_lock: asyncio.Lock) -> None:
        """``turn_lock``: held by each turn, and during a checkpoint, so that it is one consistent state of all rows."""
        self._loop = loop
        self._turn_lock = turn_lock

    async def purge_periodically(self) -> None:
        pause = FIRST_PURGE_S
        while True:
            await asyncio.sleep(pause)
            pause = PURGE_EVERY_S
            try:
                await self.purge()
            except (StoreError, Unavailable) as error:
                log.warning("old jobs and events could not be removed, they are looked at again: %s", error)

    async def purge(self) -> tuple[int, int]:
        """Delete what is older than the configured retention; return the numbers of deleted jobs and journal lines."""
        loop, store, limits = self._loop, self._loop.store, self._loop.config.limits
        deleted = trimmed = 0
        while ids := await store.ended_before(loop.now() - limits.keep_jobs_s, PURGE_BATCH):
            old = [(job, await store.attempts(job_id)) for job_id in ids if (job := await store.job(job_id)) is not None]
            count = await loop.ask(partial(self._delete_old, old))
            deleted += count
            if not count:
                break
        before = loop.now() - limits.keep_journal_s
        oldest = await store.oldest_line_at()
        # A checkpoint copies all rows, so only when a tenth more than the retention has accumulated.
        if oldest is not None and oldest < before - limits.keep_journal_s / 10:
            async with self._turn_lock:
                seq = await store.checkpoint(loop.state.epoch, tuple(loop.state.clusters.values()))
            await loop.ask(partial(self._forget_runs, before))
            while count := await store.trim(loop.state.epoch, before):
                trimmed += count
            log.info("checkpoint at %d, %d older events and %d old jobs removed", seq, trimmed, deleted)
        return deleted, trimmed

    @staticmethod
    def _delete_old(old: Sequence[tuple[Job, Sequence[Attempt]]], turn: Turn) -> int:
        # Predecessors of running jobs too: a job may be queued again.
        wanted = {job_id for job in turn.state.unfinished_jobs() for job_id in job.after}
        chosen = [job for job, attempts in old if job.id not in wanted and turn.adopt(job, attempts)]
        for job in chosen:
            turn.apply(ev.JobDeleted(job.id), job.id)
        return len(chosen)

    @staticmethod
    def _forget_runs(before: float, turn: Turn) -> None:
        """Drop runs from memory before their rows are deleted, so that a run without a row cannot be retried."""
        for run in [run for run in turn.state.runs.values() if has_ended_before(run, before)]:
            del turn.state.runs[run.id]
