"""The token bucket of each user's writes."""

from __future__ import annotations

import asyncio

import pytest

from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.domain.errors import TooFast
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.identity import rate
from tuttilab.scheduler.identity.rate import RefusalRate, WriteRate

ANN, EVE, HUB = Who("ann"), Who("eve", is_admin=True), Who("tuttilab", is_admin=True, is_hub=True)


class Clock:
    at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, per_s: float = 2.0, at_once: int = 3) -> WriteRate:
    return WriteRate(Limits(user_writes_per_s=per_s, user_writes_at_once=at_once), clock)


def taken(bucket: WriteRate, who: Who, tries: int, method: str = "POST") -> int:
    done = 0
    for _ in range(tries):
        try:
            bucket.take(who, method)
        except TooFast:
            continue
        done += 1
    return done


def test_as_many_as_the_bucket_holds_then_as_many_as_it_fills(clock: Clock) -> None:
    bucket = made(clock)
    assert taken(bucket, ANN, 10) == 3
    clock.at += 1.0
    assert taken(bucket, ANN, 10) == 2
    clock.at += 3600.0
    assert taken(bucket, ANN, 10) == 3


def test_a_refusal_says_who_how_many_and_when(clock: Clock) -> None:
    bucket = made(clock, per_s=1 / 8, at_once=1)
    bucket.take(ANN, "DELETE")
    clock.at += 2.0

    with pytest.raises(
        TooFast, match=r"ann has sent 1 writes at once, and 0.125 a second are allowed \(limits.user_writes_per_s\)"
    ) as said:
        bucket.take(ANN, "PUT")

    assert said.value.retry_after_s == 6
    clock.at += 6.0
    bucket.take(ANN, "PUT")


def test_one_who_is_refused_does_not_wait_longer_for_asking(clock: Clock) -> None:
    bucket = made(clock, per_s=1.0, at_once=1)
    assert taken(bucket, ANN, 1) == 1
    for _ in range(9):
        clock.at += 0.1
        assert taken(bucket, ANN, 5) == 0
    clock.at += 0.11
    assert taken(bucket, ANN, 1) == 1


def test_users_do_not_share_a_bucket_reads_and_the_hub_are_free_and_admins_are_not(clock: Clock) -> None:
    bucket = made(clock)
    assert taken(bucket, ANN, 5) == 3
    assert taken(bucket, EVE, 5) == 3
    assert taken(bucket, HUB, 50) == 50
    assert taken(bucket, ANN, 50, "GET") == 50


def test_the_oldest_of_too_many_buckets_is_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MOST_BUCKETS", 2)
    bucket = made(clock, at_once=1)
    for name in ("a", "b", "c"):
        assert taken(bucket, Who(name), 2) == 1

    assert taken(bucket, Who("c"), 1) == 0
    assert taken(bucket, Who("a"), 1) == 1


async def test_refusals_beyond_the_rate_wait_and_no_more_of_them_than_a_few(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    open_waits = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await open_waits.wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    refusals = RefusalRate(clock)
    for _ in range(rate.REFUSALS_AT_ONCE):
        await refusals.wait()
    assert waits == []

    pending = [asyncio.ensure_future(refusals.wait()) for _ in range(rate.MOST_WAITING)]
    while len(waits) < rate.MOST_WAITING:
        await asyncio.wait(pending, timeout=0.01)
    await refusals.wait()
    assert (waits[0], max(waits)) == (1 / rate.REFUSALS_PER_S, rate.MOST_WAITING / rate.REFUSALS_PER_S)

    open_waits.set()
    await asyncio.gather(*pending)
    clock.at += 3600
    await refusals.wait()
    assert len(waits) == rate.MOST_WAITING
