"""Output of the magics: one output area per cell, at most two updates a second, HTML made of escaped text only.

Everything shown has a plain text too, so that a terminal, a saved notebook and a screen reader lose nothing. Of what a job printed
it has the colours, and no other orders to a terminal.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle

from tuttilab.magics.shared.ansi import colour_html
from tuttilab.magics.shared.box import MIME, Box
from tuttilab.magics.shared.parse import UsageError
from tuttilab.scheduler.domain.terminal import clean

INTERVAL_S: Final = 0.5
_BAR_CELLS: Final = 20


@dataclass(frozen=True)
class Shown:
    """A text, and the same as HTML. When ``change_key`` changes, a terminal, which cannot redraw, prints the text again.

    ``box``: the job that it shows, for Lab; its time alone makes no other text.
    """

    text: str
    html: str = ""
    change_key: str = ""
    box: Box | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return clean(self.text)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        # Any: text, and JSON where there is a box
        texts: dict[str, Any] = {"text/plain": clean(self.text), "text/html": self.html or preformatted(self.text)}
        return texts if self.box is None else {MIME: dict(self.box), **texts}


class Area:
    """The one output area of a cell: redrawn in place in a notebook, printed at each change of `change_key` in a terminal.

    ``header`` stays above whatever is shown.
    """

    def __init__(
        self, show: Callable[[Shown], None] | None = None, now: Callable[[], float] = time.monotonic, *, header: str = ""
    ) -> None:
        self._header = header
        self._show = show or (_NotebookOutput() if is_notebook() else _print)
        self._redraws = show is not None or is_notebook()
        self._now = now
        self._last_at = float("-inf")
        self._last: Shown | None = None

    def update(self, shown: Shown) -> None:
        """Shows a state unless the last update was less than `INTERVAL_S` ago; the next update makes up for it."""
        has_changed = self._last is None or shown.change_key != self._last.change_key
        if self._now() - self._last_at >= INTERVAL_S and (self._redraws or has_changed):
            self._put(shown)

    def finish(self, shown: Shown) -> None:
        """Shows the last state, whatever the interval: a saved notebook keeps it."""
        self._put(shown)

    def add(self, lines: Sequence[str]) -> None:
        """Adds lines of text below what is shown; in a terminal they are printed."""
        if not lines:
            return
        if self._last is None or not self._redraws:
            self._show(Shown("\n".join(lines)))
            return
        more = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        last = self._last
        self._put(Shown("\n".join([last.text, *lines]), (last.html or preformatted(last.text)) + more, last.change_key))

    def _put(self, shown: Shown) -> None:
        if shown == self._last:
            return
        if shown.box is None and self._last is not None:
            # A text in between, such as an error, does not make it the box of no job.
            shown = replace(shown, box=self._last.box)
        has_header = self._header and (self._redraws or self._last is None)
        self._show(below(self._header, shown) if has_header else shown)
        self._last = shown
        self._last_at = self._now()


class _NotebookOutput:
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
    print(clean(shown.text), flush=True)  # noqa: T201 - a terminal's display is its output


def is_notebook() -> bool:
    """Whether outputs go to a front end that can redraw them: true in a kernel, false in a terminal."""
    return hasattr(get_ipython(), "kernel")


def show(shown: Shown) -> None:
    """Display once."""
    if is_notebook():
        _new_handle().display(shown._repr_mimebundle_(), raw=True)
    else:
        _print(shown)


def display_value(value: object) -> None:
    """Display any object as the front end does."""
    _new_handle().display(value)


def below(header: str, shown: Shown) -> Shown:
    """Adds a line of text above."""
    text = "\n".join(part for part in (header, shown.text) if part)
    lines = "".join(f"<div>{html.escape(line)}</div>" for line in header.splitlines())
    return Shown(text, f"{lines}{shown.html or preformatted(shown.text)}", shown.change_key, shown.box)


def preformatted(text: str) -> str:
    """Text as HTML, its colours kept."""
    return f"<pre>{colour_html(text)}</pre>"


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


def show_bytes(size: int) -> str:
    """``340 kB`` or ``1.2 MB``: decimal, two digits that mean something."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.5 or unit == "GB":
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    raise AssertionError("unreachable")


def count(number: int, word: str, many: str = "") -> str:
    """``1 job``, ``3 jobs``, ``2 queries``."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"


def cell_number(shell: InteractiveShell) -> int:
    """The number in the prompt of the cell that runs; the shell's own counter is ahead of it meanwhile."""
    history = shell.history_manager
    return len(history.input_hist_raw) - 1 if history is not None else int(shell.execution_count)


def shell() -> Any:
    """The running IPython shell. ``Any``: its traits are made at run time. Raises UsageError outside of IPython."""
    found = get_ipython()
    if found is None:
        raise UsageError("There is no IPython here; the magics of tuttilab work in a notebook or in IPython.")
    return found
