"""Sending a submission: the bundle first, then the jobs, each under its key."""

from __future__ import annotations

import os
from typing import Final

from IPython.core.getipython import get_ipython

from tuttilab.magics.collect import CELL, NOTEBOOK, VARIABLE
from tuttilab.magics.connection import client
from tuttilab.magics.handle import JobHandle
from tuttilab.magics.map_handle import MapHandle
from tuttilab.magics.submission import Executions, Submission

EXECUTIONS: Final = Executions()
"""Of this kernel; the extension tells it when a cell starts."""
_BATCH: Final = 500
_LABEL: Final = 256


def send(submission: Submission, *, is_map: bool) -> JobHandle | MapHandle:
    """Upload and submit; the same submit of the same cell execution, sent again, gives the same jobs."""
    service = client()
    service.put_artifact(submission.bundle)
    if not is_map:
        return JobHandle.of(service.submit(submission.requests[0], key=submission.keys[0]))
    views = []
    for start in range(0, len(submission.requests), _BATCH):
        part = slice(start, start + _BATCH)
        views += service.submit_many(submission.requests[part], submission.keys[part])
    return MapHandle([JobHandle.of(view) for view in views])


def key_stem(digest: str) -> str:
    """The stem of this cell execution's keys for what has that digest."""
    return EXECUTIONS.stem(message_id(), digest)


def message_id() -> str | None:
    """The front end's name of this cell execution; None outside of a kernel."""
    header = _parent().get("header") or {}
    return header.get("msg_id")


def notebook_name() -> str | None:
    """The notebook's path as the server or the editor tells it to the kernel."""
    shell = get_ipython()
    name = os.environ.get("JPY_SESSION_NAME") or (shell.user_ns.get("__vsc_ipynb_file__") if shell else None)
    return _label(str(name)) if name else None


def origin_labels(variable: str | None) -> dict[str, str]:
    """Where a job comes from: what `%attach` in another kernel finds it by."""
    metadata = _parent().get("metadata") or {}
    labels = {CELL: _label(str(metadata.get("cellId") or "none"))}
    notebook = notebook_name()
    if notebook:
        labels[NOTEBOOK] = notebook
    if variable:
        labels[VARIABLE] = variable
    return labels


def _parent() -> dict[str, dict[str, str]]:
    shell = get_ipython()
    ask = getattr(shell, "get_parent", None)
    parent = ask() if callable(ask) else None
    return parent if isinstance(parent, dict) else {}


def _label(text: str) -> str:
    printable = "".join(character for character in text if character.isprintable())
    return printable[-_LABEL:]
