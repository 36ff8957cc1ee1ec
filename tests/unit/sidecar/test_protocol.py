"""The messages: what the sidecar sends is what the control plane reads, and what is malformed is refused."""

import json
from typing import Any

import pytest

from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.model import PodPhase
from tuttilab.sidecar import protocol
from tuttilab.sidecar.protocol import Member, Orders, Stop

MEMBER = Member("p", 0, "u", "Ended", 3, "Error", {"connect": "h:1"}, {"model": "a1"})


def test_report_is_what_the_control_plane_reads() -> None:
    body = protocol.report({"job_id": "j", "attempt": 2, "epoch": 3, "token": "hidden"}, [MEMBER])

    read = wire.adapter(wire.PodReport).validate_json(json.dumps({**body, "seq": 1}), extra="forbid")

    assert read == wire.PodReport("j", 2, 3, 1, (wire.MemberReport(**MEMBER._asdict()),))


def test_phases_are_the_models() -> None:
    assert list(protocol.PHASES) == [str(phase) for phase in PodPhase]


def test_member_is_read_back() -> None:
    assert protocol.read_member(json.loads(json.dumps(MEMBER._asdict()))) == MEMBER


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Sleeping"},
        {"rank": "0"},
        {"exit_code": "0"},
        {"pod": 1},
        {"endpoints": {"a": 1}},
        {"endpoints": ["a"]},
        {"outputs": {"a" * 2000: "b"}},
        {"extra": 1},
    ],
)
def test_malformed_member_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|is no member"):
        protocol.read_member({**MEMBER._asdict(), **change})


@pytest.mark.parametrize(
    ("reply", "stop"),
    [
        ({}, None),
        ({"stop": None}, None),
        ({"stop": {"grace_s": 3, "why": "Cancelled"}}, Stop(3.0, "Cancelled")),
        ({"stop": {"grace_s": -1}}, Stop(0.0, "")),
    ],
)
def test_stop_in_a_reply(reply: dict[str, Any], stop: Stop | None) -> None:
    assert protocol.read_stop(reply) == stop


@pytest.mark.parametrize("stop", [1, "now", {}, {"grace_s": "soon"}, {"grace_s": None}])
def test_unreadable_stop_is_refused(stop: object) -> None:
    with pytest.raises(ValueError, match=r"grace_s|could not convert"):
        protocol.read_stop({"stop": stop})


@pytest.mark.parametrize("orders", [Orders(), Orders(2, True), Orders(3, True, Stop(1.0, "Cancelled"))])
def test_orders_are_read_back(orders: Orders) -> None:
    assert protocol.read_orders(json.loads(json.dumps(protocol.show_orders(orders)))) == orders
