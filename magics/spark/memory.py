"""Sizes as Spark writes them, in the spelling of the rest."""

from __future__ import annotations

import re
from typing import Final

_SPARKS: Final = re.compile(r"\s*(\d+)\s*([kmgt])b?\s*", re.IGNORECASE)


def as_quantity(text: str) -> str:
    """Spark's ``4g`` or ``1000MB`` as ``4Gi``, ``1000Mi``; anything else stays, and is refused where it is read."""
    found = _SPARKS.fullmatch(text)
    return text if found is None else f"{found[1]}{found[2].upper()}i"
