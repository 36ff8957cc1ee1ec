"""Those who wait for changes: how many one caller may have, and one read of the journal for all that wait at the same place."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

from tuttilab.scheduler.domain.errors import TooMany
from tuttilab.scheduler.store.base import Change

MOST_WATCHERS: Final = 256
"""Of one caller: long polls that wait, and streams."""
KEPT_PAGES: Final = 16
"""Whoever has heard of a change asks at the newest place again, so those who wait ask at few places."""

Read = Callable[[int], Coroutine[Any, Any, Sequence[Change]]]


class Watchers:
    def __init__(self) -> None:
        self._of_caller: Counter[str] = Counter()
        self._reads: dict[int, tuple[int, asyncio.Task[Sequence[Change]]]] = {}

    def enter(self, caller: str) -> None:
        """Count one more of the caller, until `leave`. Raises TooMany."""
        if self._of_caller[caller] >= MOST_WATCHERS:
            raise TooMany(
                f"changes: {caller} waits for changes {MOST_WATCHERS} times at once, and no more is allowed; end some of the waits."
            )
        self._of_caller[caller] += 1

    def leave(self, caller: str) -> None:
        self._of_caller[caller] -= 1
        if not self._of_caller[caller]:
            del self._of_caller[caller]

    @contextlib.contextmanager
    def one(self, caller: str) -> Iterator[None]:
        self.enter(caller)
        try:
            yield
        finally:
            self.leave(caller)

    async def page(self, since: int, newest: int, read: Read) -> Sequence[Change]:
        """The changes after ``since``: read once for all who ask while ``newest`` is the last that was committed."""
        known_newest, task = self._reads.get(since, (-1, None))
        if task is None or known_newest != newest or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(read(since), name="changes")
            self._reads.pop(since, None)
            self._reads[since] = (newest, task)
            if len(self._reads) > KEPT_PAGES:
                del self._reads[next(iter(self._reads))]
        # One who goes away meanwhile does not take the read from the others.
        return await asyncio.shield(task)
