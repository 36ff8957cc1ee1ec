"""Named points at which a test can kill the process, as a power cut would. They do nothing unless a variable names one.

`TUTTILAB_CRASH_AT=commit.after:3` kills the process when it reaches `commit.after` for the third time. `TUTTILAB_STOP_AT` stops it
there instead, as on a machine that hangs, until it is continued. `TUTTILAB_CRASH_LOG=FILE` appends the name of every point that is
reached, so that a test can enumerate them.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

CRASH_AT: Final = "TUTTILAB_CRASH_AT"
STOP_AT: Final = "TUTTILAB_STOP_AT"
CRASH_LOG: Final = "TUTTILAB_CRASH_LOG"


def _point(environ: Mapping[str, str]) -> Callable[[str], None]:
    """The function behind `point` in a process with these variables."""
    number = signal.SIGSTOP if STOP_AT in environ else signal.SIGKILL
    wanted, _, times = environ.get(STOP_AT, environ.get(CRASH_AT, "")).partition(":")
    trace = environ.get(CRASH_LOG, "")
    if not wanted and not trace:
        return lambda name: None
    reached: Counter[str] = Counter()

    def reach(name: str) -> None:
        reached[name] += 1
        if trace:
            with open(trace, "a") as file:
                file.write(name + "\n")
        if name == wanted and reached[name] == int(times or "1"):
            # To this thread: a signal to the process could let it run on for a moment.
            signal.raise_signal(number)

    return reach


point: Final = _point(os.environ)
"""``point(name)`` is called before and after each step that a crash may interrupt: commits, calls to clusters, file writes."""
