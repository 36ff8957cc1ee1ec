"""Which pods we bind to their nodes ourselves, and the bodies of those, of the others, and of bare ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.clusters import plan
from tuttilab.scheduler.clusters.kubernetes import once
from tuttilab.scheduler.clusters.kubernetes.binding import binds
from tuttilab.scheduler.clusters.kubernetes.pods import pod_body
from tuttilab.scheduler.clusters.kubernetes.settings import Binding, KubernetesSettings
from tuttilab.scheduler.domain.model import Toleration
from tuttilab.scheduler.domain.resources import Resources

OURS = {"key": "dedicated", "value": "ml", "effect": "NoSchedule"}
THEIRS = {"key": "dedicated", "value": "web", "effect": "NoSchedule"}
RATHER_NOT = {"key": "dedicated", "value": "ml", "effect": "PreferNoSchedule"}
SICK = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}
ALLOWED = (Toleration("dedicated", "ml"), Toleration("node.kubernetes.io/disk-pressure"))
SETTINGS = KubernetesSettings(
    namespace="ml",
    sidecar_image="registry.example/sidecar:1",
    report_url="http://10.0.0.5:8790",
    image="registry.example/default:1",
)
BARE = plan("job", "train", work={"sidecar": False, "image": "i", "workdir": "/data"}, resources=Resources.parse({"memory": "1Gi"}))


def node(*taints: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "a"}, "spec": {"taints": list(taints), **spec}}


@pytest.mark.parametrize(
    ("binding", "where", "is_ours"),
    [
        (Binding.AUTO, node(OURS), True),
        (Binding.AUTO, node(), False),
        (Binding.AUTO, node(RATHER_NOT), False),
        (Binding.AUTO, node(SICK), False),
        (Binding.AUTO, node(OURS, SICK), True),
        (Binding.DIRECT, node(), True),
        (Binding.DIRECT, node(OURS), True),
        (Binding.DIRECT, node(THEIRS), False),
        (Binding.DIRECT, node(OURS, THEIRS), False),
        (Binding.DIRECT, node(unschedulable=True), False),
        (Binding.DIRECT, None, False),
        (Binding.SCHEDULER, node(OURS), False),
    ],
)
def test_we_bind_where_the_node_takes_our_pods_and_nobody_elses_choice_is_passed_by(
    binding: Binding, where: dict[str, Any] | None, is_ours: bool
) -> None:
    assert binds(binding, where, ALLOWED) is is_ours


@pytest.mark.parametrize("binding", Binding)
def test_a_volume_that_waits_for_its_first_consumer_is_left_to_the_scheduler(binding: Binding) -> None:
    assert not binds(binding, node(OURS), ALLOWED, waits_for_consumer=True)


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_pod_names_its_node_either_as_bound_or_as_wanted(is_bound: bool) -> None:
    spec = pod_body(BARE, BARE.pods[0], SETTINGS, "i1", None, is_bound=is_bound)["spec"]

    assert ("nodeName" in spec, "affinity" in spec) == (is_bound, not is_bound)
    assert '"a"' in json.dumps(spec.get("nodeName", spec.get("affinity")))


def test_a_bare_pod_is_the_users_container_alone() -> None:
    body = pod_body(BARE, BARE.pods[0], SETTINGS, "i1", None, is_bound=True)

    assert body == json.loads((Path(__file__).parent / "bodies" / "bare.json").read_text(encoding="utf-8"))
    assert "initContainers" not in body["spec"]
    assert not [volume for volume in body["spec"]["volumes"] if "secret" in volume]
    assert "token" not in json.dumps(body).replace("automountServiceAccountToken", "")


def test_what_a_gang_has_in_common_is_computed_once() -> None:
    asked = []

    @once.once_a_plan
    def size(of: Any) -> int:
        asked.append(of)
        return len(of.pods)

    gang, same = plan("job", "x", members=3), plan("job", "x", members=3)

    assert [size(gang), size(gang), size(same), size(gang)] == [4, 4, 4, 4]
    assert [each is gang for each in asked] == [True, False]
