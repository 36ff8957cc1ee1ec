"""Tells the user when a service takes long to answer: a command that waits without a word looks broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType

Say = Callable[[str], None]
"""Tells the user a sentence. Called in the event loop of the client."""
Content = bytes | Callable[[], AsyncIterator[bytes]] | None
"""The body of a request: a function where each try needs a new iterator."""


class Silence:
    """While it is entered, ``say`` is told ``sentence`` once, after ``after_s`` in which nothing was sent or answered."""

    def __init__(self, say: Say | None, sentence: str, after_s: float) -> None:
        self._say = say
        self._sentence = sentence
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Silence:
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def watched(self, content: Content) -> bytes | AsyncIterator[bytes] | None:
        """The body for one try; each part of it that is taken shows that somebody reads."""
        return self._parts(content()) if callable(content) else content

    async def _parts(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for part in content:
            yield part
            self._end()
            self._begin()

    def _begin(self) -> None:
        if self._say is not None:
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._tell)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        if self._say is not None:
            self._say(self._sentence)
            self._say = None
