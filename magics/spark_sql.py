"""SQL text as the notebook wrote it: where statements end and where `:name` asks for a notebook variable.

Nothing is pasted into the text. Values go to Spark beside it, and a DataFrame's marker becomes the name of a view that
Spark makes for this one statement. To find the markers we only need to know what is string, comment and quoted name in
Spark's SQL; everything else is left to Spark's own parser.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuttilab.magics.parse import UsageError, nearest

# What a colon and a semicolon mean nothing in. Spark knows backslash escapes except in r'…', nested comments, and lets
# a backslash carry a line comment on to the next line.
_OPAQUE = re.compile(
    r"""
      --(?:\\\r?\n|[^\r\n])*
    | [rR](?:'[^']*'|"[^"]*")
    | '(?:\\.|[^'\\])*(?:'|\Z)
    | "(?:\\.|[^"\\])*(?:"|\Z)
    | `(?:``|[^`])*(?:`|\Z)
    | (?P<comment>/\*)
    | (?P<tag>\$[A-Za-z_]*\$)
    | (?P<word>[A-Za-z_][A-Za-z_0-9]*|[0-9][A-Za-z_0-9.]*)
    | (?P<cast>::)
    | (?P<marker>:[A-Za-z_][A-Za-z_0-9]*)
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
# `a:b` reads field b of the variant a: a colon that touches what stands before it is no marker.
_TOUCHES = re.compile(r"[A-Za-z_0-9)\]`'\"]")
# What the view names look like that Spark puts in for DataFrames: its errors count positions in the text with these.
_SPARK_VIEW_LENGTH = len("_pyspark_connect_temp_view_") + 32


@dataclass(frozen=True)
class Marker:
    """`:name` at `start` of the text, `end` behind its last character."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Statement:
    """One statement; `offset` is where its text begins in the cell's body."""

    text: str
    offset: int
    markers: tuple[Marker, ...] = ()


@dataclass(frozen=True)
class Bound:
    """What `spark.sql(text, args=values, **views)` takes; views are keyed so that they cannot be called `args`."""

    text: str
    values: Mapping[str, Any]  # Any: notebook variables
    views: Mapping[str, Any]  # Any: Spark DataFrames, which this module cannot name
    statement: Statement

    def position_in_statement(self, index: int) -> int:
        """From an index in the text that Spark parsed to one in the text that the person wrote."""
        shift = 0
        for marker in self.statement.markers:
            if view_key(marker.name) in self.views and marker.start + shift < index:
                shift += _SPARK_VIEW_LENGTH - (marker.end - marker.start)
        return index - shift


def split_statements(body: str) -> list[Statement]:
    """The statements of a cell without their semicolons, empty ones left out; `BEGIN … END` scripts stay whole."""
    found: list[Statement] = []
    begin = 0
    markers: list[Marker] = []
    is_script = False
    is_first_word = True
    for match in _tokens(body):
        kind = match.lastgroup
        if kind == "word" and is_first_word:
            is_script = match[0].upper() == "BEGIN"
            is_first_word = False
        elif kind == "marker" and not _TOUCHES.match(body, match.start() - 1 if match.start() else 0):
            markers.append(Marker(match[0][1:], match.start() - begin, match.end() - begin))
        elif kind == "end" and not is_script:
            found.append(Statement(body[begin : match.start()], begin, tuple(markers)))
            begin = match.end()
            markers = []
            is_first_word = True
    found.append(Statement(body[begin:], begin, tuple(markers)))
    return [_stripped(statement) for statement in found if not _is_blank(statement.text)]


def bind(statement: Statement, variables: Mapping[str, Any], frames: Mapping[str, Any]) -> Bound:
    """Match the markers with notebook variables; those in `frames` are bound as views, the others as values.

    Raises UsageError for a marker without a variable.
    """
    for marker in statement.markers:
        if marker.name not in variables:
            guess = nearest(marker.name, [name for name in variables if not name.startswith("_")])
            hint = f"did you mean :{guess}?" if guess else "assign it in a cell above."
            raise UsageError(f":{marker.name} asks for a notebook variable {marker.name}, and there is none; {hint}")
    names = dict.fromkeys(marker.name for marker in statement.markers)
    views = [name for name in names if name in frames]
    text = _with_views(statement, views) if views else statement.text
    return Bound(
        text,
        {name: variables[name] for name in names if name not in frames},
        {view_key(name): frames[name] for name in views},
        statement,
    )


def view_key(name: str) -> str:
    """The name under which `spark.sql` is given a DataFrame."""
    return f"tuttilab_{name}"


def line_and_column(text: str, index: int) -> tuple[int, int]:
    """Both from 1."""
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


def _with_views(statement: Statement, views: Collection[str]) -> str:
    """`spark.sql` with DataFrames formats its text, so `{name}` stands for a view and every other brace is doubled."""
    pieces: list[str] = []
    position = 0
    for marker in statement.markers:
        if marker.name in views:
            pieces += [_braces_doubled(statement.text[position : marker.start]), "{" + view_key(marker.name) + "}"]
            position = marker.end
    return "".join([*pieces, _braces_doubled(statement.text[position:])])


def _braces_doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _tokens(body: str) -> Iterator[re.Match[str]]:
    position = 0
    while True:
        match = _OPAQUE.search(body, position)
        if match is None:
            return
        position = match.end()
        if match.lastgroup == "comment":
            position = _end_of_comment(body, match.end())
        elif match.lastgroup == "tag":
            closing = body.find(match[0], match.end())
            position = len(body) if closing < 0 else closing + len(match[0])
        else:
            yield match


def _end_of_comment(body: str, position: int) -> int:
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(body, position):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(body)


def _is_blank(text: str) -> bool:
    """Whether nothing is left of a statement but space and comments."""
    rest = text
    for start, end in reversed(_comments(text)):
        rest = rest[:start] + rest[end:]
    return not rest.strip()


def _comments(text: str) -> Sequence[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    position = 0
    while True:
        match = _OPAQUE.search(text, position)
        if match is None:
            return found
        position = match.end()
        if match.lastgroup == "comment":
            position = _end_of_comment(text, match.end())
            found.append((match.start(), position))
        elif match[0].startswith("--"):
            found.append((match.start(), match.end()))


def _stripped(statement: Statement) -> Statement:
    text = statement.text
    lead = len(text) - len(text.lstrip())
    markers = tuple(Marker(m.name, m.start - lead, m.end - lead) for m in statement.markers)
    return Statement(text.strip(), statement.offset + lead, markers)
