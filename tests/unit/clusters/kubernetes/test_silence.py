"""From when on a pod of a node that does not answer has certainly stopped itself."""

from typing import Any

import pytest

from tuttilab.scheduler.clusters.kubernetes.silence import PROBES_S, REQUEST_S, Silence

GRACE_S = 30
LIMIT_S = 45.0 + 5.0 + REQUEST_S + PROBES_S + GRACE_S
POD: dict[str, Any] = {"spec": {"nodeName": "n1", "terminationGracePeriodSeconds": GRACE_S}}


def node(status: str, since: str = "2026-11-30T05:00:00Z") -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def silence(clock: Clock) -> Silence:
    return Silence(5.0, 45.0, clock)


@pytest.mark.parametrize("silent", [node("Unknown"), node("False"), None])
def test_a_pod_runs_until_its_lease_its_probes_and_its_grace_are_over(silence: Silence, clock: Clock, silent: Any) -> None:
    assert not silence.has_outlasted(POD, silent)
    clock.now = LIMIT_S
    assert not silence.has_outlasted(POD, silent)
    clock.now += 0.1
    assert silence.has_outlasted(POD, silent)


def test_a_node_that_answers_again_begins_anew(silence: Silence, clock: Clock) -> None:
    assert not silence.has_outlasted(POD, node("Unknown"))
    clock.now = LIMIT_S + 1
    assert not silence.has_outlasted(POD, node("True"))
    assert not silence.has_outlasted(POD, node("Unknown"))


def test_a_node_that_answered_between_two_looks_begins_anew(silence: Silence, clock: Clock) -> None:
    assert not silence.has_outlasted(POD, node("Unknown"))
    clock.now = LIMIT_S + 1
    assert not silence.has_outlasted(POD, node("Unknown", "2026-11-30T05:01:00Z"))


def test_a_pod_without_a_node_is_within_reach(silence: Silence, clock: Clock) -> None:
    silence.has_outlasted({"spec": {}}, None)
    clock.now = LIMIT_S + 1
    assert not silence.has_outlasted({"spec": {}}, None)
