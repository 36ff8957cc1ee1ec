"""What pods of others take of a node: the rule for one pod, and the sums."""

from typing import Any

import pytest

from tuttilab.scheduler.clusters.kubernetes.others import needed_of, requests_of, sums
from tuttilab.scheduler.domain.resources import NOTHING, Resources


def container(cpu: str = "0", memory: str = "0", **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container("1"), container("500m")]}, "1500m"),
        ({"containers": [container("1")], "initContainers": [container("3"), container("2")]}, "3"),
        ({"containers": [container("1")], "initContainers": [container("500m", **SIDECAR)]}, "1500m"),
        # The third begins while the side-car before it runs.
        ({"containers": [container("1")], "initContainers": [container("2"), container("1", **SIDECAR), container("2")]}, "3"),
        # The side-car after it does not run yet.
        ({"containers": [container("1")], "initContainers": [container("2"), container("1", **SIDECAR)]}, "2"),
        ({"containers": [container("1")], "overhead": {"cpu": "250m"}}, "1250m"),
        ({"containers": [container("1"), {}], "resources": {"requests": {"cpu": "4"}}}, "4"),
    ],
)
def test_a_pod_takes_what_the_scheduler_reserves_for_it(spec: dict[str, Any], cpu: str) -> None:
    assert requests_of(spec) == Resources.parse({"cpu": cpu})


def test_a_pod_without_requests_takes_nothing() -> None:
    assert requests_of({"containers": [{"name": "a"}, {"resources": {}}]}) == NOTHING


def test_devices_and_storage_count_too() -> None:
    requests = {"nvidia.com/gpu": "2", "ephemeral-storage": "1Gi", "pods": "1"}

    assert requests_of({"containers": [{"resources": {"requests": requests}}]}) == Resources.parse(
        {"nvidia.com/gpu": 2, "ephemeral-storage": "1Gi"}
    )


def test_of_a_pod_no_more_is_kept_than_needed() -> None:
    metadata = {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "annotations": {"long": "x" * 1000}}

    kept = needed_of({"metadata": metadata, "spec": {"nodeName": "n", "containers": [container("1")]}, "status": {}})

    assert kept == {
        "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7"},
        "node": "n",
        "requests": Resources.parse({"cpu": 1}),
    }


def test_sums_are_by_node() -> None:
    pods = [
        needed_of({"metadata": {}, "spec": {"nodeName": node, "containers": [container(cpu, "1Gi")]}})
        for node, cpu in [("a", "1"), ("b", "2"), ("a", "500m")]
    ]

    assert sums(pods) == {
        "a": Resources.parse({"cpu": "1500m", "memory": "2Gi", "pods": 2}),
        "b": Resources.parse({"cpu": 2, "memory": "1Gi", "pods": 1}),
    }
