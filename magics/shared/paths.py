"""Paths as a person writes them in a notebook."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


def absolute(path: str, folder: str) -> str:
    """The path as a person means it in a notebook whose current folder this is; one with a scheme stays as it is."""
    if not path or _SCHEME.search(path):
        return path
    path = os.path.expanduser(path)
    return path if os.path.isabs(path) else f"file://{folder.rstrip('/')}/{path.removeprefix('./')}"
