"""The kernel's one connection to the service, opened at first use."""

from __future__ import annotations

import os
import sys
import threading

from tuttilab.scheduler.client import Client, connect

_lock = threading.Lock()
_connection: tuple[int, Client] | None = None
_users: dict[int, str] = {}
"""The user's name as the service knows it, by client."""


def client() -> Client:
    """The client of this process. The first call may start the local control plane; raises TuttiError when there is none."""
    global _connection
    with _lock:
        # A forked child inherits the object but not its thread.
        if _connection is None or _connection[0] != os.getpid():
            _connection = (os.getpid(), connect(say=_say))
        return _connection[1]


def _say(sentence: str) -> None:
    """Below the cell that runs, although it is another thread that waits."""
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


def connected() -> Client | None:
    """The client if there is a connection; never starts anything."""
    with _lock:
        return _connection[1] if _connection is not None and _connection[0] == os.getpid() else None


def user() -> str:
    """The name under which the service knows this kernel's user."""
    service = client()
    if id(service) not in _users:
        _users.clear()
        _users[id(service)] = service.me().name
    return _users[id(service)]


def disconnect() -> None:
    """Close the connection; the next use opens a new one."""
    global _connection
    with _lock:
        if _connection is not None and _connection[0] == os.getpid():
            _connection[1].close()
        _users.clear()
        _connection = None
