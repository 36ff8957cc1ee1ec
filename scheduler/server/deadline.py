"""Ends the process when an orderly end takes too long, because a thread waits for something that never comes.

Nothing is lost by that: what was acknowledged is committed, and pods go on by themselves, as after a power cut.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from typing import Final

END_S: Final = 20.0
"""From the signal to the end of the process at the latest. Kubernetes and systemd kill after 30 and 90 s by default."""

log = logging.getLogger(__name__)


def end_within(seconds: float = END_S) -> threading.Timer:
    """Start the countdown; the exit code is 1 when it runs out. The threads' stacks go to stderr and thus to the log."""
    timer = threading.Timer(seconds, _end, (seconds,))
    timer.daemon = True
    timer.start()
    return timer


def _end(seconds: float) -> None:
    log.error("a thread still waits %g s after the end was asked for; the process ends without it", seconds)
    faulthandler.dump_traceback(sys.stderr)
    os._exit(1)
