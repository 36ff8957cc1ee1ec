"""Reads what `capture` wrote, as the job does."""

import io
import pickle
from typing import Any


def unpickled(body: bytes) -> dict[str, Any]:
    """Values by name."""
    unpickler = pickle.Unpickler(io.BytesIO(body))  # noqa: S301 - a test wrote it
    return {name: unpickler.load() for name in unpickler.load()}
