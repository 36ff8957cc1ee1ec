"""Registers all magics in a kernel, and removes them again."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from tuttilab.magics.completion import Table, matcher
from tuttilab.magics.jobs.dag_magic import DagMagics
from tuttilab.magics.jobs.jobs_magic import JobsMagics
from tuttilab.magics.shared.connection import disconnect
from tuttilab.magics.shared.parse import UsageError, help_of
from tuttilab.magics.spark.session import has_spark
from tuttilab.magics.submission.modules import module_path
from tuttilab.magics.submission.send import EXECUTIONS
from tuttilab.magics.submission.submit_magic import SubmitMagics

if TYPE_CHECKING:
    from tuttilab.magics.spark.magic import SparkMagics

_NO_SPARK: Final = "Spark is not installed in this kernel; `%pip install 'tuttilab[spark]'`, then restart the kernel."
_MATCHER: Final = "_tuttilab_matcher"
_NAMES: Final = ("submit", "dag", "jobs", "job", "quota", "attach", "spark", "sparksql")


@magics_class
class NoSparkMagics(Magics):
    """Replaces the Spark magics where the extra is not installed."""

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
    """Registers all magics. A second load replaces the first."""
    unload(ipython)
    jobs = JobsMagics(ipython)
    ipython.register_magics(SubmitMagics, DagMagics, jobs)
    tables: dict[str, Table] = {}
    if has_spark():
        from tuttilab.magics.spark import magic as spark_magic
        from tuttilab.magics.spark.provider import RestProvider

        jobs.spark_provider = RestProvider()
        spark_magic.register(ipython, jobs.spark_provider, module_path)
        tables = dict(spark_magic.OPTIONS)
    else:
        ipython.register_magics(NoSparkMagics)
    _document(ipython)
    if _help_without_a_body not in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.append(_help_without_a_body)
    ipython.events.register("pre_run_cell", EXECUTIONS.begin)
    if ipython.Completer is not None:
        found = matcher(ipython, tables)
        setattr(ipython, _MATCHER, found)
        ipython.Completer.custom_matchers.append(found)


def spark_magics(ipython: InteractiveShell) -> SparkMagics:
    """The Spark magics of a kernel, for the names of other systems; all magics are loaded when they are not. Raises UsageError."""
    if not has_spark():
        raise UsageError(_NO_SPARK)
    if "sparksql" not in ipython.magics_manager.magics["line"]:
        load(ipython)
    found: SparkMagics = ipython.magics_manager.registry["SparkMagics"]
    return found


def _document(ipython: InteractiveShell) -> None:
    """Adds the options to the docstring of each magic, so that ``%%submit?`` shows them."""
    for name in _NAMES:
        of_cell, of_line = (ipython.magics_manager.magics[kind].get(name) for kind in ("cell", "line"))
        text = help_of(functools.partial(of_cell, cell="pass")) if of_cell is not None else help_of(of_line)
        for function in (of_cell, of_line):
            own = getattr(function, "__func__", None)
            if own is not None and text:
                first = (own.__doc__ or "").split("\n\n", 1)[0]
                own.__doc__ = f"{first}\n\n{text}"


_ONLY_HELP: Final = re.compile(rf"\s*%%({'|'.join(_NAMES)})\b(.*\s(?:--help|-h)\s*)")


def _help_without_a_body(lines: list[str]) -> list[str]:
    """``%%submit --help`` alone in a cell: IPython takes no cell magic without a body, so it becomes the line magic."""
    written = [line for line in lines if line.strip()]
    match = _ONLY_HELP.fullmatch(written[0]) if len(written) == 1 else None
    return [f"get_ipython().run_cell_magic({match[1]!r}, {match[2].strip()!r}, '--help')\n"] if match else lines


def unload(ipython: InteractiveShell) -> None:
    """Removes what `load` registered; does nothing when it was not loaded."""
    for kind in ("line", "cell"):
        for name in _NAMES:
            ipython.magics_manager.magics[kind].pop(name, None)
    if _help_without_a_body in ipython.input_transformers_cleanup:
        ipython.input_transformers_cleanup.remove(_help_without_a_body)
    if EXECUTIONS.begin in ipython.events.callbacks["pre_run_cell"]:
        ipython.events.unregister("pre_run_cell", EXECUTIONS.begin)
    found = getattr(ipython, _MATCHER, None)
    if found is not None and ipython.Completer is not None and found in ipython.Completer.custom_matchers:
        ipython.Completer.custom_matchers.remove(found)
    disconnect()
