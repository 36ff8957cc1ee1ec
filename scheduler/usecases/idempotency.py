"""Idempotency keys: a repeated request has no second effect and gets the result of the first."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from tuttilab.scheduler.domain.errors import Conflict
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.store.base import IdempotencyKey


def digest(request: bytes) -> str:
    """Digest of a request: the same key with another digest is refused."""
    return hashlib.sha256(request).hexdigest()


class IdempotencyKeys:
    """The keys of one request, some of them used before. ``fresh`` goes into the turn once the request is accepted."""

    def __init__(self, service: Service, owner: str, known: Sequence[IdempotencyKey]) -> None:
        self._service = service
        self._owner = owner
        self._known = {row.key: row for row in known}
        self.fresh: dict[tuple[str, str], IdempotencyKey] = {}

    @classmethod
    async def load(cls, service: Service, who: Who, keys: Collection[str]) -> IdempotencyKeys:
        return cls(service, who.name, await service.store.idempotency_keys(who.name, list(keys)) if keys else ())

    @property
    def made_ids(self) -> list[str]:
        """Ids of jobs or runs of the keys that the store knew at `load`."""
        return [row.made_id for row in self._known.values()]

    def find(self, turn: Turn, key: str | None, digest: str) -> IdempotencyKey | None:
        """The first use of the key; None for a new key and without a key. Raises Conflict when it was used for another request."""
        if key is None:
            return None
        name = (self._owner, key)
        # Recent keys are looked up inside the turn, because an uncommitted turn may have been rolled back since. Keys of this turn
        # too: the same request may come twice before either is committed.
        earlier = self._service.recent_keys.get(name) or turn.keys.get(name)
        before = earlier or self.fresh.get(name) or self._known.get(key)
        if before is not None and before.digest != digest:
            raise Conflict(f"The idempotency key {key[:40]!r} was used for another submit; use a new key.")
        return before

    def record(self, key: str | None, digest: str, made_id: str) -> None:
        """Record the first use of a key."""
        if key is not None:
            self.fresh[self._owner, key] = IdempotencyKey(self._owner, key, digest, made_id)
