"""How the magics show things: one output area a cell, at most two updates a second, and HTML made of escaped text only.

Whatever is shown has a plain text of its own, so that a terminal, a saved notebook and a screen reader lose nothing.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle

from tuttilab.magics.parse import UsageError

INTERVAL_S: Final = 0.5
_BAR_CELLS: Final = 20


@dataclass(frozen=True)
class Shown:
    """A text and the same as HTML. ``news`` changes when a terminal, which cannot redraw, should print a line again."""

    text: str
    html: str = ""
    news: str = ""

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": self.html or preformatted(self.text)}


class Area:
    """The one output area of a cell. In a notebook it is redrawn in place; a terminal gets a line for each piece of news.

    ``header`` stays above whatever is shown.
    """

    def __init__(
        self, show: Callable[[Shown], None] | None = None, now: Callable[[], float] = time.monotonic, *, header: str = ""
    ) -> None:
        self._header = header
        self._show = show or (_Redrawn() if is_notebook() else _print)
        self._redraws = show is not None or is_notebook()
        self._now = now
        self._last_at = float("-inf")
        self._last: Shown | None = None

    def update(self, shown: Shown) -> None:
        """Show it unless the last update was a moment ago; what is left out is made up for by the next one."""
        is_new = self._last is None or shown.news != self._last.news
        if self._now() - self._last_at >= INTERVAL_S and (self._redraws or is_new):
            self._put(shown)

    def finish(self, shown: Shown) -> None:
        """The last state, shown whatever the pace: it is what a saved notebook keeps."""
        self._put(shown)

    def _put(self, shown: Shown) -> None:
        if shown == self._last:
            return
        is_with_header = self._header and (self._redraws or self._last is None)
        self._show(below(self._header, shown) if is_with_header else shown)
        self._last = shown
        self._last_at = self._now()


class _Redrawn:
    def __init__(self) -> None:
        self._handle: Any = None  # Any: IPython's DisplayHandle has no types

    def __call__(self, shown: Shown) -> None:
        bundle = shown._repr_mimebundle_()
        if self._handle is None:
            self._handle = _new_handle()
            self._handle.display(bundle, raw=True)
        else:
            self._handle.update(bundle, raw=True)


def _new_handle() -> Any:
    return DisplayHandle()  # type: ignore[no-untyped-call]  # as above


def _print(shown: Shown) -> None:
    print(shown.text, flush=True)  # noqa: T201 - a terminal's display is its output


def is_notebook() -> bool:
    """Whether outputs go to a front end that can redraw them: a kernel does, a terminal does not."""
    return hasattr(get_ipython(), "kernel")


def show(shown: Shown) -> None:
    """Display once."""
    if is_notebook():
        _new_handle().display(shown._repr_mimebundle_(), raw=True)
    else:
        _print(shown)


def display_value(value: object) -> None:
    """As the front end shows any object."""
    _new_handle().display(value)


def below(header: str, shown: Shown) -> Shown:
    """With a line of text above it."""
    text = "\n".join(part for part in (header, shown.text) if part)
    return Shown(text, f"<div>{html.escape(header)}</div>{shown.html or preformatted(shown.text)}", shown.news)


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Shown:
    """Columns of text, the first row as head."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
    left = ' style="text-align:left"'
    cells = "".join(f"<th{left}>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td{left}>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    text = "\n".join([*([caption] if caption else []), *lines])
    above = f"<div>{html.escape(caption)}</div>" if caption else ""
    return Shown(text, f"{above}<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>")


def bar(part: float, whole: float) -> str:
    """``█████░░░░░``; full when ``part`` passes ``whole``, empty for a whole of zero."""
    full = 0 if whole <= 0 else min(_BAR_CELLS, round(part / whole * _BAR_CELLS))
    return "█" * full + "░" * (_BAR_CELLS - full)


def html_bar(part: float, whole: float) -> str:
    """Empty for a whole of zero, as `bar`."""
    if whole <= 0:
        return '<progress max="1" value="0"></progress>'
    return f'<progress max="{whole:g}" value="{min(part, whole):g}"></progress>'


def show_duration(seconds: float) -> str:
    """``12 s``, ``3 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count(number: int, word: str, many: str = "") -> str:
    """``1 job``, ``3 jobs``, ``2 queries``."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"


def shell() -> Any:
    """The running IPython shell. ``Any``: its traits are made at run time. Raises UsageError outside of IPython."""
    found = get_ipython()
    if found is None:
        raise UsageError("There is no IPython here; the magics of tuttilab work in a notebook or in IPython.")
    return found
