"""The `QueryStore` protocol: reads that the API needs beyond what the loop needs (`base`). Every store here implements it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tuttilab.scheduler.domain.events import Event
from tuttilab.scheduler.domain.model import Attempt
from tuttilab.scheduler.store.base import ArtifactRow, Change, NoteStore, Store

MOST_SCANNED: Final = 1_000_000
"""Newest lines of the journal among which `QueryStore.newest` looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalQuery:
    """``key``: how the key begins. ``before``: only lines below that number."""

    kinds: Collection[str]
    owner: str | None = None
    key: str | None = None
    before: int | None = None
    limit: int = 100


class QueryStore(Store, NoteStore, Protocol):
    async def changes(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[Change]:
        """As in `Store`; with ``key`` only the lines about that object, as far back as they are kept."""
        ...

    async def journal(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[tuple[int, float, Event]]:
        """As in `Store`; with ``key`` only the lines about that object, as far back as they are kept."""
        ...

    async def newest(self, query: JournalQuery) -> Sequence[tuple[int, float, str, Event]]:
        """Number, time, key and event of the lines that match, newest first."""
        ...

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        """Every attempt of several jobs, by job id and number."""
        ...

    async def artifact(self, artifact_id: str, owner: str | None = None) -> ArtifactRow | None:
        """The row of this owner, or of anybody when ``owner`` is None."""
        ...

    async def artifacts_of(self, owner: str, artifact_ids: Sequence[str]) -> Sequence[str]:
        """Those of the artifacts of which the owner has a row."""
        ...
