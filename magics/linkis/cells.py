"""`%%spark` (Scala), `%%pyspark`, `%%sparksql` and `%%sql` as LinkisMagic had them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class, no_var_expand

from tuttilab.magics.linkis.config import Config
from tuttilab.magics.linkis.lines import CELL, PYTHON_CELL, as_ours, one_statement_a_line, read_line
from tuttilab.magics.shared.parse import Parsed, UsageError
from tuttilab.magics.spark.display import Line, show
from tuttilab.magics.spark.magic import SparkMagics
from tuttilab.magics.spark.remote import Outcome, SessionNames
from tuttilab.magics.spark.results import Results, as_dict, fetched_form

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import DataFrame

_QUIET: Final = "The result is neither shown nor fetched: `-q false` shows it, `-o VAR` binds it, `-p PATH` saves it."


@magics_class
class LinkisCells(Magics):
    """The cells; sessions and what runs in them are those of `%%spark`."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, ours: SparkMagics, config: Config) -> None:
        super().__init__(shell)
        self.ours = ours
        self._config = config
        self._names = SessionNames(ours)

    @no_var_expand
    @line_cell_magic
    def spark(self, line: str, cell: str | None = None) -> object:
        """Run Scala in the session's driver (%%spark), or manage sessions as ever (%spark start, use, list, stop …)."""
        if cell is None:
            self.ours.manage(line)
            return None
        parsed = read_line("%%spark", CELL, line)
        if _helped(parsed):
            return None
        self._start()
        if self.ours.scala(as_ours(parsed), cell):
            show(Line(_QUIET))
        return None

    @no_var_expand
    @cell_magic
    def pyspark(self, line: str, cell: str) -> None:
        """Run PySpark with the names of the session; -v and -u move variables between it and the notebook."""
        parsed = read_line("%%pyspark", PYTHON_CELL, line)
        if _helped(parsed):
            return
        given = {}
        if parsed["upload"] is not None:
            if parsed["upload"] not in self.shell.user_ns:
                raise UsageError(f"%%pyspark: -u {parsed['upload']} names no variable of the notebook; assign it in a cell above.")
            given = {parsed["upload"]: self.shell.user_ns[parsed["upload"]]}
        self._start()
        asked = as_ours(parsed)
        results = Results(asked, is_line=False, is_dict=True)
        values: list[Any] = []  # Any: texts, frames
        bound: dict[str, Any] = {}

        def collect(outcome: Outcome) -> None:
            from tuttilab.magics.spark.connect import is_frame

            if outcome.printed.strip():
                values.append(outcome.printed.rstrip("\n"))
            frames = [*outcome.frames, *([outcome.value] if is_frame(outcome.value) else [])]
            self._collect(results, frames, values)
            if outcome.value is not None and not is_frame(outcome.value):
                values.append(outcome.value)
                if not parsed["quiet"]:
                    show(outcome.value)
            if parsed["var"] is not None:
                value = outcome.name(parsed["var"], "%%pyspark -v")
                bound[parsed["var"]] = fetched_form(value, "pandas") if is_frame(value) else value

        # What is printed is never lost: it is seen unless -o has it and the cell is quiet.
        is_echoed = not (parsed["quiet"] and asked.var is not None)
        self._names.run(asked, cell, is_echoed, given, collect)
        if asked.var is not None:
            bound[asked.var] = as_dict(values)
        self.shell.user_ns.update(bound)

    def _collect(self, results: Results, frames: list[DataFrame], values: list[Any]) -> None:
        for number, frame in enumerate(frames, 1):
            results.add(frame, "", is_last=number == len(frames))
        if results.target is not None and not frames:
            raise UsageError("%%pyspark: -p saves a Spark DataFrame that the cell ends with or gives to show(), and there is none.")
        values.extend(results.value().values())
        if frames and results.is_silent and not results.is_wanted and results.target is None:
            show(Line(_QUIET))

    @no_var_expand
    @cell_magic
    def sparksql(self, line: str, cell: str) -> object:
        """Run SQL, one statement or several."""
        return self._sql("%%sparksql", line, cell)

    @no_var_expand
    @cell_magic
    def sql(self, line: str, cell: str) -> object:
        """Run SQL; lines that are each a statement need no semicolons."""
        return self._sql("%%sql", line, one_statement_a_line(cell))

    def _sql(self, magic: str, line: str, body: str) -> object:
        parsed = read_line(magic, CELL, line)
        if _helped(parsed):
            return None
        self._start()
        asked = as_ours(parsed)
        frames: list[DataFrame] = []

        def note(frame: DataFrame) -> DataFrame:
            frames.append(frame)
            return frame

        value = self.ours.sql(asked, body, first_line=2, shape=note)
        if asked["quiet"] and asked.var is None and asked["save"] is None and any(frame.columns for frame in frames):
            show(Line(_QUIET))
        return value

    def _start(self) -> None:
        """The session with the size of the configuration file, where there is none yet."""
        request = self._config.request
        sessions = self.ours.sessions
        if request is None or any(info.name == sessions.current and info.phase != "ended" for info in sessions.provider.list()):
            return
        self.ours.start(request)


def _helped(parsed: Parsed) -> bool:
    if parsed.help_text is not None:
        show(Line(parsed.help_text))
        return True
    return False
