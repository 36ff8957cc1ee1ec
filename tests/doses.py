"""Doses of tests: those given to `make soak KILLS=200 SEEDS=5000`, else the defaults of the suite, of a soak, of an attack."""

from __future__ import annotations

import os

IS_SOAK = bool(os.environ.get("TUTTILAB_SOAK"))
IS_ATTACK = bool(os.environ.get("TUTTILAB_ATTACK"))


def dose(name: str, suite: int, soak: int) -> int:
    return int(os.environ.get(f"TUTTILAB_DOSE_{name}") or (soak if IS_SOAK else suite))


def attack_dose(name: str, suite: int, attack: int) -> int:
    """``attack``: that of `make attack`."""
    return int(os.environ.get(f"TUTTILAB_DOSE_{name}") or (attack if IS_ATTACK else suite))
