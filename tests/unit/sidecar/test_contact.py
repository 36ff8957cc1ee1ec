"""A pod that is cut off notices it in time, whatever its requests hang on."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.container.contact import Contact
from tuttilab.sidecar.container.member import Sidecar

LEASE_S = 1.0


@pytest.mark.parametrize("master", [{"address": "master.gang:15990"}, None])
def test_a_lease_is_lost_in_time_while_no_name_is_resolved(master: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a node without a network: the resolver alone waits for tens of seconds."""
    hangs = threading.Event()

    def getaddrinfo(host: str, *_: Any, **__: Any) -> Any:
        if host == "10.0.0.1":  # the API server's, an address
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
        hangs.wait(30)
        raise OSError("no such name")

    reached = [True]
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("tuttilab.sidecar.container.member.Contact", lambda lease_s: Contact(lease_s, lambda: reached[0]))
    lost = threading.Event()
    loop = SimpleNamespace(post=lambda event: lost.set() if isinstance(event, m.MasterLost) else None)
    plan = {"master": master, "token": "t", "lease_s": LEASE_S, "heartbeat_s": 0.2, "report_url": "http://control.example:1"}
    plan |= {"job_id": "j", "attempt": 1, "epoch": 1}
    began = time.monotonic()

    heartbeat = Sidecar._heartbeat(SimpleNamespace(_plan=plan, _loop=loop))  # type: ignore[arg-type]
    heartbeat.report({"job_id": "j"})
    heartbeat.start()
    reached[0] = False

    assert lost.wait(10)
    assert LEASE_S < time.monotonic() - began < 10
    hangs.set()


def test_silence_of_the_control_plane_alone_loses_nothing() -> None:
    now = [0.0]
    contact = Contact(10.0, lambda: True, lambda: now[0])
    now[0] = 11.0
    assert contact.is_overdue()
    assert not contact.is_lost()
    assert not contact.is_overdue()  # the API server has answered
