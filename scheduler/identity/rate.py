"""How fast one user may write, and how fast who has no token is refused: token buckets in memory of the process that answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.domain.errors import TooFast
from tuttilab.scheduler.domain.requests import Who

MOST_BUCKETS: Final = 10_000
REFUSALS_AT_ONCE: Final = 100
REFUSALS_PER_S: Final = 50.0
MOST_WAITING: Final = 64
"""Refusals that wait: each has a connection, and these must stay far fewer than there may be."""
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class WriteRate:
    """The bucket of a user holds ``user_writes_at_once`` writes and fills by ``user_writes_per_s``.

    The hub itself is exempt: it writes for all users. A bucket that is forgotten among ten thousand others is full again.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = limits.user_writes_per_s
        self._most = limits.user_writes_at_once
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By user: writes left, and when that was so. The one who wrote last is last."""

    def take(self, who: Who, method: str) -> None:
        """Count one request. Raises TooFast, with when to try again, while the bucket is empty."""
        if method in READS or who.is_hub:
            return
        now = self._clock()
        left, at = self._buckets.pop(who.name, (float(self._most), now))
        left = min(left + (now - at) * self._per_s, float(self._most))
        is_taken = left >= 1
        self._buckets[who.name] = (left - 1 if is_taken else left, now)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if not is_taken:
            refusal = TooFast(
                f"{who.name} has sent {self._most} writes at once, and {self._per_s:g} a second are allowed "
                "(limits.user_writes_per_s); send them slower, or many jobs in one batch. Nothing was changed."
            )
            refusal.retry_after_s = math.ceil((1 - left) / self._per_s)
            raise refusal


class RefusalRate:
    """Refusals of requests without a valid token: more than `REFUSALS_PER_S` wait, so that they leave the process to others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(REFUSALS_AT_ONCE)
        self._at = clock()
        self._waiting = 0

    async def wait(self) -> None:
        """Until the refusal may be sent; at once where too many wait already."""
        if self._waiting >= MOST_WAITING:
            return
        now = self._clock()
        self._left = min(self._left + (now - self._at) * REFUSALS_PER_S, float(REFUSALS_AT_ONCE)) - 1
        self._at = now
        if self._left >= 0:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(-self._left / REFUSALS_PER_S)
        finally:
            self._waiting -= 1
