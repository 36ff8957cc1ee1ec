"""The Jupyter server extension: a proxy from Lab to the scheduler's REST API, and its change events.

Belongs here: handlers, the events schema, the start of the local control plane, TensorBoard, reports of running cells on a hub,
and the panel's translations, because Jupyter looks for them beside a Python package. Does not belong here: logic. A handler
checks the user's rights, forwards with the typed client and returns the answer unchanged. Magics are in `magics`, the panel is in
`labextension`.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where jupyter-server finds the extension. ``Any``: the type of this hook is Jupyter's own."""
    from tuttilab.jupyter_ext.app import TuttiLab

    return [{"module": "tuttilab.jupyter_ext", "app": TuttiLab}]
