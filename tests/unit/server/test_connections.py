"""Who makes room when there are as many connections as fit, and how many fit."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tuttilab.scheduler.api.connections import Connections, GuardedProtocol, most_connections


class Connection:
    def __init__(self, given: list[str], name: str) -> None:
        self._given, self._name = given, name

    def give_way(self) -> None:
        self._given.append(self._name)


def test_the_one_without_a_request_for_longest_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    given: list[str] = []
    known = Connections(3)
    at_work, first, second, third, fourth = (
        cast(GuardedProtocol, cast(Any, Connection(given, name))) for name in ("at work", "first", "second", "third", "fourth")
    )
    for one in (at_work, first, second):
        known.opened(one)
    known.begins_request(at_work)
    known.begins_request(first)
    known.has_answered(first)

    known.opened(third)
    assert given == ["second"]
    known.closed(second)
    known.begins_request(first)
    known.begins_request(third)
    known.opened(fourth)

    assert given == ["second", "fourth"]
    assert [record.getMessage()[:24] for record in caplog.records] == ["3 connections are open, "]


@pytest.mark.parametrize(("files", "connections"), [(256, 128), (1024, 512), (4096, 3584), (65_536, 65_024)])
def test_files_of_our_own_keep_their_room(files: int, connections: int) -> None:
    assert most_connections(files) == connections
