"""Registers the names of sparkmagic in a kernel, and removes them again."""

from __future__ import annotations

from typing import Final

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.extension import spark_magics
from tuttilab.magics.spark.display import Line, show
from tuttilab.magics.sparkmagic.cells import SparkmagicCells

NAMES: Final = (
    *("sql", "pretty", "local", "send_to_spark", "configure", "info", "logs", "cleanup", "delete", "manage_spark", "matplot"),
)


def load(ipython: InteractiveShell) -> None:
    """Registers the names; says in one line where cells of `%%spark` have their names now."""
    ipython.register_magics(SparkmagicCells(ipython, spark_magics(ipython)))
    show(Line("`%%spark` has the options and the names of its own that it had in sparkmagic; there is no Livy."))


def unload(ipython: InteractiveShell) -> None:
    """Removes what `load` registered."""
    for kind in ("line", "cell"):
        for name in NAMES:
            ipython.magics_manager.magics[kind].pop(name, None)
    ipython.register_magics(spark_magics(ipython))
