"""Where a program in the user's container listens, as it says in a file: a JSON object of names and addresses.

Of an address only the port is taken: the pod is the one that we stand in, whatever is written there.
"""

from __future__ import annotations

import json

from tuttilab.sidecar import beneath, protocol

_BYTES = 4096
_LONGEST_NUMBER = 12
"""Digits of what is no address, such as a time."""


class Endpoints:
    """The file at ``path``, where user code may have put anything. ``address``: the pod's own."""

    def __init__(self, path: str, address: str) -> None:
        self._folder, _, self._name = path.rpartition("/")
        self._host = f"[{address}]" if ":" in address else address
        self.offers: dict[str, str] = {}
        """What was read last."""

    def look(self) -> bool:
        """Whether it has changed. A file that is missing, or is no such object, changes nothing."""
        try:
            found = protocol.read_names(json.loads(beneath.read_file(self._folder, self._name, _BYTES)))
        except (OSError, ValueError):
            return False
        offers = {name: offer for name, text in found.items() if (offer := self._offer(text))}
        if offers == self.offers:
            return False
        self.offers = offers
        return True

    def _offer(self, text: str) -> str:
        """Empty for what is neither a port of the pod nor a number."""
        _, colon, number = text.rpartition(":")
        if not number.isascii() or not number.isdecimal() or len(number) > _LONGEST_NUMBER:
            return ""
        if not colon:
            return number
        return f"{self._host}:{int(number)}" if 0 < int(number) < 65536 else ""
