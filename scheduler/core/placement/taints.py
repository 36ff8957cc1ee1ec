"""Parsing of taints and tolerations as kubectl writes them: ``key``, ``key=value``, ``key=value:NoSchedule``."""

from __future__ import annotations

import re
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Taint, Toleration

EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_KEY = r"(?:[A-Za-z0-9][-A-Za-z0-9_.]{0,252}/)?[A-Za-z0-9][-A-Za-z0-9_.]{0,62}"
_TAINT = re.compile(rf"({_KEY})(?:=([-A-Za-z0-9_.]{{0,63}}))?(?::([A-Za-z]+))?")


def taint_of(text: str, path: str) -> Taint:
    """The effect defaults to NoSchedule. Raises BadInput naming ``path``."""
    key, value, effect = _parts(text, path)
    return Taint(key, value or "", effect or "NoSchedule")


def toleration_of(text: str, path: str) -> Toleration:
    """Without a value it tolerates every value, without an effect every effect. Raises BadInput naming ``path``."""
    return Toleration(*_parts(text, path))


def _parts(text: str, path: str) -> tuple[str, str | None, str | None]:
    match = _TAINT.fullmatch(text)
    if match is None or match[3] not in (None, *EFFECTS):
        raise BadInput(f"{path}: {text[:80]!r} is no taint; expected key=value:EFFECT, the effect one of {', '.join(EFFECTS)}.")
    return match[1], match[2], match[3]
