"""Nodes that are not ready, and whether what ran there was to have stopped itself by now.

A node that is cut off runs its pods on. They stop themselves once their lease is lost, and until then no other attempt may take
their place. How long a node has been silent is counted here from when it was first seen so: clocks of others do not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tuttilab.scheduler.clusters.kubernetes import states
from tuttilab.scheduler.clusters.kubernetes.pods import FLUSH_S, Body

REQUEST_S: Final = 15.0
"""A pod's request that is under way when its lease runs out."""
PROBES_S: Final = 20.0
"""From the lost lease to the kubelet's signal: three probes, 5 s apart (`pods.py`)."""

FORGOTTEN_S: Final = 86_400.0


class Silence:
    def __init__(self, heartbeat_s: float, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = lease_s + heartbeat_s + REQUEST_S + PROBES_S
        self._clock = clock
        self._since: dict[str, tuple[str, float]] = {}
        """By node: since when its condition says that it is not ready, and when we saw that."""

    def has_outlasted(self, pod: Body, node: Body | None) -> bool:
        """Whether the pod's node (None: it is gone) was silent until the pod's lease, probes and grace were over."""
        name = str(pod["spec"].get("nodeName") or "")
        if not name:
            return False
        if node is not None and states.is_ready(node):
            self._since.pop(name, None)
            return False
        changed = "" if node is None else states.readiness_changed_at(node)
        known = self._since.get(name)
        if known is None or known[0] != changed:
            now = self._clock()
            # Nodes that are gone for good say so to nobody.
            self._since = {each: seen for each, seen in self._since.items() if now - seen[1] < FORGOTTEN_S}
            known = self._since[name] = (changed, now)
        # A pod of which no container is to be started again gets its whole grace from the kubelet, not that of the failed probe.
        grace_s = float(pod["spec"].get("terminationGracePeriodSeconds", FLUSH_S))
        return self._clock() - known[1] > self._limit_s + grace_s
