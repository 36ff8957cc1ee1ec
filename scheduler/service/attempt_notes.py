"""Keeps what a cluster notes of attempts in the database, under the epoch that leads: a former leader notes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from tuttilab.scheduler.store.base import Note, NoteStore

Record = Mapping[str, Any]
"""JSON of the cluster's own. ``Any``: its values have different types."""


class StoredNotes:
    """The notes of one cluster. What comes while a transaction is under way goes into the next one together."""

    def __init__(self, store: NoteStore, cluster: str) -> None:
        self._store = store
        self._cluster = cluster
        self._epoch = 0
        self._waiting: dict[tuple[str, int], tuple[Note, asyncio.Future[None]]] = {}
        self._writer: asyncio.Task[None] | None = None

    def lead(self, epoch: int) -> None:
        self._epoch = epoch

    def peek(self, job_id: str, attempt: int) -> Record | None:
        return None

    async def all(self) -> Mapping[tuple[str, int], Record]:
        """Of all attempts whose pods are not forgotten."""
        return {(note.job_id, note.attempt): json.loads(note.body) for note in await self._store.notes(self._cluster)}

    async def read(self, job_id: str, attempt: int) -> Record | None:
        note = await self._store.note(self._cluster, job_id, attempt)
        return None if note is None else json.loads(note.body)

    async def write(self, job_id: str, attempt: int, record: Record, *, is_over: bool, is_durable: bool = True) -> None:
        """Returns once it is committed. Raises StaleEpoch, StoreError."""
        note = Note(self._cluster, job_id, attempt, json.dumps(record), is_over)
        known = self._waiting.get((job_id, attempt))
        written = known[1] if known is not None else asyncio.get_running_loop().create_future()
        self._waiting[job_id, attempt] = note, written
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name=f"notes of {self._cluster}")
        await asyncio.shield(written)

    async def erase(self, job_id: str, attempt: int) -> None:
        await self._store.drop_note(self._epoch, self._cluster, job_id, attempt)

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, {}
                try:
                    await self._store.put_notes(self._epoch, [note for note, _ in batch.values()])
                except Exception as error:
                    for _, written in batch.values():
                        written.set_exception(error)
                        written.exception()  # whoever asked may have been cancelled meanwhile
                else:
                    for _, written in batch.values():
                        written.set_result(None)
        finally:
            self._writer = None
