"""The Jupyter server extension: a proxy from Lab to the scheduler's REST API, and its change events.

Handlers, the events schema, the start of the embedded control plane, TensorBoard and what a server of the hub tells of its
cells belong here, and the panel's translations, because Jupyter looks for them beside a Python package. Logic does not: a
handler checks who is asking, forwards with the typed client and returns the answer unchanged. The notebook's own commands
live in `magics`, the panel in `labextension`.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where jupyter-server finds the extension. ``Any``: the type of this hook is Jupyter's own."""
    from tuttilab.jupyter_ext.app import TuttiLab

    return [{"module": "tuttilab.jupyter_ext", "app": TuttiLab}]
