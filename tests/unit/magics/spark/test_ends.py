"""When the end of a session is asked for: while cells use it, by one thread, and told once."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from tuttilab.magics.spark import ends
from tuttilab.magics.spark.ends import EndWatch
from tuttilab.magics.spark.errors import SessionGone, is_of_connection
from tuttilab.magics.spark.session import SparkEndpoint

ENDPOINT = SparkEndpoint("127.0.0.1", 1, "t", "job", "default")


class Provider:
    """Waits until the test says that the session has ended, or until nobody wants to know."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.questions = 0
        self.left = threading.Semaphore(0)
        self.is_over = threading.Event()

    def wait_for_end(self, _endpoint: SparkEndpoint, is_enough: threading.Event) -> bool:
        self.questions += 1
        self.asked.release()
        while not self.is_over.is_set() and not is_enough.wait(0.005):
            pass
        self.left.release()
        return self.is_over.is_set()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setattr(ends, "QUIET_S", 0.01)
    return Provider()


def test_an_end_is_told_once_and_asked_for_no_more(provider: Provider) -> None:
    told = threading.Semaphore(0)
    watch = EndWatch(ENDPOINT, cast(Any, provider), told.release)
    watch.begin()
    assert provider.asked.acquire(timeout=60)
    assert not watch.has_ended

    provider.is_over.set()

    assert told.acquire(timeout=60)
    assert watch.has_ended
    watch.begin()
    assert not told.acquire(timeout=0.1)
    assert provider.questions == 1


def test_between_cells_nobody_asks_and_the_next_cell_asks_again(provider: Provider) -> None:
    watch = EndWatch(ENDPOINT, cast(Any, provider), lambda: None)
    for number in (1, 2):
        watch.begin()
        assert provider.asked.acquire(timeout=60)
        watch.finish()
        assert provider.left.acquire(timeout=60)
        assert (provider.questions, watch.has_ended) == (number, False)


def test_a_cell_that_is_over_at_once_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "QUIET_S", 60.0)
    provider = Provider()
    watch = EndWatch(ENDPOINT, cast(Any, provider), lambda: None)
    watch.begin()
    watch.finish()
    for thread in threading.enumerate():
        if thread.name == "end of default":
            thread.join(60)
    assert provider.questions == 0


@pytest.mark.parametrize(
    ("error", "is_its"),
    [
        (SessionGone(), True),
        (ValueError("invalid literal"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_a_closed_connection_is_told_from_an_error_of_the_cell(error: Exception, is_its: bool) -> None:
    assert is_of_connection(error) is is_its
