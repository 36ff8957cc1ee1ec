"""What a Kubernetes cluster notes of attempts, asked of each place that keeps it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tuttilab.scheduler.clusters.kubernetes.attempts import Attempts, FileNotes, Keeper, Noted
from tuttilab.scheduler.domain.errors import StaleEpoch
from tuttilab.scheduler.service.attempt_notes import StoredNotes
from tuttilab.scheduler.store.memory import MemoryStore
from tuttilab.scheduler.store.queries import QueryStore
from tuttilab.scheduler.store.sql import SqlStore

Restart = Callable[[], Awaitable[Keeper]]
SHARED = ("memory", "sqlite", pytest.param("postgres", marks=pytest.mark.requires("postgres")))
FULL = Noted(
    3,
    "digest",
    "ml",
    pods={"j-1-0": "d0", "j-1-1": "d1"},
    made={"j-1-0": "uid"},
    never=["j-1-1"],
    is_stopped=True,
    refused="no room, not even for \u0000 or \ud800",
    told=["j-1-0"],
    why={"j-1-0": "Unschedulable"},
    notes={"j-1-0": "told to stop."},
)


@pytest.fixture(params=["files", *SHARED])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def restarted(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Restart]:
    """A control plane that begins to lead, with nothing in its memory: each time with a higher epoch."""
    server: Postgres | None = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    database = server.new_database() if server else ""
    url = server.url(database) if server else f"sqlite:///{tmp_path / 'state.db'}"
    memory, opened = MemoryStore(), []

    async def restart() -> Keeper:
        if kind == "files":
            return FileNotes(tmp_path)
        store: QueryStore = memory if kind == "memory" else SqlStore(url)
        opened.append(store)
        keeper = StoredNotes(store, "k")
        keeper.lead(await store.open())
        return keeper

    yield restart
    for store in opened:
        await store.close()
    if server:
        server.drop(database)


async def attempts_of(keeper: Keeper, tmp_path: Path) -> Attempts:
    attempts = Attempts(tmp_path / "logs", keeper)
    await attempts.load()
    return attempts


async def test_who_leads_next_knows_all_that_was_noted(restarted: Restart, tmp_path: Path) -> None:
    before = await attempts_of(await restarted(), tmp_path)
    assert await before.find("j", 1) is None
    await before.put("j", 1, Noted(3, "", ""))
    await before.put("j", 1, FULL)
    await before.put("j", 2, Noted(4, "other", "ml"))

    after = await attempts_of(await restarted(), tmp_path)

    assert (after.get("j", 1), after.get("j", 2), after.get("j", 3)) == (FULL, Noted(4, "other", "ml"), None)
    assert await after.find("j", 1) == FULL


async def test_what_is_forgotten_is_known_as_such_until_it_is_erased(restarted: Restart, tmp_path: Path) -> None:
    before = await attempts_of(await restarted(), tmp_path)
    await before.put("j", 1, Noted(1, "digest", "ml", is_forgotten=True))
    await before.put("j", 2, Noted(1, "digest", "ml"))

    after = await attempts_of(await restarted(), tmp_path)
    assert await after.find("j", 1) == Noted(1, "digest", "ml", is_forgotten=True)
    await after.erase("j", 1)
    await after.erase("no-such-job", 1)

    last = await attempts_of(await restarted(), tmp_path)
    assert (await last.find("j", 1), last.get("j", 2)) == (None, Noted(1, "digest", "ml"))


async def test_notes_that_come_together_are_all_kept(restarted: Restart, tmp_path: Path) -> None:
    before = await attempts_of(await restarted(), tmp_path)
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(before.put(f"j{number % 40}", 1, Noted(number, "digest", "ml")))

    after = await attempts_of(await restarted(), tmp_path)

    assert sorted(noted.epoch for number in range(40) if (noted := after.get(f"j{number}", 1))) == list(range(10, 50))


@pytest.mark.parametrize("kind", SHARED)
async def test_a_former_leader_notes_and_erases_nothing(restarted: Restart, tmp_path: Path) -> None:
    """Where notes are files, the lock of the state folder keeps everybody else out."""
    former = await attempts_of(await restarted(), tmp_path)
    await former.put("j", 1, FULL)
    leader = await attempts_of(await restarted(), tmp_path)

    with pytest.raises(StaleEpoch, match="epoch 1 was given, and 2 leads"):
        await former.put("j", 1, Noted(9, "late", "ml"))
    with pytest.raises(StaleEpoch):
        await former.put("new", 1, Noted(9, "late", "ml"))
    with pytest.raises(StaleEpoch):
        await former.erase("j", 1)

    assert await leader.find("j", 1) == FULL
    assert await leader.find("new", 1) is None


async def test_logs_that_are_elsewhere_are_known_to_be(restarted: Restart, tmp_path: Path) -> None:
    """A folder that is not shared although the site says so; where notes are files they come with it."""
    before = Attempts(tmp_path / "before", await restarted())
    await before.load()
    assert not before.is_elsewhere("j", 1)
    await before.put("j", 1, FULL)
    await before.make_folders("j", 1, ["j-1-0"])

    here = Attempts(tmp_path / "before", await restarted())
    there = Attempts(tmp_path / "there", await restarted())
    for attempts in (here, there):
        await attempts.load()
        await attempts.find("j", 1)

    assert (here.is_elsewhere("j", 1), there.is_elsewhere("j", 1), there.is_elsewhere("unknown", 1)) == (False, True, False)
    await there.make_folders("j", 1, ["j-1-0"])
    assert there.is_elsewhere("j", 1)
