"""Rich output of a cell: what `display` shows and the figures that it draws, written to ``display.jsonl`` as they come.

A line is ``{"data": {MIME type: text or JSON}, "metadata": {}, "id": "…" | null, "update": bool}``, ``{"clear": true}``, or
``{"value": {MIME type: …}}`` for the value of the cell. Images are base64. So the notebook shows them as its own, and needs for
that none of the libraries that made them.
"""

from __future__ import annotations

import base64
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .log_line import LogLines, says_nothing, write

LARGEST = 8 * 2**20
"""Bytes of one output; a larger one is replaced by a sentence."""
LARGEST_TOGETHER = 64 * 2**20
MOST_TEXT = 100_000
_METHODS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript",
    "_repr_pdf_": "application/pdf",
}
_NOTEBOOK_BACKENDS = ("inline", "ipympl", "nbagg", "widget", "ipykernel")


class Displays:
    """Writes what is shown. Never raises: a disk that is full costs the output and not the job."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._written = 0
        self._ids = 0
        self._lines = LogLines(os.environ)

    def show(
        self, data: dict[str, Any], metadata: dict[str, Any] | None = None, name: str | None = None, *, update: bool = False
    ) -> None:
        if update and name is None:
            return
        is_kept = self._write({"data": data, "metadata": metadata or {}, "id": name, "update": update})
        if update:
            return
        # The log has the text, as a terminal would, and a line about what is more than text.
        line = self._lines.next_of(data)
        if not says_nothing(data):
            sys.stdout.write(data["text/plain"][:MOST_TEXT] + "\n")
        elif line and is_kept:
            write(line)

    def clear(self) -> None:
        self._lines.clear()
        self._write({"clear": True})

    def new_id(self) -> str:
        self._ids += 1
        return f"display-{self._ids}"

    def keep_value(self, value: Any) -> None:
        """How the value looks here, for a notebook that cannot show it as richly."""
        if is_figure(value) or any(getattr(type(value), method, None) for method in ("_repr_mimebundle_", *_METHODS)):
            data, _ = bundle_of(value)
            self._write({"value": data})

    def show_open_figures(self, except_for: Any = None) -> None:
        """As a notebook does at the end of a cell."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if figure is not except_for and figure.get_axes():
                    self.show(*bundle_of(figure))
            if except_for is None or not is_figure(except_for):
                pyplot.close("all")
        except Exception as error:
            sys.stderr.write(f"tuttilab: a figure could not be drawn: {type(error).__name__}: {error}\n")

    def _write(self, line: dict[str, Any]) -> bool:
        """Whether it is there to be looked at."""
        try:
            body = json.dumps(line, default=str)
            if len(body) > LARGEST:
                self._refuse(line, f"an output of {len(body) / 2**20:.0f} MiB is not shown, at most {LARGEST >> 20} MiB are")
                return False
            if self._written + len(body) > LARGEST_TOGETHER:
                if self._written <= LARGEST_TOGETHER:
                    self._refuse({}, f"further outputs are not shown: a cell shows at most {LARGEST_TOGETHER >> 20} MiB")
                    self._written = LARGEST_TOGETHER + 1
                return False
            self._written += len(body)
            with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(body + "\n")
        except Exception as error:
            sys.stderr.write(f"tuttilab: an output is not shown: {type(error).__name__}: {error}\n")
            return False
        return True

    def _refuse(self, line: dict[str, Any], why: str) -> None:
        sys.stderr.write(f"tuttilab: {why}; write it to a file below RESULT_DIR.\n")
        if "value" not in line:
            self._write(
                {"data": {"text/plain": f"[{why}]"}, "metadata": {}, "id": line.get("id"), "update": bool(line.get("update"))}
            )


class Handle:
    """What `display(…, display_id=…)` returns."""

    def __init__(self, name: str, shown: Displays) -> None:
        self.display_id = name
        self._shown = shown

    def display(self, obj: Any, **keywords: Any) -> None:
        _show_all(self._shown, (obj,), self.display_id, **keywords)

    def update(self, obj: Any, **keywords: Any) -> None:
        _show_all(self._shown, (obj,), self.display_id, update=True, **keywords)


def install(path: str) -> Displays:
    """Makes `display` and `get_ipython` known to the cell; takes over what IPython and matplotlib show once they are imported."""
    shown = Displays(path)

    def display(*objects: Any, display_id: Any = None, clear: bool = False, **keywords: Any) -> Handle | None:
        if clear:
            shown.clear()
        name = shown.new_id() if display_id is True else display_id
        _show_all(shown, objects, name, **keywords)
        return Handle(str(name), shown) if name else None

    def update_display(obj: Any, *, display_id: str, **keywords: Any) -> None:
        _show_all(shown, (obj,), display_id, update=True, **keywords)

    def clear_output(wait: bool = False) -> None:
        shown.clear()

    def publish(data: dict[str, Any], metadata: dict[str, Any] | None = None, **keywords: Any) -> None:
        name = (keywords.get("transient") or {}).get("display_id")
        shown.show(_encoded(data), metadata, name, update=bool(keywords.get("update")))

    def take_over_ipython(module: Any) -> None:
        module.display, module.update_display, module.clear_output = display, update_display, clear_output
        module.publish_display_data = publish

    def take_over_pyplot(module: Any) -> None:
        module.show = lambda *_, **__: shown.show_open_figures()

    builtins.display = display  # type: ignore[attr-defined]
    builtins.get_ipython = lambda: None  # type: ignore[attr-defined]
    if any(word in os.environ.get("MPLBACKEND", "agg") for word in _NOTEBOOK_BACKENDS) or "MPLBACKEND" not in os.environ:
        os.environ["MPLBACKEND"] = "agg"
    sys.meta_path.insert(
        0, AfterImport({"IPython.core.display_functions": take_over_ipython, "matplotlib.pyplot": take_over_pyplot})
    )
    return shown


def _show_all(
    shown: Displays,
    objects: Sequence[Any],
    name: str | None,
    *,
    raw: bool = False,
    update: bool = False,
    metadata: dict[str, Any] | None = None,
    **_: Any,
) -> None:
    for each in objects:
        data, about = (_encoded(each), {}) if raw and isinstance(each, dict) else bundle_of(each)
        shown.show(data, metadata or about, name, update=update)


def bundle_of(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """MIME bundle and metadata of any object, as a notebook's formatters make them."""
    data: dict[str, Any] = {}
    about: dict[str, Any] = {}
    if is_figure(value):
        picture = io.BytesIO()
        value.savefig(picture, format="png", bbox_inches="tight")
        data["image/png"] = picture.getvalue()
    elif not isinstance(value, type):
        data, about = _own_bundle(value)
    data.setdefault("text/plain", _plain(value))
    return _encoded(data), about


def _own_bundle(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    data: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for method, kind in _METHODS.items():
        found = _called(value, method)
        if isinstance(found, tuple) and len(found) == 2:
            found, about[kind] = found
        if found is not None:
            data[kind] = found
    whole = _called(value, "_repr_mimebundle_", include=None, exclude=None)
    if isinstance(whole, tuple) and len(whole) == 2:
        whole, more = whole
        about.update(more if isinstance(more, dict) else {})
    if isinstance(whole, dict):
        data.update({kind: each for kind, each in whole.items() if each is not None})
    return data, about


def _called(value: Any, name: str, **keywords: Any) -> Any:
    method: Callable[..., Any] | None = getattr(type(value), name, None)
    if method is None:
        return None
    try:
        return getattr(value, name)(**keywords)
    except Exception:
        return None  # as IPython's formatters: another form is shown


def is_figure(value: Any) -> bool:
    figure = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def _plain(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


def _encoded(data: dict[str, Any]) -> dict[str, Any]:
    return {
        str(kind): base64.b64encode(each).decode() if isinstance(each, (bytes, bytearray)) else each for kind, each in data.items()
    }


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with a module when it has been imported."""

    def __init__(self, calls: dict[str, Callable[[Any], None]]) -> None:
        self._calls = calls

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        call = self._calls.pop(fullname, None)
        if call is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return spec
        execute = spec.loader.exec_module

        def execute_then_call(module: Any) -> None:
            execute(module)
            call(module)

        spec.loader.exec_module = execute_then_call  # type: ignore[method-assign]
        return spec
