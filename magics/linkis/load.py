"""Registers the names of LinkisMagic in a kernel, and removes them again."""

from __future__ import annotations

import os
from typing import Final

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.extension import spark_magics
from tuttilab.magics.linkis.cells import LinkisCells
from tuttilab.magics.linkis.config import read_config
from tuttilab.magics.linkis.jobs import LinkisJobs
from tuttilab.magics.spark.display import Line, show

NAMES: Final = ("pyspark", "sql", "listjob", "progress", "status", "log", "kill", "listengine", "enginekill", "flashcookies")
_TOLD: Final = (
    "`%%spark` is Scala now, as in LinkisMagic; `%%pyspark` is Python. `%unload_ext tuttilab.magics.linkis_magic` ends it."
)


def load(ipython: InteractiveShell) -> None:
    """Registers the names; says in one line that `%%spark` has another language now. Raises UsageError for a bad configuration."""
    if isinstance(getattr(ipython.magics_manager.magics["cell"].get("spark"), "__self__", None), LinkisCells):
        return  # by another of its names
    config = read_config()
    ours = spark_magics(ipython)
    if config.workspace is not None:
        os.environ.setdefault("TUTTILAB_WORKSPACE", str(config.workspace))
    ipython.register_magics(LinkisCells(ipython, ours, config), LinkisJobs(ipython, ours.sessions))
    for line in (_TOLD, *config.notes):
        show(Line(line))


def unload(ipython: InteractiveShell) -> None:
    """Removes what `load` registered."""
    for kind in ("line", "cell"):
        for name in NAMES:
            ipython.magics_manager.magics[kind].pop(name, None)
    ipython.register_magics(spark_magics(ipython))
