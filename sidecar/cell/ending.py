"""The end of a cell's process: as a script ends, but not for ever.

Threads that are no daemons are waited for, functions of `atexit` run, and what the cell and the user's modules hold is released, so
that files are flushed and closed. After `LIMIT_S` (TUTTILAB_EXIT_WAIT_S) what is still not done is named in the log and given up: a
thread that a library left behind must not hold the job.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

LIMIT_S = 300.0
TOLD_AFTER_S = 3.0
_STDLIB = os.path.dirname(os.__file__) + os.sep


def finish(status: int, here: str) -> NoReturn:
    limit = limit_s()
    signal.signal(signal.SIGTERM, lambda *_: _stopped(status))
    threading.Thread(target=_watch, args=(status, limit), name="tuttilab-end", daemon=True).start()
    for step in (_join_threads, atexit._run_exitfuncs, lambda: _release(here)):
        try:
            step()
        except BaseException as error:  # as at the end of any script: it is told, and the end goes on
            say(f"{type(error).__name__} while the job ended: {error}")
    _flush()
    os._exit(status)


def _stopped(status: int) -> None:
    """What the cell made is saved: nobody has to wait for what it left running."""
    say(f"told to stop: {_left()} is given up.")
    _flush()
    os._exit(status)


def limit_s() -> float:
    try:
        return max(0.0, float(os.environ["TUTTILAB_EXIT_WAIT_S"]))
    except (KeyError, ValueError):
        return LIMIT_S


def _join_threads() -> None:
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls at this point


def _release(here: str) -> None:
    """As the interpreter does at its end, in the same order: names with an underscore first."""
    threading.excepthook = lambda *_: None  # of daemon threads, which the interpreter would stop here
    modules = [sys.modules.get("__main__"), *(module for module in list(sys.modules.values()) if _is_users(module, here))]
    for module in modules:
        names: dict[str, Any] = getattr(module, "__dict__", {})
        for is_private in (True, False):
            for name in list(names):
                if name.startswith("_") == is_private and not name.startswith("__"):
                    names[name] = None
    gc.collect()


def _is_users(module: Any, here: str) -> bool:
    """A module from beside the notebook or from what was sent along; not a library."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or file.startswith((_STDLIB, here)) or "site-packages" in file:
        return False
    from . import errors

    return errors.is_own(file, set())


def _watch(status: int, limit: float) -> None:
    time.sleep(min(TOLD_AFTER_S, limit))
    say(f"the cell has ended; at most {limit:g} s are left for what it left running: {_left()}.")
    time.sleep(max(0.0, limit - TOLD_AFTER_S))
    say(f"given up after {limit:g} s: {_left()}. What it had not written is lost.")
    _flush()
    os._exit(status)


def _left() -> str:
    """Threads and child processes by name."""
    found = []
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            target = getattr(getattr(thread, "_target", None), "__name__", "")
            found.append(f"thread {thread.name}" + (f" ({target})" if target and target not in thread.name else ""))
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        found += [f"process {child.name}" for child in multiprocessing.active_children()]
    return ", ".join(found[:10]) or "functions of atexit, or objects that are being released"


def say(sentence: str) -> None:
    try:
        sys.stderr.write(f"tuttilab: {sentence}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # the cell closed it


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass
