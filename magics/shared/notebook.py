"""What the front end told this kernel about the cell that runs: its notebook, its id, its execution."""

from __future__ import annotations

import os
from typing import Final

from IPython.core.getipython import get_ipython

from tuttilab.magics.shared.labels import CELL, NOTEBOOK, VARIABLE

_LABEL_CHARACTERS: Final = 256


def message_id() -> str | None:
    """The front end's id of this cell execution; None outside of a kernel."""
    header = _parent_message().get("header") or {}
    return header.get("msg_id")


def notebook_name() -> str | None:
    """The notebook's path as the Jupyter server or VS Code passed it to the kernel."""
    shell = get_ipython()
    name = os.environ.get("JPY_SESSION_NAME") or (shell.user_ns.get("__vsc_ipynb_file__") if shell else None)
    return _label(str(name)) if name else None


def origin_labels(variable: str | None) -> dict[str, str]:
    """Labels that say where a job was submitted; `%attach` in another kernel finds the job by them."""
    metadata = _parent_message().get("metadata") or {}
    labels = {CELL: _label(str(metadata.get("cellId") or "none"))}
    notebook = notebook_name()
    if notebook:
        labels[NOTEBOOK] = notebook
    if variable:
        labels[VARIABLE] = variable
    return labels


def _parent_message() -> dict[str, dict[str, str]]:
    shell = get_ipython()
    get_parent = getattr(shell, "get_parent", None)
    parent = get_parent() if callable(get_parent) else None
    return parent if isinstance(parent, dict) else {}


def _label(text: str) -> str:
    printable = "".join(character for character in text if character.isprintable())
    return printable[-_LABEL_CHARACTERS:]
