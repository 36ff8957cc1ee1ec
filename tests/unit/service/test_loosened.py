"""Which changes of the queues loosen a limit, so that a reload asks before it applies them."""

from typing import Any

import pytest

from tests.builders import queue
from tuttilab.scheduler.domain.model import Queue
from tuttilab.scheduler.service.reload import loosened_limits


def tree(*queues: Queue) -> dict[str, Queue]:
    return {one.name: one for one in queues}


def loosened(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return list(loosened_limits(tree(queue("lab", **before)), tree(queue("lab", **after))))


@pytest.mark.parametrize(
    ("before", "after", "sentences"),
    [
        ({"max": {"nvidia.com/gpu": 1}}, {}, ["queue lab: max 1 nvidia.com/gpu -> no limit"]),
        ({"max": {"nvidia.com/gpu": 1}}, {"max": {"nvidia.com/gpo": 1}}, ["queue lab: max 1 nvidia.com/gpu -> no limit"]),
        ({"max": {"cpu": 2, "memory": "4Gi"}}, {"max": {"cpu": 4, "memory": "2Gi"}}, ["queue lab: max 2 cpu -> 4 cpu"]),
        ({"max": {"nvidia.com/gpu": 0}}, {"max": {"nvidia.com/gpu": 1}}, ["queue lab: max 0 nvidia.com/gpu -> 1 nvidia.com/gpu"]),
        ({"max_jobs": 2}, {"max_jobs": 3}, ["queue lab: max_jobs 2 -> 3"]),
        ({"max_pods": 0}, {}, ["queue lab: max_pods 0 -> no limit"]),
        ({"groups": ("quant",)}, {}, ["queue lab: groups quant -> everyone"]),
        ({"clusters": ("here",)}, {}, ["queue lab: clusters here -> everywhere"]),
        ({"can_borrow": False}, {}, ["queue lab: can_borrow false -> true"]),
        ({"max": {"cpu": 4}}, {"max": {"cpu": 2, "memory": "1Gi"}, "max_jobs": 1, "groups": ("a",)}, []),
        ({"groups": ("a",), "clusters": ("x",)}, {"groups": ("b", "c"), "clusters": ("y",), "weight": 3}, []),
    ],
)
def test_a_limit_that_is_larger_or_gone_is_named(before: dict[str, Any], after: dict[str, Any], sentences: list[str]) -> None:
    assert loosened(before, after) == sentences


def test_a_limit_of_a_parent_that_is_left_is_named_and_one_that_is_taken_along_is_not() -> None:
    old = tree(queue("all", max={"nvidia.com/gpu": 2}), queue("free"), queue("lab", parent="all"))

    assert list(loosened_limits(old, tree(queue("free"), queue("lab", parent="free")))) == [
        "queue lab, below free: limit of all above it 2 nvidia.com/gpu -> no limit"
    ]
    assert list(loosened_limits(old, tree(queue("free"), queue("lab", parent="free", max={"nvidia.com/gpu": 2})))) == []


def test_a_queue_that_is_new_or_gone_loosens_nothing() -> None:
    assert list(loosened_limits(tree(queue("a", max={"cpu": 1})), tree(queue("b")))) == []
