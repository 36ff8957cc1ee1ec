"""Tickets: signed, temporary permissions to upload or fetch one artifact at the process that transfers their bytes.

A ticket is an HMAC (SHA-256) of what it allows, under a key that only the control plane and that process have. It is in the
query of the URL, as in the signed URLs of object stores, so that no user's token is sent to a second port. Until it runs out it may
be used again, as a broken transfer is repeated; bytes under their sha256 are the same each time.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import urlencode

from tuttilab.scheduler.domain.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class Ticket:
    """``method`` is GET or PUT; ``until`` is Unix time in seconds."""

    method: str
    artifact_id: str
    owner: str
    until: int

    def mac(self, key: bytes) -> str:
        # Each part has its length before it, so no two different tickets have the same text.
        parts = (self.method, self.artifact_id, self.owner, str(self.until))
        text = "".join(f"{len(part.encode())}:{part}" for part in parts)
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def query(self, key: bytes) -> str:
        return urlencode({"owner": self.owner, "until": self.until, "mac": self.mac(key)})

    def check(self, key: bytes, mac: str, now: float) -> None:
        """Raises Unauthenticated when the ticket was not signed with this key, or has expired."""
        if not hmac.compare_digest(self.mac(key).encode(), mac.encode()):
            raise Unauthenticated(
                f"This ticket is not for {self.method} of artifact {self.artifact_id[:80]}; ask the service for one."
            )
        if now > self.until:
            raise Unauthenticated("This ticket has run out; ask the service for a new one.")
