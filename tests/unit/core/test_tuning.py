"""Parameters of the decision rule: which there are, what they may be, and which are in force after a reload or a tuning."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.builders import queue, state
from tuttilab.scheduler.core.rows import tuning
from tuttilab.scheduler.core.rows.tuning import configured_queues, describe, rules_in_force, tuned_queues, tuning_of, values_of
from tuttilab.scheduler.core.rules import EndEstimate, Order, Rules
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Queue, Tuning

TREE = (queue("root"), queue("a", parent="root"), queue("own", parent="root", overtaking=0.4))


def shares(queues: tuple[Queue, ...]) -> dict[str, float]:
    return {one.name: one.overtaking for one in queues}


def test_every_field_of_the_rules_is_a_parameter_or_named_as_none() -> None:
    names = {field.name for field in fields(Rules)}
    assert set(tuning.NEVER) < names
    assert set(tuning.parameters()) == names - set(tuning.NEVER) | set(tuning.OF_QUEUES)


def test_what_is_tuned_is_in_force_in_the_next_snapshot_and_in_the_rows() -> None:
    one = state((), TREE)
    one.handle(ev.PolicyTuned((("end_estimate", "probabilistic"), ("overtaking", 0.3)), "op", "better"), 7.0)
    snapshot = one.snapshot()
    assert snapshot.rules.end_estimate is EndEstimate.PROBABILISTIC
    assert snapshot.rules.order is Order.SMALL_FIRST
    assert shares(tuple(one.queues.values())) == {"root": 0.3, "a": 0.3, "own": 0.4}
    found = tuning_of(one.queues.values())
    assert found == Tuning((), (("end_estimate", "probabilistic"), ("overtaking", 0.3)), 7.0, "op", "better")
    assert describe(found) == "end_estimate probabilistic (built in corrected), overtaking 0.3 (built in 0.15)"
    assert one.queues["a"].tuning is None
    loaded = type(one).load([], [], one.queues.values(), 2)
    assert loaded.snapshot().rules == snapshot.rules
    one.handle(ev.PolicyTuned((), "op"), 8.0)
    assert one.snapshot().rules == Rules()
    assert shares(tuple(one.queues.values())) == {"root": 0.15, "a": 0.15, "own": 0.4}


def test_a_reload_keeps_what_was_tuned_but_for_what_the_configuration_fixes() -> None:
    tuned = tuned_queues(TREE, (("order", "submission"), ("overtaking", 0.3)), 5.0, "op", "better")
    assert configured_queues(TREE, tuned, 9.0) == tuned
    fixed = tuning.with_tuning(TREE, Tuning(fixed=(("overtaking", 0.2),)))
    found = configured_queues(fixed, tuned, 9.0, "ann")
    assert shares(found) == {"root": 0.2, "a": 0.2, "own": 0.4}
    assert values_of(tuning_of(found)) == {"order": "submission", "overtaking": 0.2}
    assert configured_queues(fixed, found, 12.0) == found
    assert tuned_queues(found, (("overtaking", 0.5),), 13.0, "op", "")[0].overtaking == 0.2
    back = configured_queues(TREE, found, 14.0, "ann")
    assert shares(back) == {"root": 0.15, "a": 0.15, "own": 0.4}
    assert configured_queues(TREE, TREE, 15.0) == TREE


def test_a_parameter_that_this_version_does_not_have_is_left_out() -> None:
    known = Tuning(tuned=(("gone", 1.0), ("order", "by-colour"), ("overtaking", 0.3)))
    assert values_of(known) == {"overtaking": 0.3}
    assert rules_in_force(Rules(), (queue(tuning=known),)) == Rules()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("protects", False, "there is no parameter 'protects'"),
        ("order", "fifo", "fifo is not a value of order; expected small-first or submission"),
        ("order", True, "true is not a value of order"),
        ("overtaking", "much", "expected a number from 0"),
        ("overtaking", True, "expected a number from 0"),
        ("overtaking", float("nan"), "expected a number from 0"),
        ("overtaking", -1, "expected a number from 0"),
    ],
)
def test_what_no_parameter_may_be_is_refused(name: str, value: object, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        tuning.checked({name: value}, "values")
