"""Coalesces concurrent reads: callers that arrive while a read is in flight share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from tuttilab.scheduler.domain.errors import StoreUnreadable

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class CoalescedReads(Generic[Key, Value]):
    """Each result is at least as new as its call: a call never joins a read that is already in flight."""

    def __init__(self, read: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Value]]]) -> None:
        """``read`` returns the values of the keys that have one."""
        self._read = read
        self._waiting: list[tuple[Sequence[Key], asyncio.Future[Mapping[Key, Value]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def find(self, keys: Sequence[Key]) -> list[Value]:
        """The values of the ``keys`` that have one, in the order of the keys. Raises what the read raises."""
        answer: asyncio.Future[Mapping[Key, Value]] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._serve())
        found = await answer
        return [found[key] for key in keys if key in found]

    async def close(self) -> None:
        """Fail waiting callers with StoreUnreadable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        asked: list[tuple[Sequence[Key], asyncio.Future[Mapping[Key, Value]]]] = []
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                await self._answer(asked)
        finally:
            self._task = None
            for _, answer in (*asked, *self._waiting):
                if not answer.done():
                    answer.set_exception(StoreUnreadable("the store was closed before it could be read."))
            self._waiting = []

    async def _answer(self, asked: Sequence[tuple[Sequence[Key], asyncio.Future[Mapping[Key, Value]]]]) -> None:
        keys = list(dict.fromkeys(key for some, _ in asked for key in some))
        try:
            found = await self._read(keys)
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for _, answer in asked:
            if not answer.done():
                answer.set_result(found)
