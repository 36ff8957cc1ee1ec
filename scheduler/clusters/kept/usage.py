"""Reads what a pod used over time (`sidecar/usage.py` describes the record). The job may have written anything in its place."""

from __future__ import annotations

import json
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, Final

from tuttilab.scheduler.clusters.base import Usage
from tuttilab.sidecar import beneath, records

LARGEST: Final = 64 * 1024
"""Bytes of a record; the sidecar's own has at most a quarter of it."""


def read_usage(root: Path, pod: str = "") -> Usage | None:
    """Of the folder ``pod`` below ``root``. None without a record, and for anything that is none: another kind of file, too large,
    other values.
    """
    try:
        body = beneath.read_file(str(root), f"{pod}/{records.USAGE}".lstrip("/"), LARGEST + 1)
        return _usage(json.loads(body)) if len(body) <= LARGEST else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _usage(record: Any) -> Usage:
    """Any: decoded JSON. Raises ValueError, TypeError or KeyError."""
    points = tuple((_number(at), _number(cores), int(_number(size))) for at, cores, size in record["points"])
    if len(points) > records.USAGE_POINTS or any(left[0] >= right[0] for left, right in pairwise(points)):
        raise ValueError("too many points, or not in the order of time")
    return Usage(_number(record["started_at"]), points, _number(record["cpu_s"]), int(_number(record["peak_bytes"])))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or not 0 <= value < 2**60:
        raise ValueError(f"{value!r:.40} is no amount")
    return value
