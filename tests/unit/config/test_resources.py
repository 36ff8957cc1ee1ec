"""A limit on a resource that no node has limits nothing: it is refused, or said to be unchecked where the nodes are not known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.builders import cluster, node, queue
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.config.resources import unchecked_resources, unseen_resources
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Cluster

GPU_NODE: Mapping[str, Any] = {"name": "a", "cpus": 8, "memory": "16Gi", "resources": {"nvidia.com/gpu": 4}}
DECLARED: Mapping[str, Any] = {"name": "here", "kind": "fake", "nodes": [GPU_NODE]}
KUBERNETES: Mapping[str, Any] = {
    "name": "far",
    "kind": "kubernetes",
    "kubeconfig": "/etc/kube/config",
    "namespace": "jobs",
    "sidecar_image": "registry.example/sidecar:1",
    "report_url": "http://10.0.0.5:8790",
}


def configured(limits: Mapping[str, object], *clusters: Mapping[str, Any], part: str = "max") -> Config:
    given = {"clusters": list(clusters), "queues": [{"name": "root"}, {"name": "lab", "parent": "root", part: limits}]}
    return parse_config(given, Path("/state"), "t.yaml")


@pytest.mark.parametrize("part", ["max", "guaranteed"])
def test_a_misspelt_resource_is_refused_with_its_place_and_the_nearest(part: str) -> None:
    with pytest.raises(BadInput) as refusal:
        configured({"nvidia.com/gpo": 1}, DECLARED, part=part)

    assert str(refusal.value) == (
        f"t.yaml: queues[1].{part}: no node of any cluster has 'nvidia.com/gpo', so this would limit nothing; "
        "did you mean 'nvidia.com/gpu'?"
    )


def test_the_number_of_pods_is_limited_by_a_word_of_its_own() -> None:
    with pytest.raises(BadInput, match=r"queues\[1\].max: 'pods' is counted by node, not by queue; use the queue's max_pods"):
        configured({"pods": 10}, KUBERNETES)


def test_a_resource_that_is_like_no_other_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BadInput, match=r"has 'fpga', so this would limit nothing; expected one of cpu, memory, nvidia.com/gpu\."):
        configured({"fpga": 1}, DECLARED)


def test_resources_that_nodes_have_and_no_gpu_where_there_is_none_are_sound() -> None:
    plain = {**DECLARED, "nodes": [{"name": "a", "cpus": 8, "memory": "16Gi"}]}

    assert unchecked(configured({"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 2}, DECLARED)) == ()
    assert unchecked(configured({"nvidia.com/gpu": 0}, plain)) == ()
    with pytest.raises(BadInput, match=r"no node of any cluster has 'nvidia.com/gpu'"):
        configured({"nvidia.com/gpu": 1}, plain)


def unchecked(config: Config) -> tuple[str, ...]:
    return unchecked_resources(config.queues, config.clusters)


def test_this_machine_may_have_gpus_and_nothing_that_is_spelt_otherwise() -> None:
    machine = {"name": "here", "kind": "local"}

    assert unchecked(configured({"nvidia.com/gpu": 1}, machine)) == (
        "queues[1].max: whether any node has 'nvidia.com/gpu' is not known before cluster here shows its nodes; if none has it, "
        "this limits nothing",
    )
    with pytest.raises(BadInput, match=r"no node of any cluster has 'nvidia.com/gpo'"):
        configured({"nvidia.com/gpo": 1}, machine)


@pytest.mark.parametrize("hidden", [KUBERNETES, {**DECLARED, "name": "far", "grows": True}])
def test_where_nodes_are_not_known_yet_it_is_said_to_be_unchecked(hidden: Mapping[str, Any]) -> None:
    (sentence,) = unchecked(configured({"nvidia.com/gpo": 1, "cpu": 4}, {**DECLARED, "name": "here"}, hidden))

    assert "'nvidia.com/gpo' is not known before cluster far shows its nodes" in sentence


def unseen(limits: Mapping[str, object], before: Mapping[str, object], seen: Mapping[str, Cluster]) -> tuple[str, ...]:
    config = configured(limits, KUBERNETES)
    return unseen_resources(config.queues, [queue("lab", max=before)], config.clusters, seen)


def test_what_running_clusters_have_shown_decides_at_a_reload() -> None:
    seen = {"far": cluster(node("n", gpus=2), name="far")}

    assert unseen({"nvidia.com/gpu": 1}, {}, seen) == ()
    with pytest.raises(BadInput, match=r"queues\[1\].max: no node of any cluster has 'nvidia.com/gpo'.* `grows: true` of their"):
        unseen({"nvidia.com/gpo": 1}, {}, seen)


def test_a_reload_does_not_refuse_what_cannot_be_seen_now_or_was_there_before() -> None:
    away = (f"queues[1].max: no node that is seen now has {'nvidia.com/gpu'!r}, so that this limits nothing yet",)

    assert unseen({"nvidia.com/gpu": 1}, {}, {}) == away
    assert unseen({"nvidia.com/gpu": 2}, {"nvidia.com/gpu": 1}, {"far": cluster(node("n"), name="far")}) == away


@pytest.mark.parametrize("key", ["gpu", "gpus", "nvidia.com/gpus", "GPU"])
def test_who_limits_gpus_by_another_name_is_told_theirs(key: str) -> None:
    with pytest.raises(BadInput, match=f"has '{key}', so this would limit nothing; did you mean 'nvidia.com/gpu'"):
        configured({key: 1}, DECLARED)
