"""`httpx` without its own command line, whose imports (rich, pygments, click) cost every process 0.15 s and nobody here uses.

Import it from here: `from tuttilab.scheduler.runtime.http_library import httpx`. Where httpx was imported before, nothing is
changed.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import cast

# None in the place of a module forbids its import, which typeshed does not know.
_MODULES = cast("dict[str, ModuleType | None]", sys.modules)
_COMMAND_LINE = "httpx._main"
_IS_FIRST = "httpx" not in _MODULES

if _IS_FIRST:
    # httpx expects this ImportError: the command line is an extra of it.
    _MODULES[_COMMAND_LINE] = None

import httpx  # noqa: E402  see above

if _IS_FIRST:
    del _MODULES[_COMMAND_LINE]

__all__ = ["httpx"]
