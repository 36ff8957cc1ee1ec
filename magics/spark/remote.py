"""Cells of Python with names of their own for each Spark session, as where such cells ran in another process.

Only the magics of other systems use it: their notebooks hold a Spark DataFrame and a pandas frame under one name, each in its
place. What moves between the two is the object itself, nothing is copied or pickled.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tuttilab.magics.shared.parse import Parsed, UsageError, nearest
from tuttilab.magics.spark.python import compiled

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import DataFrame, SparkSession
    from tuttilab.magics.spark.magic import SparkMagics
    from tuttilab.magics.spark.sessions import OpenSession

MOST_PRINTED: Final = 1_000_000
"""Characters of a cell's output that a variable keeps."""
_OWN: Final = ("__name__", "__builtins__", "spark", "sqlContext", "hiveContext", "sc", "show", "showDF")


@dataclass
class Outcome:
    """What a cell did: its printed text, the frames that it showed by `show(df)`, the value of its last line."""

    names: dict[str, Any]
    printed: str = ""
    frames: list[DataFrame] = field(default_factory=list)
    value: Any = None

    def name(self, name: str, magic: str) -> Any:
        """The value of a name of the session. Raises UsageError when there is none."""
        if name not in self.names:
            guess = nearest(name, [each for each in self.names if each not in _OWN])
            hint = f"did you mean {guess}?" if guess else "assign it in the cell."
            raise UsageError(f"{magic}: the cell's session has no name {name}; {hint}")
        return self.names[name]


class SessionNames:
    """The names of each session of one kernel; a session that was started again begins without any."""

    def __init__(self, magics: SparkMagics) -> None:
        self._magics = magics
        self._names: weakref.WeakKeyDictionary[SparkSession, dict[str, Any]] = weakref.WeakKeyDictionary()
        self._frames: list[DataFrame] = []

    def of(self, held: OpenSession) -> dict[str, Any]:
        """The names of a session, as a module's."""
        if held.spark not in self._names:
            context = _SqlContext(held.spark)
            found: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
            found |= {"spark": held.spark, "sqlContext": context, "hiveContext": context, "sc": _NoContext(held.spark)}
            found |= {"show": self._show, "showDF": self._show}
            self._names[held.spark] = found
        return self._names[held.spark]

    def run(
        self,
        parsed: Parsed,
        body: str,
        echo: bool,
        given: dict[str, Any] | None = None,
        then: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> Outcome:
        """Runs a cell. `given` become names of the session first; `then` belongs to the cell: what it runs ends with Stop."""
        if not body.strip():
            raise UsageError(f"{parsed.magic}: the cell is empty; write PySpark below the first line.")
        cell, held = self._magics.open_cell(parsed, body)
        names = self.of(held)
        names.update(given or {})
        run, _has_value = compiled(self._magics.shell, body, names)
        self._frames = []
        outcome = Outcome(names)
        with cell:
            with _kept_output(echo) as printed:
                outcome.value = run()
            outcome.printed = printed.getvalue()
            outcome.frames = self._frames
            then(outcome)
        return outcome

    def _show(self, value: Any, *_rows: Any) -> None:  # Any: whatever a cell shows
        from tuttilab.magics.spark.connect import is_frame

        if is_frame(value):
            self._frames.append(value)
        else:
            print(value)  # noqa: T201 - the output of the cell


class _Kept(io.StringIO):
    def __init__(self, also: Any) -> None:  # Any: a stream of the kernel's
        super().__init__()
        self._also = also
        self._left = MOST_PRINTED

    def write(self, text: str) -> int:
        if self._also is not None:
            self._also.write(text)
        if self._left > 0:
            super().write(text[: self._left])
            self._left -= len(text)
            if self._left <= 0:
                super().write("\n… more was printed")
        return len(text)

    def flush(self) -> None:
        if self._also is not None:
            self._also.flush()


@contextlib.contextmanager
def _kept_output(echo: bool) -> Iterator[io.StringIO]:
    kept = _Kept(sys.stdout if echo else None)
    with contextlib.redirect_stdout(kept):
        yield kept


class _SqlContext:
    """`sqlContext` and `hiveContext` of Spark 1 by what took their place."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def __getattr__(self, name: str) -> Any:
        if name in (
            "registerDataFrameAsTable",
            "dropTempTable",
            "cacheTable",
            "uncacheTable",
            "clearCache",
            "tables",
            "tableNames",
        ):
            return getattr(self, f"_{name}")
        return getattr(self._spark, name)

    def _registerDataFrameAsTable(self, frame: DataFrame, name: str) -> None:  # Spark's name
        frame.createOrReplaceTempView(name)

    def _dropTempTable(self, name: str) -> None:  # Spark's name
        self._spark.catalog.dropTempView(name)

    def _cacheTable(self, name: str) -> None:  # Spark's name
        self._spark.catalog.cacheTable(name)

    def _uncacheTable(self, name: str) -> None:  # Spark's name
        self._spark.catalog.uncacheTable(name)

    def _clearCache(self) -> None:  # Spark's name
        self._spark.catalog.clearCache()

    def _tables(self) -> DataFrame:
        return self._spark.sql("SHOW TABLES")

    def _tableNames(self) -> list[str]:  # Spark's name
        return [table.name for table in self._spark.catalog.listTables()]


class _NoContext:
    """`sc`: a session is reached by Spark Connect, which has no SparkContext."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    @property
    def version(self) -> str:
        return str(self._spark.version)

    def setLogLevel(self, _level: str) -> None:  # Spark's name
        """The log is the session's: `%spark logs` shows it."""

    def __getattr__(self, name: str) -> Any:
        raise UsageError(
            f"sc.{name} has no counterpart in Python: the session is reached by Spark Connect, which has no RDDs. "
            "Write spark.createDataFrame(…) or spark.read, or the cell in Scala (%%spark --lang scala), where sc is there."
        )
