"""Reports running cells of a hub's server to the control plane, which does not preempt a server with a running cell.

A server counts as busy until a minute after the last report, so kernels are polled often and reports are sent seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from tuttilab.scheduler.domain.errors import TuttiError

BUSY: Final = "busy"
"""Jupyter's state of a kernel with a running cell."""
POLL_S: Final = 1.0
REPORT_S: Final = 15.0
"""A server is idle after a minute of silence: three reports in a row may be lost."""
RETRY_S: Final = 5.0

log = logging.getLogger(__name__)


class CellWatch:
    """``states``: the states of all kernels. ``report``: reports a running cell to the control plane; may raise TuttiError."""

    def __init__(self, states: Callable[[], Iterable[str]], report: Callable[[], Awaitable[None]]) -> None:
        self._states = states
        self._report = report
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tuttilab running cells")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        next_at = now()
        while True:
            try:
                if now() >= next_at and BUSY in self._states():
                    next_at = now() + REPORT_S
                    await self._report()
            except TuttiError as error:
                next_at = now() + RETRY_S
                log.debug("the report of a running cell failed and is retried: %s", error)
            except Exception:
                # A bug here must not leave cells unprotected for the rest of the day.
                next_at = now() + RETRY_S
                log.exception("the watch over running cells failed and goes on")
            await asyncio.sleep(POLL_S)
