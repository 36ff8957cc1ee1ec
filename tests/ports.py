"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from random import SystemRandom

PORTS = range(12_000, 19_000)
"""Below those that the kernel gives to clients, so that a server which is down for a while gets its port back, and apart from those
that `local` gives to its pods."""


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    found: list[int] = []
    with ExitStack() as held:
        for port in SystemRandom().sample(PORTS, min(200 * count, len(PORTS))):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((host, port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports on {host} in {PORTS}")


def free_port(host: str = "127.0.0.1") -> int:
    return free_ports(1, host)[0]
