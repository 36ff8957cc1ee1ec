"""Warnings that callers can cause as often as they like: one line in a while, with the number of those that were left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0


class SeldomLog:
    """One kind of warning. The first is written at once, the next at the earliest after ``every_s``."""

    def __init__(self, log: logging.Logger, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._every_s = every_s
        self._clock = clock
        self._next_at = float("-inf")
        self._left_out = 0

    def warning(self, sentence: str) -> None:
        if self._clock() < self._next_at:
            self._left_out += 1
            return
        more = f" ({self._left_out} more like this before)" if self._left_out else ""
        self._log.warning("%s%s", sentence, more)
        self._next_at = self._clock() + self._every_s
        self._left_out = 0
