"""Service time, and everything else that the service takes from outside, so that a test can give it another world."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


class InThread(Protocol):
    """Makes a call where it does not hold up the loop."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


def new_id() -> str:
    """128 random bits as 26 lower-case letters and digits."""
    return base64.b32hexencode(secrets.token_bytes(16)).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class World:
    """Time, chance and threads."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = new_id
    in_thread: InThread = asyncio.to_thread


class Clock:
    """Service time: monotonic, anchored at start to the later of wall clock and the last journal entry, never backwards."""

    def __init__(self, world: World) -> None:
        self._monotonic = world.monotonic
        self._anchor = world.wall()
        self._from = self._monotonic()

    def now(self) -> float:
        return self._anchor + self._monotonic() - self._from

    def not_before(self, at: float) -> None:
        """Go on from ``at`` when that is later. The wall clock is not asked again: it may have been set meanwhile."""
        self._anchor += max(0.0, at - self.now())
