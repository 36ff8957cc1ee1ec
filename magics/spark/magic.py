"""`%%spark`, `%%sparksql`, `%sparksql` and `%spark`: reading the line, running the cell, handing over the result.

Thin on purpose: a cell's life is in spark_cell, SQL text in spark_sql, sessions in spark_session, and what a person sees
in spark_display, spark_progress and spark_errors.
"""

from __future__ import annotations

import atexit
import os
import tokenize
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.display import display

from tuttilab.magics.shared.parse import Option, Parsed, UsageError, duration_s, option_table, parse_line, variable_name
from tuttilab.magics.shared.parse import whole_number as whole
from tuttilab.magics.spark.cell import SparkCell
from tuttilab.magics.spark.data.values import alike_literals, as_literal, as_spark_frame, is_local_frame, list_items
from tuttilab.magics.spark.display import Line, show
from tuttilab.magics.spark.errors import SparkCellError, missing_table, short_python_error, short_sql_error, short_text
from tuttilab.magics.spark.progress import ProgressLine, Status
from tuttilab.magics.spark.python import compiled
from tuttilab.magics.spark.results import AS_DICT, Results
from tuttilab.magics.spark.session import SessionProvider, SessionRequest
from tuttilab.magics.spark.session_magic import SESSION_OPTIONS, session_command
from tuttilab.magics.spark.sessions import OpenSession, Sessions, stopped_waiting
from tuttilab.magics.spark.sql import Bound, Statement, bind, split_statements
from tuttilab.scheduler.domain.errors import TuttiError

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import DataFrame

_COMMON = (
    Option("--session", "S", help="the Spark session to use (default: the one of %spark use)"),
    Option("--as", choices=("pandas", "arrow", "polars", "spark"), default="pandas", help="form in which VAR is bound"),
    Option("--limit", "N", whole, default=1000, help="rows shown; VAR and --save get all"),
    Option("--view", "V", variable_name, help="also name the result as a temporary view"),
    Option("--save", "PATH", help="write to .parquet, .csv or .json below the workspace; a path ending in / is a folder"),
    Option("--overwrite", help="let --save replace what exists"),
    Option("--timeout", "T", duration_s, help="end the cell after this time, such as 10m"),
    Option("--quiet", help="run it, and show no preview and no progress"),
)
SPARK_OPTIONS = (*_COMMON, Option("--lang", choices=("python", "sql", "scala"), default="python", help="of the body"))
SQL_OPTIONS = (
    *_COMMON,
    Option("--as-dict", help='bind VAR to {"result0": …, "result1": …}, an entry for each result'),
    Option("--explain", help="show Spark's plan instead of running"),
)

# For completion: per magic, each option with the values that it can take.
OPTIONS: dict[str, dict[str, list[str]]] = {
    "%%spark": option_table(SPARK_OPTIONS),
    "%%sparksql": option_table(SQL_OPTIONS),
    "%sparksql": option_table(SQL_OPTIONS),
    "%spark": {command: [] for command in SESSION_OPTIONS}
    | {name: values for options in SESSION_OPTIONS.values() for name, values in option_table(options).items()},
}


@magics_class
class SparkMagics(Magics):
    """The magics of one kernel."""

    shell: InteractiveShell

    def __init__(
        self, shell: InteractiveShell, provider: SessionProvider, module_path: Callable[[], Sequence[str]] = tuple
    ) -> None:
        super().__init__(shell)
        self.sessions = Sessions(provider, module_path)

    @no_var_expand
    @line_cell_magic
    def spark(self, line: str, cell: str | None = None) -> object:
        """Run PySpark with `spark` bound (%%spark), or manage sessions (%spark start, use, list, stop …)."""
        if cell is None:
            self.manage(line)
            return None
        parsed = parse_line("%%spark", SPARK_OPTIONS, line)
        if _helped(parsed, cell):
            return None
        if parsed["lang"] == "scala":
            self.scala(parsed, cell)
            return None
        if parsed["lang"] == "sql":
            return self.sql(parsed, cell, first_line=2)
        return self._python(parsed, cell)

    @no_var_expand
    @line_cell_magic
    def sparksql(self, line: str, cell: str | None = None) -> object:
        """Run SQL, one statement or several; `:name` binds notebook variables."""
        if cell is not None:
            parsed = parse_line("%%sparksql", SQL_OPTIONS, line)
            return None if _helped(parsed, cell) else self.sql(parsed, cell, first_line=2)
        parsed = parse_line("%sparksql", SQL_OPTIONS, line, positionals=(), rest=True)
        return None if _helped(parsed, parsed.rest) else self.sql(parsed, parsed.rest, first_line=1, is_line=True)

    def manage(self, line: str) -> None:
        """One line of `%spark`, without the name of the magic."""
        try:
            shown = session_command(self.sessions, line, _show_waiting(), _tell)
            show(Line(shown) if isinstance(shown, str) else shown)
        except TuttiError as error:
            raise SparkCellError(short_text(str(error))) from error

    def start(self, request: SessionRequest) -> None:
        """The session in use, with the size of another system's configuration. Says meanwhile what it waits for."""
        sessions = self.sessions
        try:
            sessions.adopt(sessions.provider.start(sessions.current, request, _show_waiting()))
        except TuttiError as error:
            raise SparkCellError(short_text(str(error))) from error
        except KeyboardInterrupt as error:
            raise stopped_waiting(sessions.current) from error

    def open_cell(self, parsed: Parsed, source: str) -> tuple[SparkCell, OpenSession]:
        progress = ProgressLine(_ignore if parsed["quiet"] else _one_output_area())
        held = self.sessions.get(parsed["session"], progress.wait_reason, _tell)
        self.shell.user_ns["spark"] = held.spark
        how = parsed["as"] if parsed.var or parsed.magic == "%sparksql" else "preview"
        if how != "preview" and "as-dict" in parsed.given:
            how += AS_DICT
        return SparkCell(self.sessions, held, progress, source, parsed.var, how, parsed["timeout"]), held

    def sql(
        self,
        parsed: Parsed,
        body: str,
        first_line: int,
        is_line: bool = False,
        shape: Callable[[DataFrame], DataFrame] = lambda frame: frame,
    ) -> object:
        """Runs the statements; `shape` makes of each result what is shown, bound and saved."""
        statements = split_statements(body)
        if not statements:
            raise UsageError(f"{parsed.magic}: the cell has no SQL; write a statement below the first line.")
        is_explained = "explain" in parsed.given
        if is_explained and (parsed.var or parsed["save"] or parsed["view"]):
            raise UsageError(f"{parsed.magic}: --explain runs nothing, so there is no result to bind, save or name; leave one out.")
        results = Results(parsed, is_line, is_dict="as-dict" in parsed.given)
        cell, held = self.open_cell(parsed, body)
        with cell:
            for number, statement in enumerate(statements, 1):
                frame = self._run(cell, held, statement, body, first_line, is_explained)
                if is_explained:
                    frame.explain(mode="formatted")
                    continue
                caption = f"statement {number} of {len(statements)}" if len(statements) > 1 else ""
                results.add(shape(frame), caption, is_last=number == len(statements))
            value = results.value()
        if parsed.var is not None:
            self.shell.user_ns[parsed.var] = value
        return value if is_line else None

    def _run(
        self, cell: SparkCell, held: OpenSession, statement: Statement, body: str, first_line: int, is_explained: bool
    ) -> DataFrame:
        from tuttilab.magics.spark.connect import is_loopback, not_run  # imports pyspark: more than a second

        variables = self.shell.user_ns
        names = {marker.name for marker in statement.markers if marker.name in variables}
        frames = {name: frame for name in names if (frame := as_spark_frame(held.spark, name, variables[name]))}
        folder = os.getcwd() if held.endpoint.here and is_loopback(held.endpoint.host) else None
        bound = bind(statement, variables, frames, list_items, folder)
        cell.explain_error = lambda error: short_sql_error(error, bound, body, first_line, self._table_hint(error))
        values = _literals(bound)
        if is_explained:
            return not_run(held.spark, bound.text, values, bound.views)
        return held.spark.sql(bound.text, args=values or None, **bound.views)

    def _table_hint(self, error: BaseException) -> str:
        """For a table that is unknown to Spark while the notebook has a frame of that name."""
        name = missing_table(error)
        frame = self.shell.user_ns.get(name)
        if frame is None or not is_local_frame(frame):
            return ""
        return f"{name} is a DataFrame of the notebook: write FROM :{name}."

    def _python(self, parsed: Parsed, body: str) -> object:
        if not body.strip():
            raise UsageError("%%spark: the cell is empty; write PySpark below the first line.")
        run, has_value = compiled(self.shell, body)
        if not has_value and (parsed.var or parsed["save"] or parsed["view"]):
            raise UsageError("%%spark: the last line is no expression, so there is no result to bind, save or name.")
        results = Results(parsed, is_line=False)
        results.is_silent = results.is_silent or _ends_silently(body)
        cell, _held = self.open_cell(parsed, body)
        with cell:
            from tuttilab.magics.spark.connect import is_frame

            value = run()
            if is_frame(value):
                results.add(value, "", is_last=True)
                value = results.value()
                shown = None
            elif parsed["save"] or parsed["view"]:
                raise UsageError(f"%%spark: the last line is a {type(value).__name__}, not a Spark DataFrame.")
            else:
                shown = None if results.is_silent else value
        if parsed.var is not None:
            self.shell.user_ns[parsed.var] = value
        return shown

    def scala(self, parsed: Parsed, body: str) -> bool:
        """Runs a cell in the Scala REPL of the session's driver. What it ends with is shown and bound as with Python.

        Returns whether it ended with a Dataset that nobody asked for.
        """
        from tuttilab.magics.spark.scala import repl

        if not body.strip():
            raise UsageError(f"{parsed.magic}: the cell is empty; write Scala below the first line.")
        results = Results(parsed, is_line=False, is_dict="as-dict" in parsed.given)
        cell, held = self.open_cell(parsed, body)
        cell.explain_error = lambda error: str(error) if isinstance(error, repl.ScalaFailed) else short_python_error(error)
        with cell:
            answer = repl.run(held.spark, body)
            if answer.is_anew:
                _tell("A file was added to the session: its Scala REPL has begun anew, names of earlier cells are gone.")
            shown = answer.printed if results.is_silent else answer.text
            if shown.strip():
                print(shown.rstrip("\n"))  # noqa: T201 - the output of the cell
            if results.is_dict and answer.printed.strip():
                results.add_value(answer.printed.rstrip("\n"))
            frame = repl.frame_of(held.spark, answer)
            if frame is not None:
                results.add(frame, "", is_last=True)
                if parsed["as"] != "spark":
                    held.spark.catalog.dropTempView(answer.view or "")
            elif parsed["save"] or parsed["view"]:
                raise UsageError(f"{parsed.magic}: the cell ends with no Dataset, so there is no result to save or name.")
            else:
                is_text = answer.value is None and not results.is_dict
                results.add_value(answer.text.rstrip("\n") or None if is_text else answer.value)
        if parsed.var is not None:
            self.shell.user_ns[parsed.var] = results.value()
        return frame is not None and results.is_silent and parsed.var is None and results.target is None


def register(ipython: InteractiveShell, provider: SessionProvider, module_path: Callable[[], Sequence[str]] = tuple) -> SparkMagics:
    """Make the magics known to a kernel; returns them, so that the caller can close the sessions.

    `module_path`: the folders in which the notebook finds its own modules, for functions that Spark runs.
    """
    magics = SparkMagics(ipython, provider, module_path)
    ipython.register_magics(magics)
    # What a kernel that ends by itself had open is nobody's to take over.
    atexit.register(magics.sessions.close)
    return magics


def _literals(bound: Bound) -> dict[str, object]:
    """The values of a statement as literals; those of one `IN (:list)` get one type."""
    found: dict[str, object] = {}
    for name, keys in bound.lists.items():
        found.update(zip(keys, alike_literals(name, [bound.values[key] for key in keys]), strict=True))
    for key, value in bound.values.items():
        if key not in found:
            found[key] = as_literal(bound.names.get(key, key), value)
    return found


def _ends_silently(body: str) -> bool:
    """Whether the last line ends in a `;`, as IPython reads it: one in a comment is none."""
    try:
        return bool(DisplayHook.semicolon_at_end_of_expression(body))  # type: ignore[no-untyped-call]  # IPython has no types here
    except (tokenize.TokenError, SyntaxError):  # a line for the shell or a magic
        return body.rstrip().endswith(";")


def _helped(parsed: Parsed, body: str) -> bool:
    if parsed.help_text is not None:
        show(Line(parsed.help_text))
        return True
    return False


def _one_output_area() -> Callable[[Status], None]:
    """Shows a status, and each later one in its place."""
    handle: Any = None  # Any: IPython's DisplayHandle has no types

    def put(status: Status) -> None:
        nonlocal handle
        if handle is None:
            handle = display(status, display_id=True)  # type: ignore[no-untyped-call]  # as in spark_display
        else:
            handle.update(status)

    return put


def _tell(text: str) -> None:
    show(Line(text))


def _show_waiting() -> Callable[[str], None]:
    put = _one_output_area()
    return lambda text: put(Status(text, None))


def _ignore(_status: Status) -> None:
    return None
