"""Describes a failed Spark cell in less than a kilobyte: what is wrong, where in the cell, and what to do.

Spark's exceptions carry a query plan or a Java stack; users need the message, the place in their text and their own lines
of Python. The original exception stays as `__cause__`, and `%tb` shows all of it. Spark's exceptions are read by their
methods, so that this module does not import Spark.
"""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tuttilab.magics.spark.sql import Bound, line_and_column

LIMIT_BYTES = 1000
_FOLDED = "%tb shows everything."
_CONDITION = re.compile(r"^\s*\[([A-Z][A-Z0-9_.]+)\]\s*")
_TAIL = re.compile(r"\s*SQLSTATE: \w+.*", re.DOTALL)
_PARSE_POSITION = re.compile(r"\(line (\d+), pos (\d+)\)")
_UNKNOWN_TABLE = re.compile(r"The table or view `([^`]+)` cannot be found")
_WORD = re.compile(r"\w+|\S")
_WORKER_FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+), in (.+)$', re.MULTILINE)
_WORKER_LAST = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Warning|Interrupt|Exit|Iteration)\b.*)$", re.MULTILINE)


class SparkCellError(Exception):
    """A cell failed; str() is the whole short text. Asked to render a second time (by %tb) it shows the cause too."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._rendered = False

    def _render_traceback_(self) -> list[str]:
        if self._rendered and self.__cause__ is not None:
            return [*traceback.format_exception(self.__cause__), str(self)]
        self._rendered = True
        return [str(self)]


class SessionGone(Exception):
    """A call of a session that has ended, or that the kernel gave up."""


class SparkCellStopped(KeyboardInterrupt):
    """Somebody pressed Stop; the cell's operations were ended."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def short_sql_error(error: BaseException, bound: Bound, body: str, first_line: int, hint: str = "") -> str:
    """For a statement that failed; `first_line` is the cell's line on which `body` begins. `hint`: what to write instead."""
    headline = _headline(error)
    place = _place(error, bound)
    if place is None:
        return _fitted([headline, hint, _message(error)])
    index, length = place
    line, column = line_and_column(body, bound.statement.offset + index)
    shown = body.splitlines()[line - 1] if line <= len(body.splitlines()) else ""
    number = first_line + line - 1
    headline += f", line {number}, column {column}"
    return _fitted([headline, *_underlined(number, shown, column, length), hint, _message(error)])


def missing_table(error: BaseException) -> str:
    """The name of the table that Spark did not find, without quotes; empty for any other error."""
    if not (spark_condition(error) or "").startswith("TABLE_OR_VIEW_NOT_FOUND"):
        return ""
    found = _UNKNOWN_TABLE.search(str(error))
    return found[1] if found is not None else ""


def short_python_error(error: BaseException) -> str:
    """For a cell of Python that failed, in the notebook or in one of Spark's Python workers."""
    own = _own_lines(_cell_frames(error.__traceback__))
    worker = _worker_frames(str(error))
    if worker and spark_condition(error) is None and "Python worker" in str(error):
        last = _WORKER_LAST.findall(str(error))
        lines = [f"{last[-1] if last else 'Error'} (in a Python function that Spark ran)", *_own_lines(worker)]
        return _fitted(lines)
    if spark_condition(error) is None:
        return _fitted([*own, f"{_headline(error)}: {_message(error)}".removesuffix(": ")])
    context = _query_context(error)
    where = [f"in: {context[2]}"] if context is not None and context[2] else []
    return _fitted([_headline(error), *own, *where, _message(error)])


def short_syntax_error(error: SyntaxError) -> str:
    """For a cell that Python cannot read."""
    line, column = error.lineno or 1, error.offset or 1
    source = (error.text or "").rstrip("\n")
    width = (error.end_offset or 0) - column if error.end_lineno == error.lineno else 1
    lines = [f"{type(error).__name__}, line {line}, column {column}", *_underlined(line, source, column, width)]
    return _fitted([*lines, error.msg], folded=False)


def short_text(headline: str, detail: str = "") -> str:
    """For anything but an exception of Spark's: a stop, a time limit, a lost session."""
    return _fitted([headline, detail], folded=False)


def is_lost_session(error: BaseException) -> bool:
    """Whether the server is gone or no longer knows this session, so that the next cell needs a new one."""
    if isinstance(error, SessionGone):
        return True
    condition = spark_condition(error) or ""
    if condition.startswith("INVALID_HANDLE.SESSION") or condition == "NO_ACTIVE_SESSION":
        return True
    if "Cannot call methods on a stopped SparkContext" in str(error):  # it is ending
        return True
    return grpc_status(error) in ("UNAVAILABLE", "UNAUTHENTICATED") or "failed to connect to all addresses" in str(error)


def is_of_connection(error: BaseException) -> bool:
    """Whether an error comes from Spark's client, and may come from calls that were ended."""
    return isinstance(error, SessionGone) or type(error).__module__.partition(".")[0] in ("pyspark", "grpc")


def grpc_status(error: BaseException) -> str:
    """The name of the gRPC status with which a call failed; empty for other errors."""
    code = getattr(error, "getGrpcStatusCode", None)
    return str(getattr(code(), "name", "")) if callable(code) else ""


def is_cancelled(error: BaseException) -> bool:
    """Whether an operation ended because it was interrupted."""
    return (spark_condition(error) or "").startswith("OPERATION_CANCELED") or "OPERATION_CANCELED" in str(error)[:200]


def _headline(error: BaseException) -> str:
    condition = spark_condition(error)
    name = type(error).__name__
    return f"{name} [{condition}]" if condition else name


def spark_condition(error: BaseException) -> str | None:
    get_condition = getattr(error, "getCondition", None)
    condition = get_condition() if callable(get_condition) else None
    return str(condition) if condition else None


def _message(error: BaseException) -> str:
    """The sentence without condition, SQL state, plan and Java stack."""
    text = _TAIL.sub("", _CONDITION.sub("", str(error).strip()))
    return text.split("\n\nJVM stacktrace", 1)[0].strip()


def _query_context(error: BaseException) -> tuple[int, int, str] | None:
    get_contexts = getattr(error, "getQueryContext", None)
    contexts: Sequence[Any] = (get_contexts() if callable(get_contexts) else None) or ()  # Any: Spark's QueryContext
    for context in contexts:
        # A DataFrame's context raises at every method that is only for SQL.
        if context.contextType().name == "SQL":
            return int(context.startIndex()), int(context.stopIndex()), str(context.fragment())
    return None


def _place(error: BaseException, bound: Bound) -> tuple[int, int] | None:
    """Index and length of the faulty part in the statement as written."""
    context = _query_context(error)
    text = bound.statement.text
    if context is not None and context[0] >= 0:
        index = bound.position_in_statement(context[0])
        fragment = context[2]
        if fragment and text[index : index + len(fragment)] != fragment:
            index = text.find(fragment) if fragment in text else index
        return (index, max(1, len(fragment))) if 0 <= index <= len(text) else None
    match = _PARSE_POSITION.search(str(error))
    if match is None:
        return None
    lines = text.splitlines(keepends=True)
    line, column = int(match[1]), int(match[2])
    if line > len(lines):
        return len(text), 1
    index = bound.position_in_statement(sum(map(len, lines[: line - 1])) + column)
    word = _WORD.match(text, index)
    return index, len(word[0]) if word else 1


def _underlined(number: int, line: str, column: int, length: int) -> list[str]:
    """The line with carets below; of a long line only the part around the error."""
    begin = max(0, column - 60)
    part = line[begin : begin + 100].replace("\t", " ")
    lead = f"{number:>4} | "
    width = max(1, min(length, len(part) - (column - 1 - begin)))
    return [lead + part, " " * (len(lead) + column - 1 - begin) + "^" * width]


def _cell_frames(trace: TracebackType | None) -> list[tuple[str, int, str]]:
    found = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(trace)]
    return [frame for frame in found if _is_cell(frame[0])]


def _worker_frames(message: str) -> list[tuple[str, int, str]]:
    return [(m[1], int(m[2]), m[3]) for m in _WORKER_FRAME.finditer(message) if _is_cell(m[1])]


def _is_cell(filename: str) -> bool:
    """Whether a filename is a cell's: those exist in linecache only, without a file and its modification time."""
    entry = linecache.cache.get(filename)
    return entry is not None and len(entry) == 4 and entry[1] is None


def _own_lines(frames: list[tuple[str, int, str]]) -> list[str]:
    """The last few frames with one line of code each."""
    shown = []
    for filename, line, name in frames[-4:]:
        code = linecache.getline(filename, line).strip()
        where = "" if name == "<module>" else f" in {name}"
        shown.append(f"{line:>4} | {code[:100]}{where and '   #' + where}")
    return shown


def _fitted(lines: Sequence[str], folded: bool = True) -> str:
    """The lines, within the limit: the last one, which is the longest, is cut."""
    kept = [line for line in lines if line]
    tail = [_FOLDED] if folded else []
    room = LIMIT_BYTES - sum(len(line.encode()) + 1 for line in [*kept[:-1], *tail]) - 1
    if kept and len(kept[-1].encode()) > room:
        kept[-1] = kept[-1].encode()[: max(0, room - 4)].decode(errors="ignore") + " …"
    return "\n".join([*kept, *tail])[: LIMIT_BYTES + 20]
