"""Lists and watches that misbehave as those of API servers do."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from tuttilab.scheduler.clusters.kubernetes import informer as informers
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError
from tuttilab.scheduler.clusters.kubernetes.informer import Informer
from tuttilab.scheduler.domain.errors import ClusterUnreachable


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {"metadata": {"namespace": "ml", "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}}


def event(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode()


class Server:
    """Answers lists and watches from a script; after its end watches wait for ever."""

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.lists = lists
        self.watches = watches
        self.asked: list[Mapping[str, object]] = []

    async def call(self, _method: str, _path: str, *, query: Mapping[str, object]) -> dict[str, Any]:
        self.asked.append(dict(query))
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        found: dict[str, Any] = answer
        return found

    async def batches(self, _path: str, query: Mapping[str, object], _idle_s: float) -> AsyncGenerator[list[bytes]]:
        self.asked.append(dict(query))
        if not self.watches:
            await asyncio.Event().wait()
        for answer in self.watches.pop(0):
            if isinstance(answer, Exception):
                raise answer
            yield [answer]


def listed(version: int, *items: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"items": list(items), "metadata": {"resourceVersion": str(version), "continue": more}}


async def settled(server: Server, monkeypatch: pytest.MonkeyPatch) -> Informer:
    """After the script was played."""
    monkeypatch.setattr(informers, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(informers, "LONGEST_PAUSE_S", 0.0)
    made = Informer(server, "k", "/pods", "a=b", lambda: None)  # type: ignore[arg-type]  # speaks as `Api` does
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(5):
        while server.watches or not server.asked or "watch" not in server.asked[-1]:  # noqa: ASYNC110  nothing to wait for
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    task.cancel()
    return made


def versions(made: Informer) -> dict[str, str]:
    return {name: item["metadata"]["resourceVersion"] for (_, name), item in made.objects.items()}


async def test_pages_are_put_together_and_the_watch_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([listed(9, pod("a", 3), more="next"), listed(10, pod("b", 4))], [[event("ADDED", pod("c", 11))], []])

    made = await settled(server, monkeypatch)

    assert versions(made) == {"a": "3", "b": "4", "c": "11"}
    assert [each.get("continue") for each in server.asked[:2]] == [None, "next"]
    assert [each["resourceVersion"] for each in server.asked if "watch" in each] == ["10", "11", "11"]


async def test_a_watch_that_lost_its_place_is_followed_by_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"code": 410, "reason": "Expired", "message": "too old resource version"}
    server = Server(
        [listed(10, pod("a", 3)), listed(50, pod("b", 40)), listed(70, pod("b", 40), pod("d", 66))],
        [[event("ERROR", gone)], [ApiError(410, "Gone", "too old")], []],
    )

    assert versions(await settled(server, monkeypatch)) == {"b": "40", "d": "66"}


async def test_old_and_repeated_events_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [
        event("MODIFIED", pod("a", 12)),
        event("MODIFIED", pod("a", 11)),
        event("ADDED", pod("a", 12)),
        event("MODIFIED", pod("gone", 8)),
        event("DELETED", pod("b", 13)),
        event("MODIFIED", pod("b", 12)),
        event("DELETED", pod("b", 13)),
        event("DELETED", pod("a", 14, uid="uid-of-another")),
    ]
    server = Server([listed(10, pod("a", 3), pod("b", 4))], [late, []])

    assert versions(await settled(server, monkeypatch)) == {"a": "12"}


async def test_bookmarks_move_the_place_and_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = {"metadata": {"resourceVersion": "99"}}
    server = Server([listed(10, pod("a", 3))], [[event("BOOKMARK", mark)], []])

    made = await settled(server, monkeypatch)

    assert versions(made) == {"a": "3"}
    assert server.asked[-1]["resourceVersion"] == "99"


async def test_a_dropped_watch_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(
        [listed(10, pod("a", 3))],
        [[event("MODIFIED", pod("a", 12)), ClusterUnreachable("dropped")], [event("MODIFIED", pod("a", 15))], []],
    )

    made = await settled(server, monkeypatch)

    assert versions(made) == {"a": "15"}
    assert [each["resourceVersion"] for each in server.asked if "watch" in each][:2] == ["10", "12"]
    assert made.failing_s() == 0


async def test_what_we_wrote_is_there_before_the_watch_says_so_and_survives_an_older_list() -> None:
    server = Server([listed(10), listed(11)], [])
    made = Informer(server, "k", "/pods", "", lambda: None)  # type: ignore[arg-type]  # speaks as `Api` does
    await made.sync()

    made.put(pod("mine", 12))
    await made.sync()
    assert versions(made) == {"mine": "12"}

    made.drop(pod("mine", 12))
    made.put(pod("mine", 12))
    assert versions(made) == {}


async def test_a_list_that_is_refused_says_why() -> None:
    refusal = ApiError(403, "Forbidden", 'User "ann" cannot list resource "pods" in API group "" in the namespace "ml"')
    made = Informer(Server([refusal], []), "k", "/pods", "", lambda: None)  # type: ignore[arg-type]  # speaks as `Api` does

    with pytest.raises(ClusterUnreachable, match="ann may not list pods"):
        await made.sync()
