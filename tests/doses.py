"""Doses of tests: those given to `make soak` (`make soak KILLS=200 SEEDS=5000`), else the defaults of the suite or of a soak."""

from __future__ import annotations

import os

IS_SOAK = bool(os.environ.get("TUTTILAB_SOAK"))


def dose(name: str, suite: int, soak: int) -> int:
    return int(os.environ.get(f"TUTTILAB_DOSE_{name}") or (soak if IS_SOAK else suite))
