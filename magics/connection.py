"""The kernel's one connection to the service, made when something first needs it."""

from __future__ import annotations

import os
import threading

from tuttilab.scheduler.client import Client, connect

_lock = threading.Lock()
_held: tuple[int, Client] | None = None
_users: dict[int, str] = {}
"""Who the service says we are, by the client that asked."""


def client() -> Client:
    """The client of this process. The first call may start the local control plane; raises TuttiError when there is none."""
    global _held
    with _lock:
        # A forked child inherits the object but not the thread behind it.
        if _held is None or _held[0] != os.getpid():
            _held = (os.getpid(), connect())
        return _held[1]


def connected() -> Client | None:
    """The client if something connected already; never starts anything."""
    with _lock:
        return _held[1] if _held is not None and _held[0] == os.getpid() else None


def user() -> str:
    """The name under which this kernel is known to the service."""
    service = client()
    if id(service) not in _users:
        _users.clear()
        _users[id(service)] = service.me().name
    return _users[id(service)]


def disconnect() -> None:
    """Close the connection; the next use opens a new one."""
    global _held
    with _lock:
        if _held is not None and _held[0] == os.getpid():
            _held[1].close()
        _users.clear()
        _held = None
