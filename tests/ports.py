"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from random import SystemRandom

PORTS = range(12_000, 19_000)
"""Below those that the kernel gives to others in the meantime, and apart from those that `local` gives to its pods."""


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    with ExitStack() as held:
        for port in SystemRandom().sample(PORTS, 200 * count):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports in {PORTS}")


def free_port() -> int:
    return free_ports(1)[0]
