"""Runs cells of Scala in a session, and reads what the REPL answers."""

from __future__ import annotations

import json
import re
import uuid
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tuttilab.magics.spark.errors import LIMIT_BYTES, short_text
from tuttilab.magics.spark.scala.build import class_files

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import DataFrame, SparkSession

MOST_CHARACTERS: Final = 1_000_000
"""Of one cell."""
_CLASS: Final = "org.apache.spark.sql.tuttilab.ScalaCell"
_FUNCTION: Final = "tuttilab_scala_cell"
_QUERY: Final = f"SELECT {_FUNCTION}(id, code, view) AS answer FROM VALUES (:id, :code, :view) AS cell(id, code, view)"  # noqa: S608  # a constant
_COMPILED: Final = re.compile(
    r"^(?:On line (?P<line>\d+): +|\s*)(?:<console>:\d+: )?error: (?P<message>.*)", re.MULTILINE | re.DOTALL
)
_NEXT: Final = re.compile(r"\n.*\n *\^\n.*error: ")
_CONSOLE: Final = re.compile(r"<console>:(\d+)")
_TRACE: Final = re.compile(r"\n\s+(?:at |\.\.\. \d+ elided)")
_OF_SQL: Final = re.compile(r"\s*SQLSTATE: \w+.*", re.DOTALL)
_HINT: Final = re.compile(r"^val res\d+: org\.apache\.spark\.sql\.classic\.(?:DataFrame|Dataset\[.*\]) = .*\n?", re.MULTILINE)

_ready: weakref.WeakSet[SparkSession] = weakref.WeakSet()


class ScalaFailed(Exception):
    """The cell failed; str() is the whole short text."""


@dataclass(frozen=True)
class Answer:
    """What a cell of Scala did. `view`: the temporary view of a Dataset that it ends with; `value`: another value, or its text."""

    printed: str
    said: str
    view: str | None
    value: Any  # Any: number, text or bool
    is_anew: bool

    @property
    def text(self) -> str:
        """What the cell printed, and then what the REPL says of its definitions."""
        said = _HINT.sub("", self.said) if self.view is not None else self.said
        return self.printed + said


def run(spark: SparkSession, code: str, first_line: int = 2) -> Answer:
    """Runs one cell in the REPL of the session. Raises ScalaFailed, and whatever Spark raises when the session fails."""
    if len(code) > MOST_CHARACTERS:
        raise ScalaFailed(f"A cell of Scala has at most {MOST_CHARACTERS:,} characters, this one has {len(code):,}; divide it.")
    if spark not in _ready:
        _send(spark)
    view = f"tuttilab_{uuid.uuid4().hex}"
    rows = spark.sql(_QUERY, args={"id": uuid.uuid4().hex, "code": code, "view": view}).collect()
    answer = json.loads(rows[0].answer)
    match answer["state"]:
        case "Success":
            return Answer(answer["printed"], answer["said"], answer.get("view"), answer.get("value"), answer["anew"])
        case "Incomplete":
            raise ScalaFailed("The cell of Scala ends in the middle of an expression: a bracket, a quote or an operand is missing.")
        case "Busy":
            raise ScalaFailed(
                "A cell of Scala that was stopped still runs in the session: its code runs nothing of Spark's that could be ended. "
                "Wait for it, or `%spark stop` and run the cell again."
            )
    raise ScalaFailed(_short(answer["said"], answer["printed"], code, first_line))


def frame_of(spark: SparkSession, answer: Answer) -> DataFrame | None:
    """The Dataset that the cell ended with."""
    return None if answer.view is None else spark.table(answer.view)


def _send(spark: SparkSession) -> None:
    from tuttilab.magics.spark.connect import send_classes

    send_classes(spark, class_files())
    spark.udf.registerJavaFunction(_FUNCTION, _CLASS, "string")
    _ready.add(spark)


def _short(said: str, printed: str, code: str, first_line: int) -> str:
    """The compiler's message with its place in the cell, or the exception with the cell's lines that it passed."""
    lines = code.splitlines() or [""]
    compiled = _COMPILED.search(said)
    if compiled is not None and not _TRACE.search(said):
        number = int(compiled["line"] or 1)
        caret = next((line.index("^") for line in said.splitlines() if line.strip() == "^"), None)
        source = lines[number - 1] if number <= len(lines) else ""
        message = _NEXT.split(compiled["message"], maxsplit=1)[0].strip()
        lead = f"{first_line + number - 1:>4} | "
        # The REPL writes seven characters before each line of the cell.
        shown = [lead + source[:200], *([" " * (len(lead) + max(0, caret - 7)) + "^"] if caret is not None else [])]
        return short_text("\n".join([f"Scala: error in line {first_line + number - 1}", *shown]), message)
    exception = _TRACE.split(said, maxsplit=1)[0].strip() or "the cell failed without a message"
    passed = [int(number) for number in dict.fromkeys(_CONSOLE.findall(said))]
    own = [f"{first_line + n - 1:>4} | {lines[n - 1].strip()[:100]}" for n in passed if n <= len(lines)][:4]
    told = [f"printed before: {printed.strip()[-200:]}"] if printed.strip() else []
    name, _, rest = _OF_SQL.sub("", exception).partition(": ")
    short = f"{name.rpartition('.')[2]}: {rest}" if rest and " " not in name else exception
    return short_text("\n".join([*own, *told]), short)[:LIMIT_BYTES] if own or told else short_text(short)
