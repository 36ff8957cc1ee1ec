"""Splits SQL text into statements and finds the markers `:name` of notebook variables.

Values are never pasted into the text: Spark gets them as arguments, and a DataFrame's marker becomes the name of a view
that Spark makes for the one statement. Finding markers needs only strings, comments and quoted names of Spark's SQL;
everything else is left to Spark's parser.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuttilab.magics.shared.parse import UsageError, nearest
from tuttilab.magics.shared.paths import absolute

# Tokens in which a colon or semicolon has no meaning. Spark has backslash escapes except in r'…', nested comments, and
# line comments that a backslash continues on the next line.
_OPAQUE = re.compile(
    r"""
      --(?:\\\r?\n|[^\r\n])*
    | \b[rR](?:'[^']*'|"[^"]*")
    | '(?:\\.|[^'\\])*(?:'|\Z)
    | "(?:\\.|[^"\\])*(?:"|\Z)
    | `(?:``|[^`])*(?:`|\Z)
    | (?P<comment>/\*)
    | (?P<tag>\$[A-Za-z_]*\$)
    | (?P<file>\b(?:csv|json|parquet|orc|text|avro|binaryFile)\.`[^`]+`|\b(?:LOCATION|PATH)\s+'[^'\\]*')
    | (?P<word>[^\W\d]\w*|[0-9][A-Za-z_0-9.]*)
    | (?P<cast>::)
    | (?P<marker>:[^\W\d]\w*)
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# `a:b` reads field b of the variant a: a colon directly after other text is no marker.
_TOUCHES = re.compile(r"[\w)\]`'\"]")
# `IN (:name)` and nothing else inside.
_IN_BEFORE = re.compile(r"\bIN\s*\(\s*\Z", re.IGNORECASE)
_IN_AFTER = re.compile(r"\s*\)")
# For no value at all: `IN ()` is no SQL, and NULL instead would make NOT IN keep nothing.
_EMPTY_LIST = "SELECT NULL WHERE FALSE"
# The length of the view names that Spark substitutes for DataFrames: its errors count positions in the substituted text.
_SPARK_VIEW_LENGTH = len("_pyspark_connect_temp_view_") + 32


@dataclass(frozen=True)
class Marker:
    """`:name` in the text from `start` to `end` (exclusive)."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Statement:
    """One statement; `offset` is where its text begins in the cell's body."""

    text: str
    offset: int
    markers: tuple[Marker, ...] = ()
    files: tuple[Marker, ...] = ()
    """Paths between quotes, as in csv.`trades.csv` and LOCATION 'trades'."""


@dataclass(frozen=True)
class Bound:
    """What `spark.sql(text, args=values, **views)` takes; views are keyed so that they cannot be called `args`."""

    text: str
    values: Mapping[str, Any]  # Any: notebook variables
    views: Mapping[str, Any]  # Any: Spark DataFrames, which this module cannot name
    statement: Statement
    names: Mapping[str, str] = field(default_factory=dict)
    """The notebook's name of each value that has another one in the text."""
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By variable, the values that are the elements of one `IN (:name)`."""
    changed: tuple[tuple[Marker, int], ...] = ()
    """The markers that are something else in the text that Spark parses, each with the length there."""

    def position_in_statement(self, index: int) -> int:
        """Converts an index in the text that Spark parsed to one in the text as written."""
        shift = 0
        for marker, length in self.changed:
            if marker.start + shift < index:
                # Inside what stands for a marker: the marker itself.
                shift += min(length - (marker.end - marker.start), index - marker.start - shift)
        return index - shift


def split_statements(body: str) -> list[Statement]:
    """The statements of a cell without their semicolons, empty ones left out; `BEGIN … END` scripts stay whole."""
    found: list[Statement] = []
    begin = 0
    markers: list[Marker] = []
    files: list[Marker] = []
    is_script = False
    is_first_word = True
    for match in _tokens(body):
        kind = match.lastgroup
        if kind == "word" and is_first_word:
            is_script = match[0].upper() == "BEGIN"
            is_first_word = False
        elif kind == "marker" and not _TOUCHES.match(body, match.start() - 1 if match.start() else 0):
            # As Python spells names.
            markers.append(Marker(unicodedata.normalize("NFKC", match[0][1:]), match.start() - begin, match.end() - begin))
        elif kind == "file":
            opening = match.start() + re.search("[`']", match[0]).start() + 1  # type: ignore[union-attr]  # the pattern has one
            files.append(Marker(body[opening : match.end() - 1], opening - begin, match.end() - 1 - begin))
            is_first_word = False
        elif kind == "end" and not is_script:
            found.append(Statement(body[begin : match.start()], begin, tuple(markers), tuple(files)))
            begin = match.end()
            markers, files = [], []
            is_first_word = True
    found.append(Statement(body[begin:], begin, tuple(markers), tuple(files)))
    return [_stripped(statement) for statement in found if not _is_blank(statement.text)]


def bind(
    statement: Statement,
    variables: Mapping[str, Any],
    frames: Mapping[str, Any],
    items_of: Callable[[str, Any], Sequence[Any] | None] = lambda _name, _value: None,
    folder: str | None = None,
) -> Bound:
    """Match the markers with notebook variables; those in `frames` are bound as views, the others as values.

    `items_of(name, value)`: the elements of a variable like a list; of one in `IN (:name)` each is bound.
    `folder`: what relative paths are below; None leaves them as they are.
    Raises UsageError for a marker without a variable.
    """
    for marker in statement.markers:
        if marker.name not in variables:
            guess = nearest(marker.name, [name for name in variables if not name.startswith("_")])
            hint = f"did you mean :{guess}?" if guess else "assign it in a cell above."
            raise UsageError(f":{marker.name} asks for a notebook variable {marker.name}, and there is none; {hint}")
    text = statement.text
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    changed: list[tuple[Marker, int]] = []
    pieces: list[str] = []
    quote = _braces_doubled if any(marker.name in frames for marker in statement.markers) else str
    position = 0
    files = statement.files if folder is not None else ()
    for marker in sorted((*statement.markers, *files), key=lambda each: each.start):
        name = marker.name
        if marker in files:
            path = absolute(name, folder or "")
            if path == name:
                continue
            # The folder's own name may have the quote that is around the path.
            path = path.replace("`", "``") if text[marker.end] == "`" else path.replace("\\", "\\\\").replace("'", "\\'")
            instead, length = quote(path), len(path)
        elif name in frames:
            instead, length = "{" + view_key(name) + "}", _SPARK_VIEW_LENGTH
        elif _is_in_list(text, marker) and (items := items_of(name, variables[name])) is not None:
            keys = lists.setdefault(name, tuple(f"tuttilab_{len(values) + place}" for place in range(len(items))))
            values.update(zip(keys, items, strict=True))
            names.update(dict.fromkeys(keys, name))
            instead = ", ".join(f":{key}" for key in keys) or _EMPTY_LIST
            length = len(instead)
        elif not name.isascii():  # Spark's parameters are ASCII.
            key = next((key for key, known in names.items() if known == name and name not in lists), f"tuttilab_{len(values)}")
            values[key], names[key] = variables[name], name
            instead = f":{key}"
            length = len(instead)
        else:
            values[name] = variables[name]
            continue
        pieces += [quote(text[position : marker.start]), instead]
        changed.append((marker, length))
        position = marker.end
    pieces.append(quote(text[position:]))
    views = {view_key(name): frames[name] for name in dict.fromkeys(m.name for m in statement.markers) if name in frames}
    return Bound("".join(pieces), values, views, statement, names, lists, tuple(changed))


def _is_in_list(text: str, marker: Marker) -> bool:
    return _IN_BEFORE.search(text[: marker.start]) is not None and _IN_AFTER.match(text, marker.end) is not None


def view_key(name: str) -> str:
    """The name under which `spark.sql` is given a DataFrame."""
    return f"tuttilab_{name}"


def line_and_column(text: str, index: int) -> tuple[int, int]:
    """Both from 1."""
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1


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
    """Whether a statement holds nothing but space and comments."""
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
    markers, files = (
        tuple(Marker(m.name, m.start - lead, m.end - lead) for m in found) for found in (statement.markers, statement.files)
    )
    return Statement(text.strip(), statement.offset + lead, markers, files)
