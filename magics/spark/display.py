"""Previews of rows in a notebook: a capped table, as escaped HTML and as plain text for terminals.

A preview is made from Arrow data, so every form of a result (pandas, Arrow, polars, Spark) looks the same. JupyterLab orders,
filters and exports the rows of the HTML (`labextension/src/tables/`); what it must know of them goes beside it, under `MIME`.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from IPython.display import display

CELL_CHARACTERS = 120
PLAIN_ROWS = 20
PLAIN_COLUMNS = 160
HTML_BYTES = 200_000
MIME: Final = "application/vnd.tuttilab.table+json"
VERSION: Final = 1
NULL_CLASS: Final = "tuttilab-null"
EXACT_CHARACTERS = 2000
"""Of a value whose text in the cell is shorter; the whole is the cell's tooltip, and what an export has."""
EXACT_BYTES = 100_000


class Line(str):
    """A line of text that is displayed without quotes."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Preview:
    """The first rows of a result. `more` says whether there are rows beyond; `total` is their number when known."""

    table: pa.Table
    more: bool = False
    total: int | None = None
    caption: str = ""

    def __repr__(self) -> str:
        return self._plain()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        page, shown, cut = self._html()
        facts = {
            "version": VERSION,
            "columns": ["number" if _is_number(field.type) else "text" for field in self.table.schema],
            "is_whole": shown == self.table.num_rows and not self.more and self.total in (None, shown),
            "cut": cut,
        }
        return {MIME: facts, "text/html": page, "text/plain": self._plain()}

    def _footer(self, shown: int) -> str:
        columns = f"{self.table.num_columns} column{'' if self.table.num_columns == 1 else 's'}"
        if self.total is not None and self.total == shown:
            return f"{_rows(shown)} × {columns}"
        if self.total is not None:
            return f"first {shown:,} of {self.total:,} rows × {columns}"
        if self.more or shown < self.table.num_rows:
            return f"first {_rows(shown)} × {columns}, there are more"
        return f"{_rows(shown)} × {columns}"

    def _plain(self) -> str:
        names = [_cut(name, CELL_CHARACTERS) for name in self.table.column_names]
        shown = min(PLAIN_ROWS, self.table.num_rows)
        rows = [[_text(value) for value in row] for row in _rows_of(self.table.slice(0, shown))]
        widths = [max(len(cell) for cell in column) for column in zip(names, *rows, strict=True)]
        right = [_is_number(field.type) for field in self.table.schema]
        lines = [self.caption] if self.caption else []
        if names:
            for cells in (names, ["-" * width for width in widths], *rows):
                padded = (
                    cell.rjust(width) if is_right else cell.ljust(width)
                    for cell, width, is_right in zip(cells, widths, right, strict=True)
                )
                lines.append(_cut("  ".join(padded).rstrip(), PLAIN_COLUMNS))
        return "\n".join([*lines, f"({self._footer(shown)})"])

    def _html(self) -> tuple[str, int, int]:
        """The table, how many rows it has, and how many values of it are nowhere whole."""
        head = "".join(
            f'<th title="{html.escape(str(field.type))}"{"" if _is_number(field.type) else _LEFT}>'
            f"{html.escape(_cut(field.name, CELL_CHARACTERS))}</th>"
            for field in self.table.schema
        )
        right = [_is_number(field.type) for field in self.table.schema]
        rows: list[str] = []
        exact = _Exact()
        size = 0
        for row in _rows_of(self.table):
            cells = [_cell(value, exact.title(value), is_right) for value, is_right in zip(row, right, strict=True)]
            size += sum(without_title for _, without_title in cells) + 9
            if size > HTML_BYTES:
                break
            rows.append(f"<tr>{''.join(cell for cell, _ in cells)}</tr>")
        caption = f"<div>{html.escape(self.caption)}</div>" if self.caption else ""
        page = (
            f'{caption}<div style="max-height:24em;overflow:auto"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div><div>{html.escape(self._footer(len(rows)))}</div>"
        )
        return page, len(rows), exact.cut


_LEFT = ' style="text-align:left"'


def show(thing: object) -> None:
    """Display in the cell's output."""
    display(thing)  # type: ignore[no-untyped-call]  # IPython has no types here


def preview_of(table: pa.Table, limit: int, caption: str = "", is_whole: bool = False) -> Preview:
    """A preview of the first `limit` rows; the table holds one row more if there are more."""
    total = table.num_rows if is_whole else None
    return Preview(table.slice(0, limit), table.num_rows > limit, total, caption)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _rows_of(table: pa.Table) -> list[tuple[Any, ...]]:  # Any: cell values of any type
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True))


def _text(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, bytes):
        return _cut(value.hex(" "), CELL_CHARACTERS)
    return _cut(str(value).replace("\n", "⏎").replace("\t", " "), CELL_CHARACTERS)


def _cell(value: object, title: str, is_right: bool) -> tuple[str, int]:
    """The HTML of a cell, and its length without the title, which has a limit of its own."""
    kind = f' class="{NULL_CLASS}"' if value is None else ""
    cell = f"<td{kind}{title}{'' if is_right else _LEFT}>{html.escape(_text(value))}</td>"
    return cell, len(cell) - len(title)


class _Exact:
    """Values in full where the text in their cell is less: as the cell's title, which other front ends show as a tooltip."""

    def __init__(self) -> None:
        self._left = EXACT_BYTES
        self.cut = 0
        """Values that are nowhere whole."""

    def title(self, value: object) -> str:
        exact = _whole_text(value)
        if exact == _text(value):
            return ""
        if self._left <= 0:
            self.cut += 1
            return ""
        self.cut += len(exact) > EXACT_CHARACTERS
        title = f' title="{html.escape(_cut(exact, EXACT_CHARACTERS))}"'
        self._left -= len(title)
        return title


def _whole_text(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case float():
            short = f"{value:.10g}"
            return short if float(short) == value or math.isnan(value) else repr(value)
        case bytes():
            return value.hex(" ")
        case _:
            return str(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
