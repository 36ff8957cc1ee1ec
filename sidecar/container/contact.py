"""Whether a pod is cut off: neither the control plane nor the cluster's API server has answered for some time.

Silence of the control plane alone stops nothing, so the API server's answer counts too. Where a pod cannot reach the API server at
all (a network policy), its silence says nothing, and the pod never counts as cut off.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

TIMEOUT_S = 3.0
WATCH_S = 1.0


def reach_api_server() -> bool:
    """Whether the API server's port takes a connection; user code cannot send it a token that we do not have."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return False
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S):
            return True
    except OSError:
        return False


class Contact:
    def __init__(
        self, lease_s: float, reach: Callable[[], bool] = reach_api_server, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lease_s = lease_s
        self._reach = reach
        self._clock = clock
        self._answered_at = clock()
        self._has_reached = reach()

    def answered(self) -> None:
        """The control plane has answered."""
        self._answered_at = self._clock()

    def is_overdue(self) -> bool:
        """Whether the control plane has been silent for the whole lease: then `is_lost` tells the rest."""
        return self._clock() - self._answered_at > self._lease_s

    def is_lost(self) -> bool:
        """To be asked when the control plane has not answered."""
        if self._reach():
            self._has_reached = True
            self._answered_at = self._clock()
        return self._has_reached and self._clock() - self._answered_at > self._lease_s


def watch(check: Callable[[], None]) -> None:
    """Call ``check`` every second: a request may hang for long, while no name is resolved, and a lease must not hang with it."""

    def run() -> None:
        while True:
            time.sleep(WATCH_S)
            check()

    threading.Thread(target=run, name="lease watch", daemon=True).start()
