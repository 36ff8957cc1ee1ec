"""What is asked again because no answer came: under its idempotency key it has no second effect, and the first answer once more."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from tuttilab.scheduler.errors import Conflict
from tuttilab.scheduler.requests import Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.store.base import Keyed
from tuttilab.scheduler.turn import Turn


def digest(asked: bytes) -> str:
    """Of what is asked under a key: other bytes under the same key are refused."""
    return hashlib.sha256(asked).hexdigest()


class Repeats:
    """The keys of one request, of which some may have been used before. ``fresh`` goes into the turn once all of it is accepted."""

    def __init__(self, service: Service, owner: str, known: Sequence[Keyed]) -> None:
        self._service = service
        self._owner = owner
        self._known = {keyed.key: keyed for keyed in known}
        self.fresh: dict[tuple[str, str], Keyed] = {}

    @classmethod
    async def among(cls, service: Service, who: Who, keys: Collection[str]) -> Repeats:
        return cls(service, who.name, await service.store.keyed_among(who.name, list(keys)) if keys else ())

    @property
    def made_ids(self) -> list[str]:
        """Of what was made under those that the store knew when it was asked."""
        return [keyed.made_id for keyed in self._known.values()]

    def of(self, turn: Turn, key: str | None, asked: str) -> Keyed | None:
        """What the key stands for; None for a new one, and without a key. Raises Conflict when it stands for something else."""
        if key is None:
            return None
        name = (self._owner, key)
        # What is not committed yet is looked up only now: the turn that it came with may have been taken back meanwhile. Keys of
        # this turn too: the same may have come twice before either was committed.
        earlier = self._service.recent_keys.get(name) or turn.keys.get(name)
        before = earlier or self.fresh.get(name) or self._known.get(key)
        if before is not None and before.digest != asked:
            raise Conflict(f"The idempotency key {key[:40]!r} was used for another submit; use a new key.")
        return before

    def first(self, key: str | None, asked: str, made_id: str) -> None:
        """A new key stands for this from now on."""
        if key is not None:
            self.fresh[self._owner, key] = Keyed(self._owner, key, asked, made_id)
