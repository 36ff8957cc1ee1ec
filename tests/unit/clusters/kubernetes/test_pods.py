"""The bodies that we create, as a whole and by what they must never lack."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.clusters import GANG_KEY, growth, plan
from tuttilab.scheduler.clusters.kubernetes import names, objects
from tuttilab.scheduler.clusters.kubernetes.pods import SECRET_PODS, launched_with, pod_body
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.model import Framework, Input, Output, Toleration
from tuttilab.scheduler.domain.resources import GPU, Resources

SETTINGS = KubernetesSettings(
    namespace="ml",
    sidecar_image="registry.example/sidecar:1",
    report_url="http://10.0.0.5:8790",
    image="registry.example/default:1",
    tolerations=(Toleration("dedicated", "ml", "NoSchedule"), Toleration("spot")),
    uid=1234,
)
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "job-1-master", "uid": "u-1"}
GANG = plan(
    "job",
    "python",
    "train.py",
    "--to",
    "$(RESULT_DIR)",
    members=2,
    resources=Resources.parse({"cpu": 2, "memory": "4Gi", GPU: 1}),
    work={
        "image": "registry.example/train:2",
        "env": {"A": "1", "B": "$(A)"},
        "code": "c" * 64,
        "inputs": (Input("data.csv", "d" * 64),),
        "outputs": (Output("model", "model.pt"),),
        "framework": Framework.TORCH,
        "grace_s": 12.5,
    },
)
SNAPSHOTS = Path(__file__).parent / "bodies"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("member", pod_body(GANG, GANG.pods[1], SETTINGS, "i1", OWNER)),
        ("master", pod_body(GANG, GANG.pods[0], SETTINGS, "i1", None)),
        ("service", objects.service_body(GANG, "i1", OWNER)),
        ("policy", objects.policy_body(GANG, "i1", OWNER)),
        ("sidecar_plan", objects.sidecar_plan(GANG, GANG.pods[1], SETTINGS)),
        ("master_plan", objects.sidecar_plan(GANG, GANG.pods[0], SETTINGS)),
    ],
)
def test_the_body_is_the_one_that_was_reviewed(name: str, body: dict[str, Any]) -> None:
    assert body == json.loads((SNAPSHOTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.feature("J16")
def test_pods_of_a_proxy_user_have_its_uid_and_gid_and_nothing_else_is_other() -> None:
    proxy = replace(GANG, work=replace(GANG.work, run_as="etl"), run_as=ProxyUser("etl", ("quant",), "etl", 3001, 3002))

    for pod in GANG.pods:
        own, of_proxy = pod_body(GANG, pod, SETTINGS, "i1", None), pod_body(proxy, pod, SETTINGS, "i1", None)
        security = of_proxy["spec"]["securityContext"]
        assert security == {
            "runAsNonRoot": True,
            "runAsUser": 3001,
            "runAsGroup": 3002,
            "fsGroup": 3002,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert "runAsUser" not in json.dumps({**of_proxy["spec"], "securityContext": {}})
        assert {**of_proxy["spec"], "securityContext": {}} == {**own["spec"], "securityContext": {}}
        assert of_proxy["metadata"] == own["metadata"]


def containers(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [*body["spec"].get("initContainers", []), *body["spec"]["containers"]]


@pytest.mark.parametrize("pod", GANG.pods)
def test_every_container_meets_the_restricted_level(pod: Any) -> None:
    body = pod_body(GANG, pod, SETTINGS, "i1", None)

    assert body["spec"]["securityContext"]["runAsNonRoot"]
    assert body["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(body):
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {next(iter(volume.keys() - {"name"})) for volume in body["spec"]["volumes"]} <= {"emptyDir", "secret"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "nodeName"} & body["spec"].keys()
    assert body["spec"]["automountServiceAccountToken"] is False


@pytest.mark.feature("C03")
def test_the_users_container_has_environment_mounts_and_a_probe_of_ours_and_nothing_else() -> None:
    launch = plan("job", "/bin/train", work={"image": "busybox"})
    (main,) = pod_body(launch, launch.pods[0], SETTINGS, "i1", None)["spec"]["containers"]

    assert set(main) == {
        *("name", "image", "command", "env", "resources", "securityContext"),
        *("volumeMounts", "livenessProbe"),
    }
    assert main["command"] == ["/bin/train"]
    assert {mount["mountPath"] for mount in main["volumeMounts"]} == {"/tuttilab", "/dev/shm"}
    assert main["resources"]["requests"] == main["resources"]["limits"] == {"cpu": "100m"}


def test_a_pod_without_gpus_sees_none_and_one_with_them_is_left_to_the_device_plugin() -> None:
    def variables(gpus: int) -> dict[str, str]:
        launch = plan("job", "x", resources=Resources.parse({"cpu": 1, GPU: gpus}), work={"env": {"NVIDIA_VISIBLE_DEVICES": "all"}})
        body = pod_body(launch, launch.pods[0], SETTINGS, "i1", None)
        return {each["name"]: each["value"] for each in body["spec"]["containers"][0]["env"]}

    assert (variables(0)["NVIDIA_VISIBLE_DEVICES"], variables(0)["CUDA_VISIBLE_DEVICES"]) == ("void", "")
    assert "CUDA_VISIBLE_DEVICES" not in variables(2)


def test_only_the_master_has_the_key_of_the_gang_and_each_pod_its_own_token() -> None:
    secret = objects.secret_body(GANG, GANG.pods, SETTINGS, "i1", OWNER, {"heartbeat_s": 5.0, "lease_s": 45.0})
    by_pod = {name: json.loads(text) for name, text in secret["stringData"].items()}

    assert [name for name, own in by_pod.items() if own["gang_key"] == GANG_KEY] == ["job-1-master"]
    assert {name: own["token"] for name, own in by_pod.items()} == {pod.name: pod.token for pod in GANG.pods}
    for pod in GANG.pods:
        assert pod.token not in json.dumps(pod_body(GANG, pod, SETTINGS, "i1", OWNER))
        (mounted,) = [v["secret"] for v in pod_body(GANG, pod, SETTINGS, "i1", OWNER)["spec"]["volumes"] if "secret" in v]
        assert (mounted["secretName"], mounted["items"][0]["key"]) == (secret["metadata"]["name"], pod.name)


def test_pods_of_a_growth_have_a_secret_of_their_own() -> None:
    grown = growth(GANG, 2, 3)
    first = launched_with(grown, grown.pods[1])

    assert [pod.name for pod in first] == ["job-1-master", "job-1-0", "job-1-1"]
    assert [pod.name for pod in launched_with(grown, grown.pods[-1])] == ["job-1-2-g1", "job-1-3-g1"]
    assert names.secret_name(grown, first) == names.secret_name(GANG, GANG.pods)


def test_a_large_gang_has_several_secrets_of_which_each_holds_its_part() -> None:
    large = plan("job", "x", members=2 * SECRET_PODS)

    parts = list({part[0].name: part for part in (launched_with(large, pod) for pod in large.pods)}.values())

    assert [len(part) for part in parts] == [SECRET_PODS, SECRET_PODS, 1]
    assert [pod for part in parts for pod in part] == list(large.pods)


@pytest.mark.parametrize("name", ["job-1-0", "a" * 63])
def test_a_pods_name_that_is_a_host_name_stays(name: str) -> None:
    assert names.pod_name(name) == name


@pytest.mark.parametrize("name", ["Job-1", "a" * 64, "1-a", "a.b", "a_b", "tt-0123", "a-"])
def test_any_other_name_becomes_a_digest_that_no_other_has(name: str) -> None:
    made = names.pod_name(name)

    assert made.startswith("tt-")
    assert len(made) <= 63
    assert made != names.pod_name(name + "x")
    assert made not in (names.pod_name(made), name)


def test_the_same_attempt_of_another_epoch_has_objects_of_other_names() -> None:
    assert names.service_name(GANG) != names.service_name(replace(GANG, epoch=2))
