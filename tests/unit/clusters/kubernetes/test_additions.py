"""What the site adds to a member's pod: volumes and side-cars, and that a master and a job without them get nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.clusters import plan
from tuttilab.scheduler.clusters.kubernetes import states
from tuttilab.scheduler.clusters.kubernetes.pods import claims_of, pod_body
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.domain.model import Mount, SideCar
from tuttilab.scheduler.domain.resources import Resources

SETTINGS = KubernetesSettings(
    namespace="ml",
    sidecar_image="registry.example/sidecar:1",
    report_url="http://10.0.0.5:8790",
    image="registry.example/default:1",
    cephfs_claim="fs-{name}",
)
MOUNTS = (
    Mount("/workspace", "claim", "work", "users/{owner}", True),
    Mount("/all", "claim", "work"),
    Mount("/data", "cephfs", "market"),
    Mount("/archive", "nfs", "nas.example:/export/archive"),
    Mount("/node", "host_path", "/srv/data"),
)
PROXY = SideCar(
    name="proxy",
    image="registry.example/proxy:1",
    resources=Resources.parse({"cpu": "50m", "memory": "32Mi"}),
    command=("proxy", "$(level)"),
    env={"MODE": "x$(level)"},
    params={"level": "$(HOME) 5$"},
    port=8080,
    shares_folder=True,
)


def bodies(**work: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the master and of a member."""
    gang = plan("job", "true", members=2, work=work)
    return pod_body(gang, gang.pods[0], SETTINGS, "i1", None), pod_body(gang, gang.pods[1], SETTINGS, "i1", None)


@pytest.mark.feature("N08")
def test_a_member_has_the_volumes_and_the_master_has_none() -> None:
    master, member = bodies(mounts=MOUNTS)

    added = [volume for volume in member["spec"]["volumes"] if volume["name"].startswith("mount-")]
    assert added == [
        {"name": "mount-0", "persistentVolumeClaim": {"claimName": "work"}},
        {"name": "mount-1", "persistentVolumeClaim": {"claimName": "fs-market"}},
        {"name": "mount-2", "nfs": {"server": "nas.example", "path": "/export/archive"}},
        {"name": "mount-3", "hostPath": {"path": "/srv/data", "type": "Directory"}},
    ]
    (main,) = member["spec"]["containers"]
    assert main["volumeMounts"][2:] == [
        {"name": "mount-0", "mountPath": "/workspace", "readOnly": False, "subPath": "users/ann"},
        {"name": "mount-0", "mountPath": "/all", "readOnly": True},
        {"name": "mount-1", "mountPath": "/data", "readOnly": True},
        {"name": "mount-2", "mountPath": "/archive", "readOnly": True},
        {"name": "mount-3", "mountPath": "/node", "readOnly": True},
    ]
    for container in member["spec"]["initContainers"]:
        assert not [each for each in container["volumeMounts"] if each["name"].startswith("mount-")], container["name"]
    assert not [volume for volume in master["spec"]["volumes"] if volume["name"].startswith("mount-")]


def test_no_file_of_a_volume_is_given_to_another_group() -> None:
    """`fsGroup` would have the kubelet do that, to the whole volume."""
    with_volume, without = bodies(mounts=MOUNTS)[1]["spec"], bodies()[1]["spec"]

    assert ("fsGroup" in with_volume["securityContext"], without["securityContext"]["fsGroup"]) == (False, 1000)
    (secret,) = [volume["secret"] for volume in with_volume["volumes"] if "secret" in volume]
    assert secret["defaultMode"] == 0o444


def test_whether_kube_scheduler_has_to_place_the_pod_is_seen_from_its_claims() -> None:
    assert claims_of(plan("job", "true", work={"mounts": MOUNTS}), SETTINGS) == ("work", "fs-market")
    assert claims_of(plan("job", "true", work={"mounts": MOUNTS[3:]}), SETTINGS) == ()


@pytest.mark.feature("C08")
def test_a_side_car_of_the_site_starts_before_the_barrier_and_is_restricted_as_all_others() -> None:
    master, member = bodies(sidecars=(PROXY,))

    assert [each["name"] for each in member["spec"]["initContainers"]] == ["prepare", "image", "site-proxy", "sidecar"]
    made = member["spec"]["initContainers"][2]
    variables = {each["name"]: each["value"] for each in made.pop("env")}
    assert made == {
        "name": "site-proxy",
        "image": "registry.example/proxy:1",
        "command": ["proxy", "$(level)"],
        "restartPolicy": "Always",
        "resources": {
            "requests": {"cpu": "50m", "memory": "33554432"},
            "limits": {"cpu": "50m", "memory": "33554432"},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "own", "mountPath": "/tuttilab"}],
        "ports": [{"containerPort": 8080}],
        "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 604800},
    }
    # What a user gave refers to nothing, what the site wrote does.
    assert (variables["level"], variables["MODE"], variables["TUTTILAB_RANK"]) == ("$$(HOME) 5$$", "x$(level)", "0")
    assert variables["RESULT_DIR"] == "/tuttilab/result"
    assert "initContainers" not in master["spec"]
    assert [each["name"] for each in member["spec"]["containers"]] == ["main"]


def waiting(reason: str, **status: Any) -> states.Seen:
    body = bodies(sidecars=(PROXY,))[1]
    body["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "u"}
    state = {"name": "site-proxy", "image": "registry.example/proxy:1", "state": {"waiting": {"reason": reason}}, **status}
    body["status"] = {"phase": "Pending", "initContainerStatuses": [state]}
    return states.Seen(body)


@pytest.mark.parametrize(
    ("seen", "after_s", "reason", "said"),
    [
        (waiting("ErrImageNeverPull"), 1, "ErrImageNeverPull", "image 'registry.example/proxy:1' cannot be pulled"),
        (
            waiting("CrashLoopBackOff", restartCount=3, lastState={"terminated": {"exitCode": 2, "reason": "Error"}}),
            60,
            "SideCarFailed",
            "side-car 'proxy' of the site ended 3 times, last with code 2 (Error)",
        ),
    ],
)
def test_a_pod_whose_side_car_does_not_start_is_given_up_with_its_name(
    seen: states.Seen, after_s: float, reason: str, said: str
) -> None:
    found = states.hopeless(seen, states.unix_time("2026-01-01T00:00:00Z") + after_s, 30.0)

    assert found is not None
    assert found[0] == reason
    assert said in found[1]


def test_a_side_car_that_ended_once_gets_its_time() -> None:
    begun = states.unix_time("2026-01-01T00:00:00Z")

    assert states.hopeless(waiting("CrashLoopBackOff"), begun + 10, 30.0) is None
