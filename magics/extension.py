"""Making all magics known to a kernel, and taking them away again."""

from __future__ import annotations

from typing import Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from tuttilab.magics.complete import Table, matcher
from tuttilab.magics.connection import disconnect
from tuttilab.magics.dag_magic import DagMagics
from tuttilab.magics.jobs_magic import JobsMagics
from tuttilab.magics.parse import UsageError
from tuttilab.magics.send import EXECUTIONS
from tuttilab.magics.spark_attach import has_spark
from tuttilab.magics.submit_magic import SubmitMagics

_NO_SPARK: Final = "Spark is not installed in this kernel; `%pip install 'tuttilab[spark]'`, then restart the kernel."
_MATCHER: Final = "_tuttilab_matcher"
_NAMES: Final = ("submit", "dag", "jobs", "job", "quota", "attach", "spark", "sparksql")


@magics_class
class NoSparkMagics(Magics):
    """Stand in for the Spark magics where the extra is missing."""

    @no_var_expand
    @line_cell_magic
    def spark(self, line: str, cell: str | None = None) -> None:
        """Says how to install Spark."""
        raise UsageError(_NO_SPARK)

    @no_var_expand
    @line_cell_magic
    def sparksql(self, line: str, cell: str | None = None) -> None:
        """Says how to install Spark."""
        raise UsageError(_NO_SPARK)


def load(ipython: InteractiveShell) -> None:
    """Register everything. A second load replaces the first."""
    unload(ipython)
    jobs = JobsMagics(ipython)
    ipython.register_magics(SubmitMagics, DagMagics, jobs)
    tables: dict[str, Table] = {}
    if has_spark():
        from tuttilab.magics import spark_magic
        from tuttilab.magics.spark_provider import RestProvider

        jobs.spark_provider = RestProvider()
        spark_magic.register(ipython, jobs.spark_provider)
        tables = dict(spark_magic.OPTIONS)
    else:
        ipython.register_magics(NoSparkMagics)
    ipython.events.register("pre_run_cell", EXECUTIONS.begin)
    if ipython.Completer is not None:
        found = matcher(ipython, tables)
        setattr(ipython, _MATCHER, found)
        ipython.Completer.custom_matchers.append(found)


def unload(ipython: InteractiveShell) -> None:
    """Take everything away that `load` brought; nothing happens when it was not loaded."""
    for kind in ("line", "cell"):
        for name in _NAMES:
            ipython.magics_manager.magics[kind].pop(name, None)
    if EXECUTIONS.begin in ipython.events.callbacks["pre_run_cell"]:
        ipython.events.unregister("pre_run_cell", EXECUTIONS.begin)
    found = getattr(ipython, _MATCHER, None)
    if found is not None and ipython.Completer is not None and found in ipython.Completer.custom_matchers:
        ipython.Completer.custom_matchers.remove(found)
    disconnect()
