"""Registers the names of sparkmagic in a kernel, and removes them again."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Final

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.extension import spark_magics
from tuttilab.magics.spark.display import Line, show
from tuttilab.magics.sparkmagic.cells import SparkmagicCells

NAMES: Final = (
    *("sql", "pretty", "local", "send_to_spark", "configure", "info", "logs", "cleanup", "delete", "manage_spark", "matplot"),
)


_ALONE: Final = re.compile(r"%%(send_to_spark|configure|info|logs|cleanup|delete|manage_spark)\b([^\n]*)")
_THEIRS: Final = ("sparkmagic", "sparkmagic.magics")


def load(ipython: InteractiveShell) -> None:
    """Registers the names; says in one line where cells of `%%spark` have their names now.

    Where sparkmagic itself is not installed, `%load_ext sparkmagic.magics` of a notebook is answered from here on.
    """
    if isinstance(getattr(ipython.magics_manager.magics["cell"].get("spark"), "__self__", None), SparkmagicCells):
        return  # by another of its names
    if find_spec("sparkmagic") is None:
        for name in _THEIRS:
            sys.modules[name] = _Answer(name)
    ipython.input_transformers_cleanup.append(_without_a_body)
    ipython.register_magics(SparkmagicCells(ipython, spark_magics(ipython)))
    show(Line("`%%spark` has the options and the names of its own that it had in sparkmagic; there is no Livy."))


def unload(ipython: InteractiveShell) -> None:
    """Removes what `load` registered."""
    for kind in ("line", "cell"):
        for name in NAMES:
            ipython.magics_manager.magics[kind].pop(name, None)
    for name in _THEIRS:
        if isinstance(sys.modules.get(name), _Answer):
            del sys.modules[name]
    if _without_a_body in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.remove(_without_a_body)
    ipython.register_magics(spark_magics(ipython))


def _without_a_body(lines: list[str]) -> list[str]:
    """``%%info`` alone in a cell: IPython takes no cell magic without a body, so it becomes the line magic."""
    written = [line for line in lines if line.strip()]
    match = _ALONE.fullmatch(written[0].strip()) if len(written) == 1 else None
    return [f"get_ipython().run_line_magic({match[1]!r}, {match[2].strip()!r})\n"] if match else lines


class _Answer(ModuleType):
    """Stands where sparkmagic would be."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "Answered by tuttilab.magics.sparkmagic.")
        self.__path__: list[str] = []
        self.load_ipython_extension = load
        self.unload_ipython_extension = unload
