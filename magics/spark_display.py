"""How rows look in a notebook: a capped table, as escaped HTML and as plain text that reads well in a terminal.

A preview is made of Arrow data, so every form of a result (pandas, Arrow, polars, Spark) is shown alike.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from IPython.display import display

CELL_CHARACTERS = 120
PLAIN_ROWS = 20
PLAIN_COLUMNS = 160
HTML_BYTES = 200_000


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

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self._html(), "text/plain": self._plain()}

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

    def _html(self) -> str:
        head = "".join(
            f'<th title="{html.escape(str(field.type))}">{html.escape(_cut(field.name, CELL_CHARACTERS))}</th>'
            for field in self.table.schema
        )
        right = [_is_number(field.type) for field in self.table.schema]
        rows: list[str] = []
        size = 0
        for row in _rows_of(self.table):
            cells = "".join(
                f"<td{'' if is_right else _LEFT}>{html.escape(_text(value))}</td>"
                for value, is_right in zip(row, right, strict=True)
            )
            size += len(cells) + 9
            if size > HTML_BYTES:
                break
            rows.append(f"<tr>{cells}</tr>")
        caption = f"<div>{html.escape(self.caption)}</div>" if self.caption else ""
        return (
            f'{caption}<div style="max-height:24em;overflow:auto"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div><div>{html.escape(self._footer(len(rows)))}</div>"
        )


_LEFT = ' style="text-align:left"'


def show(thing: object) -> None:
    """Display in the cell's output."""
    display(thing)  # type: ignore[no-untyped-call]  # IPython has no types here


def preview_of(table: pa.Table, limit: int, caption: str = "", is_whole: bool = False) -> Preview:
    """The first `limit` rows of a table that holds one row more than that if there are more."""
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


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
