"""Service time, and the other sources of nondeterminism (`World`), which tests replace."""

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
    """Runs a blocking call outside the event loop."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


def new_id() -> str:
    """128 random bits as 26 lower-case letters and digits."""
    return base64.b32hexencode(secrets.token_bytes(16)).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class World:
    """Clocks, random ids and threads."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = new_id
    in_thread: InThread = asyncio.to_thread


class Clock:
    """Service time: monotonic, and at start not before the wall clock or the last journal entry. It never goes backwards."""

    def __init__(self, world: World) -> None:
        self._monotonic = world.monotonic
        self._anchor = world.wall()
        self._from = self._monotonic()

    def now(self) -> float:
        return self._anchor + self._monotonic() - self._from

    def advance_to(self, at: float) -> None:
        """Continue from ``at`` if that is later. The wall clock is not read again: it may have been set meanwhile."""
        self._anchor += max(0.0, at - self.now())
