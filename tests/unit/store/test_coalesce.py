"""Reads of many askers in one."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from tuttilab.scheduler.domain.errors import StoreError, StoreUnreadable
from tuttilab.scheduler.store.coalesce import CoalescedReads


class Table:
    """A table whose reads take until they are let go."""

    def __init__(self) -> None:
        self.rows = {"a": 1, "b": 2}
        self.reads: list[list[str]] = []
        self.go = asyncio.Semaphore(0)
        self.broken = False

    async def read(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.reads.append(list(keys))
        found = {key: self.rows[key] for key in keys if key in self.rows}
        await self.go.acquire()
        if self.broken:
            raise StoreError("The disk is gone.")
        return found


async def asked(together: CoalescedReads[str, int], *keys: str) -> "asyncio.Task[list[int]]":
    task = asyncio.create_task(together.find(keys))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_questions_wait_for_the_read_under_way_and_go_in_the_next_together() -> None:
    table = Table()
    together = CoalescedReads(table.read)
    first = await asked(together, "a")
    others = [await asked(together, "b", "c"), await asked(together, "a", "b")]
    for _ in range(2):
        table.go.release()
    assert [await task for task in (first, *others)] == [[1], [2], [1, 2]]
    assert table.reads == [["a"], ["b", "c", "a"]]


async def test_an_answer_is_as_new_as_its_question() -> None:
    table = Table()
    together = CoalescedReads(table.read)
    first = await asked(together, "c")
    table.rows["c"] = 3
    second = await asked(together, "c")
    for _ in range(2):
        table.go.release()
    assert (await first, await second) == ([], [3])


async def test_what_a_read_raises_is_told_to_all_that_it_was_for_and_to_nobody_else() -> None:
    table = Table()
    together = CoalescedReads(table.read)
    table.broken = True
    first = await asked(together, "a")
    table.go.release()
    with pytest.raises(StoreError, match="gone"):
        await first
    table.broken = False
    table.go.release()
    assert await together.find(["a"]) == [1]


async def test_who_gives_up_keeps_nobody_waiting() -> None:
    table = Table()
    together = CoalescedReads(table.read)
    first, second = await asked(together, "a"), await asked(together, "a")
    third = await asked(together, "b")
    for task in (first, second):
        task.cancel()
    for _ in range(2):
        table.go.release()
    assert await third == [2]


async def test_after_the_end_nobody_waits() -> None:
    together = CoalescedReads(Table().read)
    under_way, waiting = await asked(together, "a"), await asked(together, "b")
    await together.close()
    for task in (under_way, waiting):
        with pytest.raises(StoreUnreadable):
            await task
