"""What an exit code says: shells write 128 + N for a program that signal N ended."""

from __future__ import annotations

import signal

_BASE = 128


def signal_of(exit_code: int | None) -> str | None:
    """``SIGKILL`` for 137. None for a code that stands for no signal, such as 255 (``sys.exit(-1)``) or 200."""
    if exit_code is None or exit_code <= _BASE:
        return None
    try:
        return signal.Signals(exit_code - _BASE).name
    except ValueError:
        return None
