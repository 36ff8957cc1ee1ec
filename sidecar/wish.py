"""How many workers the job says that it can use: a number in a file, which the first member of a gang whose size varies may write.

The sidecar passes the text on as an offer of the pod; whether it is a number, the control plane says.
"""

from __future__ import annotations

from typing import Any

from tuttilab.sidecar import beneath

WORKERS = "workers"
"""Name of the offer."""
VARIABLE = "TUTTILAB_WORKERS_FILE"
LONGEST = 40
"""Characters that are passed on."""
_BYTES = 256


class Wish:
    """The file at ``path``, where the job may have put anything."""

    def __init__(self, path: str) -> None:
        self._folder, _, self._name = path.rpartition("/")
        self.offers: dict[str, str] = {}
        """What was read last; nothing before the first number."""

    def look(self) -> bool:
        """Whether it has changed. An empty file, as one is while it is being written, changes nothing."""
        try:
            data = beneath.read_file(self._folder, self._name, _BYTES)
        except OSError:
            return False
        text = "".join(letter for letter in data.decode(errors="replace").strip() if letter.isprintable())[:LONGEST]
        if not text or text == self.offers.get(WORKERS):
            return False
        self.offers = {WORKERS: text}
        return True


def of_env(env: dict[str, Any]) -> Wish | None:
    """None for a pod that has no such file: not a first member, or of a gang that keeps its size."""
    path = env.get(VARIABLE)
    return Wish(path) if path else None
