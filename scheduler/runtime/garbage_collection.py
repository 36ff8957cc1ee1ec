"""Frequency of Python's cyclic garbage collection in a process that runs scheduling cycles.

A scheduling cycle creates a few objects per waiting gang and frees all of them by reference count. With Python's default thresholds
every other cycle includes a full collection, which doubles its time: 10,000 gangs create 50,000 objects.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 100_000
"""Net allocations before a collection of the young generation: more than a cycle holds at once."""


def collect_seldom() -> None:
    gc.set_threshold(YOUNG, 20, 20)
