"""The notebook's side: line and cell magics, what they capture, and how results are shown.

A magic parses, captures, calls the client and displays. It decides nothing about jobs and never talks to a cluster: that is the
service's. `%load_ext tuttilab.magics` makes all of them known to a kernel; `submit` and `sweep` are their twins in plain Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from tuttilab.magics.api import submit, sweep
    from tuttilab.magics.handle import JobHandle
    from tuttilab.magics.results import RemoteError

__all__ = ["submit", "sweep", "JobHandle", "RemoteError", "load_ipython_extension", "unload_ipython_extension"]

_HOMES = {"submit": "api", "sweep": "api", "JobHandle": "handle", "RemoteError": "results"}


def __getattr__(name: str) -> Any:
    """The public names, imported on first use: an import of one magic's module shall not pay for all. Any: as in PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """``%load_ext tuttilab.magics``. Connects to nothing: the first use of a magic does."""
    from tuttilab.magics.extension import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """``%unload_ext tuttilab.magics``. Jobs go on."""
    from tuttilab.magics.extension import unload

    unload(ipython)
