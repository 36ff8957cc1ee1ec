"""A member's lease from its master: orders arrive by long poll, and a member that loses its master stops itself.

The lease is lost when the master's process has ended (its lock shows that on the same machine), or after ``lease_s`` without an
answer.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from tuttilab.sidecar import protocol, records
from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.event_loop import EventLoop
from tuttilab.sidecar.heartbeat import NoAnswer, exchange

LONG_POLL_S = 10.0
"""How long the master holds a request for orders that have not changed."""
RETRY_S = 0.25


class Lease:
    def __init__(self, master: dict[str, Any], token: str, lease_s: float, loop: EventLoop) -> None:
        self.url: str = f"http://{master['address']}"
        self._master_lock: str | None = master.get("lock")
        self._token = token
        self._lease_s = lease_s
        self._loop = loop
        self._answered_at = time.monotonic()
        self._orders = protocol.Orders()
        self._mutex = threading.Lock()
        threading.Thread(target=self._poll_orders, name="orders", daemon=True).start()

    def handle_reply(self, reply: dict[str, Any]) -> None:
        """Takes the orders from an answer of the master, to a report or to a request for orders."""
        try:
            orders = protocol.read_orders(reply)
        except (ValueError, TypeError) as error:
            sys.stderr.write(f"unreadable orders: {error}\n")
            return
        with self._mutex:
            self._answered_at = time.monotonic()
            known, self._orders = self._orders, max(self._orders, orders, key=lambda each: each.version)
        if orders.is_open and not known.is_open:
            self._loop.post(m.BarrierOpened())
        if orders.stop is not None and orders.stop != known.stop:
            self._loop.post(m.StopRequested(*orders.stop))

    def check_master(self) -> None:
        """After a request without an answer: whether the lease is lost."""
        if self._master_lock is not None and not records.is_locked(self._master_lock):
            self._loop.post(m.MasterLost("the gang's master is gone"))
        elif time.monotonic() - self._answered_at > self._lease_s:
            self._loop.post(m.MasterLost(f"no word from the gang's master for {self._lease_s:g} s"))

    def _poll_orders(self) -> None:
        while True:
            try:
                path = f"{protocol.ORDERS_PATH}?known={self._orders.version}"
                wait_s = min(LONG_POLL_S + 5.0, self._lease_s)
                status, reply = exchange(self.url, path, self._token, None, wait_s)
                if status == 200:
                    self.handle_reply(reply)
                    continue
            except NoAnswer:
                pass
            self.check_master()
            time.sleep(RETRY_S)
