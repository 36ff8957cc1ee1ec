"""How many workers a gang that comes and goes says that it can use, as it wrote it (`sidecar.wish`)."""

from __future__ import annotations


def whole_number(text: str) -> int | None:
    """Of at most nine digits; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def asked_workers(text: str) -> str:
    """What a gang that comes and goes wrote as the number of workers that it can use."""
    return f"{text} workers" + (", which is no whole number: it may have all" if whole_number(text) is None else "")
