"""Runs scheduling cycles: each on a snapshot, in a thread beside the loop, with its decision applied in a later turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, TypeVar

from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.snapshot import Snapshot
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.errors import StoreError, Unavailable
from tuttilab.scheduler.runtime.seldom import SeldomLog
from tuttilab.scheduler.service.clock import World
from tuttilab.scheduler.service.turn import Turn

T = TypeVar("T")
log = logging.getLogger(__name__)

LONGEST_PAUSE_S: Final = 5.0
"""Between two checks whether a cycle is due."""
RETRY_S: Final = 1.0
"""Before the next cycle when a decision could not be committed."""
CYCLE_REST: Final = 4.0
"""Pause after a cycle, as a multiple of its duration: cycles take at most a fifth of the time."""


class Loop(Protocol):
    """What cycles need of the service."""

    state: State
    deposed: asyncio.Event

    def now(self) -> float: ...

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        """``run`` in the next turn; returns after the commit of what it applied."""
        ...


class Cycles:
    def __init__(self, loop: Loop, world: World) -> None:
        self._loop = loop
        self._world = world
        self._is_requested = asyncio.Event()
        """Something changed since the snapshot of the last cycle."""
        self._failures = SeldomLog(log)

    def request(self) -> None:
        """Run a cycle soon: the state has changed."""
        self._is_requested.set()

    async def run(self) -> None:
        """Run cycles until another process leads."""
        loop = self._loop
        next_at: float | None = None
        while not loop.deposed.is_set():
            pause = LONGEST_PAUSE_S if next_at is None else min(max(next_at - loop.now(), 0.0), LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_requested.wait()
            begun = self._world.monotonic()
            try:
                next_at = await self._cycle()
            except (StoreError, Unavailable) as error:
                self._failures.warning(f"what was decided could not be committed, it is decided again: {error}")
                next_at = loop.now() + RETRY_S
            await asyncio.sleep(CYCLE_REST * (self._world.monotonic() - begun))

    async def _cycle(self) -> float | None:
        """One cycle, unless it would decide the same as the last one. Returns when the next back-off ends."""
        loop = self._loop
        snapshot, now, version = await loop.ask(lambda turn: (self._snapshot(turn.now), turn.now, turn.state.version))
        if snapshot is None:
            return loop.state.next_cycle_at if loop.state.has_demand() else None
        decision = await self._world.in_thread(partial(schedule, snapshot, now))
        await loop.ask(lambda turn: turn.apply_decision(decision, version))
        return decision.next_at

    def _snapshot(self, now: float) -> Snapshot | None:
        """None when there is nothing to decide, or nothing has changed since the last cycle."""
        self._is_requested.clear()
        state = self._loop.state
        return state.snapshot() if not state.is_up_to_date(now) and state.has_demand() else None
