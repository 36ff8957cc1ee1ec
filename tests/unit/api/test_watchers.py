"""Watchers of changes share what they read, and one caller has a limited number of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tuttilab.scheduler.api.watchers import KEPT_PAGES, MOST_WATCHERS, Watchers
from tuttilab.scheduler.domain.errors import NotFound, TooMany
from tuttilab.scheduler.store.base import Change


class Journal:
    def __init__(self) -> None:
        self.reads: list[int] = []
        self.fails = False

    async def read(self, since: int) -> Sequence[Change]:
        self.reads.append(since)
        await asyncio.sleep(0)
        if self.fails:
            raise NotFound("gone")
        return [Change(seq=since + 1, at=0.0, kind="JobSubmitted", key="j", owner="ana")]


async def test_all_who_ask_at_one_place_share_one_read() -> None:
    journal, watchers = Journal(), Watchers()

    pages = await asyncio.gather(*(watchers.page(7, 8, journal.read) for _ in range(400)))

    assert (journal.reads, {page[0].seq for page in pages}) == ([7], {8})
    await watchers.page(7, 9, journal.read)
    assert journal.reads == [7, 7]


async def test_a_read_goes_on_without_the_one_who_asked_first() -> None:
    journal, watchers = Journal(), Watchers()
    first = asyncio.create_task(watchers.page(7, 8, journal.read))
    await asyncio.sleep(0)
    first.cancel()

    assert (await watchers.page(7, 8, journal.read))[0].seq == 8
    assert journal.reads == [7]


async def test_a_read_that_failed_is_not_kept() -> None:
    journal, watchers = Journal(), Watchers()
    journal.fails = True
    with pytest.raises(NotFound):
        await watchers.page(7, 8, journal.read)
    journal.fails = False

    assert (await watchers.page(7, 8, journal.read))[0].seq == 8


async def test_few_pages_are_kept() -> None:
    journal, watchers = Journal(), Watchers()
    for since in range(100):
        await watchers.page(since, 100, journal.read)

    assert len(watchers._reads) == KEPT_PAGES


def test_watchers_are_counted_by_caller() -> None:
    watchers = Watchers()
    for _ in range(MOST_WATCHERS):
        watchers.enter("eve")
    with pytest.raises(TooMany, match=f"eve waits for changes {MOST_WATCHERS} times at once"):
        watchers.enter("eve")

    with watchers.one("ana"):
        watchers.leave("eve")
    watchers.enter("eve")
    assert watchers._of_caller == {"eve": MOST_WATCHERS}
