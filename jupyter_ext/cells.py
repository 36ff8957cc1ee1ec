"""What a server of the hub tells of its cells: that one runs, while it runs. Such a server is not stopped for others.

A cell counts from the first look at it to the end of the silence after it, so a look comes often and a report seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from tuttilab.scheduler.errors import TuttiError

BUSY: Final = "busy"
"""What Jupyter calls a kernel with a running cell."""
LOOK_S: Final = 1.0
REPORT_S: Final = 15.0
"""A server is idle after a minute of silence: three reports in a row may be lost."""
RETRY_S: Final = 5.0

log = logging.getLogger(__name__)


class CellWatch:
    """``states``: of all kernels. ``report``: tells the control plane that a cell runs; may raise TuttiError."""

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
                log.debug("the control plane was not told that a cell runs, it is told again: %s", error)
            except Exception:
                # A mistake of ours must not leave a cell unprotected for the rest of the day.
                next_at = now() + RETRY_S
                log.exception("the watch over running cells stumbled and goes on")
            await asyncio.sleep(LOOK_S)
