"""Notebook magics: what they capture, submit and display.

A magic parses its line, captures the cell, calls the client and displays. It decides nothing about jobs and never calls a
cluster: the service does. `%load_ext tuttilab.magics` registers all magics in a kernel; `submit` and `sweep` do the same in
plain Python. Imports go one way: `submission`, `jobs`, `spark`, `shared`; `extension` and `completion` see all of them, and
`linkis` and `sparkmagic`, the names of other systems, stand above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from tuttilab.magics.jobs.handle import JobHandle
    from tuttilab.magics.jobs.results import RemoteError
    from tuttilab.magics.submission.python_api import submit, sweep

__all__ = ["submit", "sweep", "JobHandle", "RemoteError", "load_ipython_extension", "unload_ipython_extension"]

_MODULES = {
    "submit": "submission.python_api",
    "sweep": "submission.python_api",
    "JobHandle": "jobs.handle",
    "RemoteError": "jobs.results",
}


def __getattr__(name: str) -> Any:
    """Imports the public names on first use, so that importing one module does not load all. Any: as in PEP 562."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """``%load_ext tuttilab.magics``. Does not connect yet: the first use of a magic does."""
    from tuttilab.magics.extension import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """``%unload_ext tuttilab.magics``. Jobs are not affected."""
    from tuttilab.magics.extension import unload

    unload(ipython)
