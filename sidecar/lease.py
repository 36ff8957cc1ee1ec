"""A member's tie to its master: its orders come at once by a long poll, and a member that is cut off stops itself.

The lease is lost when the master's process is gone (on the same machine its lock tells), or after ``lease_s`` without an answer.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from tuttilab.sidecar import machine as m
from tuttilab.sidecar import protocol, records
from tuttilab.sidecar.heartbeat import NoAnswer, exchange
from tuttilab.sidecar.pulse import Pulse

HOLD_S = 10.0
"""How long the master holds a request for orders that have not changed."""
RETRY_S = 0.25


class Lease:
    def __init__(self, master: dict[str, Any], token: str, lease_s: float, pulse: Pulse) -> None:
        self.url: str = f"http://{master['address']}"
        self._lock: str | None = master.get("lock")
        self._token = token
        self._lease_s = lease_s
        self._pulse = pulse
        self._heard_at = time.monotonic()
        self._known = protocol.Orders()
        self._turn = threading.Lock()
        threading.Thread(target=self._watch, name="orders", daemon=True).start()

    def heard(self, reply: dict[str, Any]) -> None:
        """An answer of the master, to a report or to a request for orders."""
        try:
            orders = protocol.read_orders(reply)
        except (ValueError, TypeError) as error:
            sys.stderr.write(f"unreadable orders: {error}\n")
            return
        with self._turn:
            self._heard_at = time.monotonic()
            known, self._known = self._known, max(self._known, orders, key=lambda each: each.version)
        if orders.is_open and not known.is_open:
            self._pulse.post(m.BarrierOpened())
        if orders.stop is not None and orders.stop != known.stop:
            self._pulse.post(m.StopAsked(*orders.stop))

    def check(self) -> None:
        """After a request that nobody answered."""
        if self._lock is not None and not records.is_locked(self._lock):
            self._pulse.post(m.MasterLost("the gang's master is gone"))
        elif time.monotonic() - self._heard_at > self._lease_s:
            self._pulse.post(m.MasterLost(f"no word from the gang's master for {self._lease_s:g} s"))

    def _watch(self) -> None:
        while True:
            try:
                path = f"{protocol.ORDERS_PATH}?known={self._known.version}"
                wait_s = min(HOLD_S + 5.0, self._lease_s)
                status, reply = exchange(self.url, path, self._token, None, wait_s)
                if status == 200:
                    self.heard(reply)
                    continue
            except NoAnswer:
                pass
            self.check()
            time.sleep(RETRY_S)
