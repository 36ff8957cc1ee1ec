"""How often Python looks for cyclic garbage in a process that runs cycles.

A cycle makes a few objects for each waiting gang and gives all of them back by reference count. With Python's own thresholds a full
collection falls into every other cycle and doubles its time: 10,000 gangs make 50,000 objects.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 100_000
"""Objects made and not given back before the young ones are looked through: more than a cycle holds at once."""


def collect_seldom() -> None:
    gc.set_threshold(YOUNG, 20, 20)
