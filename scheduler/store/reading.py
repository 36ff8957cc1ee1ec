"""Reads that the API needs and that every store here answers, beyond what the loop needs of a store (`base`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tuttilab.scheduler.events import Event
from tuttilab.scheduler.model import Attempt
from tuttilab.scheduler.store.base import ArtifactRow, Change, Store


class ReadingStore(Store, Protocol):
    async def changes(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[Change]:
        """As of `Store`; with ``key`` only lines about that one thing, as far back as they are kept."""
        ...

    async def journal(self, since: int, limit: int = 1000, key: str | None = None) -> Sequence[tuple[int, float, Event]]:
        """As of `Store`; with ``key`` only lines about that one thing, as far back as they are kept."""
        ...

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        """Every attempt of several jobs, by job id and number."""
        ...

    async def artifact(self, artifact_id: str, owner: str | None = None) -> ArtifactRow | None:
        """The row of this owner, or of anybody when ``owner`` is None."""
        ...
