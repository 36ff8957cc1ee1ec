"""How much of it: what `make soak` was asked for (`make soak KILLS=200 SEEDS=5000`), else what the suite or a long run has."""

from __future__ import annotations

import os

IS_SOAK = bool(os.environ.get("TUTTILAB_SOAK"))


def dose(name: str, suite: int, soak: int) -> int:
    return int(os.environ.get(f"TUTTILAB_DOSE_{name}") or (soak if IS_SOAK else suite))
