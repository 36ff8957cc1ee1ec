"""The manifest of a pod as KubeSpawner makes it and `TuttiSpawner` completes it, without a cluster."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuttilab.scheduler.domain.requests import AccountRequest, MountRequest, ProfileRequest
from tuttilab.scheduler.domain.wire import JobView, NotebookView

pytest.importorskip("kubespawner")
from jupyterhub.spawner import SpawnException
from kubernetes_asyncio.client import ApiClient

from tuttilab.spawner import TuttiSpawner
from tuttilab.spawner.driver_ports import service_body

# KubeSpawner reads where its cluster is when it is made, and asks nothing of it to make a manifest.
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
"""


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    # Its own variable is read once a process.
    monkeypatch.setattr("kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


def admitted(profile: ProfileRequest, node: str = "node-a", image: str | None = "reg.example/lab:1") -> NotebookView:
    job = JobView(
        id="job1",
        name="notebook",
        owner="ann",
        group="research",
        queue="research",
        kind="notebook",
        phase="Launching",
        reason="",
        created_at=0.0,
    )
    return NotebookView(job=job, profile=profile, is_admitted=True, is_wanted=True, node=node, image=image)


async def manifest(spawner: Any, view: NotebookView) -> Any:
    """As it goes over the wire."""
    spawner._admitted = view
    return ApiClient().sanitize_for_serialization(await spawner.get_pod_manifest())


@pytest.mark.feature("N01")
async def test_pod_is_what_was_admitted(kubeconfig: None) -> None:
    spawner = TuttiSpawner(_mock=True, control_url="http://control", control_token="secret of the hub")
    profile = ProfileRequest(
        name="gpu", cpus=4, memory="16Gi", gpus=1, mounts=(MountRequest(path="/workspace", cephfs="research"),)
    )

    pod = await manifest(spawner, admitted(profile))

    (server,) = pod["spec"]["containers"]
    wanted = {"cpu": "4000m", "memory": str(16 * 2**30), "nvidia.com/gpu": "1"}
    assert server["resources"] == {"requests": wanted, "limits": wanted}
    assert server["image"] == "reg.example/lab:1"
    assert {"name": "tutti-0", "mountPath": "/workspace", "readOnly": False} in server["volumeMounts"]
    assert {"name": "tutti-0", "persistentVolumeClaim": {"claimName": "cephfs-research"}} in pod["spec"]["volumes"]
    assert pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] == "node-a"
    assert pod["metadata"]["labels"]["tuttilab.io/job"] == "job1"
    environ = {one["name"]: one.get("value") for one in server["env"]}
    assert environ["TUTTILAB_URL"] == "http://control"
    assert "TUTTILAB_NOTEBOOK" not in environ
    assert "NVIDIA_VISIBLE_DEVICES" not in environ
    assert "secret of the hub" not in str(pod)


async def test_a_pod_is_told_its_driver_ports_and_its_nodes_address(kubeconfig: None) -> None:
    spawner = TuttiSpawner(_mock=True)
    view = replace(admitted(ProfileRequest(name="yarn", driver_ports=2)), driver_ports=(30100, 30101))

    pod = await manifest(spawner, view)
    plain = await manifest(spawner, admitted(ProfileRequest(name="cpu")))

    environ = {one["name"]: one.get("value", one.get("valueFrom")) for one in pod["spec"]["containers"][0]["env"]}
    assert environ["TUTTILAB_DRIVER_PORTS"] == "30100,30101"
    assert environ["TUTTILAB_DRIVER_HOST"] == {"fieldRef": {"fieldPath": "status.hostIP"}}
    assert "TUTTILAB_DRIVER" not in str(plain)
    body = service_body("job1", view.driver_ports, {"tuttilab.io/job": "job1"}, {"name": "jupyter-ann", "uid": "u1"})
    assert [(one["port"], one["targetPort"], one["nodePort"]) for one in body["spec"]["ports"]] == [(30100,) * 3, (30101,) * 3]
    assert (body["spec"]["selector"], body["metadata"]["ownerReferences"][0]["uid"]) == ({"tuttilab.io/job": "job1"}, "u1")


async def test_only_a_preemptible_server_gets_its_job_id(kubeconfig: None) -> None:
    """It is the one that says when a cell runs; every word costs the hub a look at a token."""
    spawner = TuttiSpawner(_mock=True)
    for is_preemptible in (True, False):
        pod = await manifest(spawner, admitted(ProfileRequest(name="gpu", preemptible=is_preemptible)))
        environ = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert environ.get("TUTTILAB_NOTEBOOK") == ("job1" if is_preemptible else None)


@pytest.mark.feature("N14", "N06")
async def test_nothing_of_a_spawn_is_left_for_the_next(kubeconfig: None) -> None:
    spawner = TuttiSpawner(_mock=True)
    # What an earlier site configuration, or a hook, may have set on the spawner itself.
    spawner.extra_resource_limits = {"nvidia.com/gpu": "8"}
    spawner.mem_limit, spawner.cpu_limit = "64G", 32
    small = admitted(ProfileRequest(name="cpu"), node="node-b", image=None)
    big = admitted(ProfileRequest(name="gpu", gpus=4, cpus=8, memory="64Gi", mounts=(MountRequest(path="/w", claim="c"),)))

    before = await manifest(spawner, small)
    assert await manifest(spawner, big) != before
    after = await manifest(spawner, small)

    assert after == before
    (server,) = after["spec"]["containers"]
    wanted = {"cpu": "1000m", "memory": str(2 * 2**30), "nvidia.com/gpu": "0"}
    assert server["resources"] == {"requests": wanted, "limits": wanted}
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": ""} in server["env"]
    assert server["image"] == spawner.image
    assert [volume["name"] for volume in after["spec"].get("volumes", [])] == []


async def test_the_chosen_profile_is_the_control_planes_and_not_kubespawners(kubeconfig: None) -> None:
    spawner = TuttiSpawner(_mock=True, user_options={"profile": "gpu"})
    await spawner.load_user_options()

    spawner.profile_list = [{"display_name": "gpu"}]
    with pytest.raises(SpawnException, match="an admin has to apply profiles instead"):
        await spawner.load_user_options()


@pytest.mark.feature("N10")
async def test_no_setting_of_the_hub_goes_below_restricted(kubeconfig: None) -> None:
    spawner = TuttiSpawner(
        _mock=True,
        uid=1000,
        privileged=True,
        allow_privilege_escalation=True,
        automount_service_account_token=True,
        container_security_context={"runAsNonRoot": False, "capabilities": {"add": ["SYS_ADMIN"]}},
        pod_security_context={"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}},
    )

    pod = await manifest(spawner, admitted(ProfileRequest(name="cpu")))

    assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    (server,) = pod["spec"]["containers"]
    assert server["securityContext"] == {
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (pod["spec"]["automountServiceAccountToken"], pod["spec"]["restartPolicy"]) == (False, "Never")


@pytest.mark.feature("N10")
@pytest.mark.parametrize("settings", [{"uid": 0}, {"uid": lambda spawner: 0}, {"pod_security_context": {"runAsUser": 0}}])
async def test_a_hub_that_says_root_starts_nothing(kubeconfig: None, settings: dict[str, Any]) -> None:
    with pytest.raises(SpawnException, match=r"no server runs as root; an admin has to set c.TuttiSpawner.uid"):
        await manifest(TuttiSpawner(_mock=True, **settings), admitted(ProfileRequest(name="cpu")))


@pytest.mark.feature("N10")
async def test_a_proxy_user_takes_the_place_of_the_users_own_account(kubeconfig: None) -> None:
    spawner = TuttiSpawner(_mock=True, uid=1000, gid=1000, user_options={"run_as": "etl"})
    view = admitted(ProfileRequest(name="cpu"))

    pod = await manifest(spawner, replace(view, run_as=AccountRequest(uid=2001, gid=2002)))

    (server,) = pod["spec"]["containers"]
    assert (server["securityContext"]["runAsUser"], server["securityContext"]["runAsGroup"]) == (2001, 2002)
    with pytest.raises(SpawnException, match="'etl' is no proxy user of profile 'cpu' any more"):
        await manifest(spawner, view)


async def test_no_pod_without_admission(kubeconfig: None) -> None:
    spawner = TuttiSpawner(_mock=True)

    with pytest.raises(RuntimeError, match="is not admitted"):
        await spawner.get_pod_manifest()


@pytest.mark.feature("N25")
async def test_sites_own_settings_stay(kubeconfig: None) -> None:
    spawner = TuttiSpawner(
        _mock=True,
        node_selector={"pool": "notebooks"},
        extra_labels={"site": "one"},
        environment={"SITE": "one", "OTHER": "two"},
        volumes=[{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}],
    )
    view = admitted(ProfileRequest(name="p", env={"SITE": "profile"}))

    pod = await manifest(spawner, view)

    assert pod["spec"]["nodeSelector"] == {"pool": "notebooks", "kubernetes.io/hostname": "node-a"}
    assert pod["metadata"]["labels"]["site"] == "one"
    environ = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
    assert (environ["SITE"], environ["OTHER"]) == ("profile", "two")
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["home"]


async def test_token_of_a_server_may_ask_the_control_plane(kubeconfig: None) -> None:
    spawner = TuttiSpawner(_mock=True, service_name="other", patience_s=60.0, starting_s=30.0)

    assert spawner.server_token_scopes == ["users:activity!user", "access:servers!server", "access:services!service=other"]
    assert spawner.start_timeout == 90


async def test_state_remembers_the_job_until_it_has_ended(kubeconfig: None) -> None:
    first, second = TuttiSpawner(_mock=True), TuttiSpawner(_mock=True)
    first._job_id = "job1"

    second.load_state(first.get_state())

    assert second._job_id == "job1"
    assert "tutti_job" not in replace_job(first, "").get_state()


def replace_job(spawner: Any, job_id: str) -> Any:
    spawner._job_id = job_id
    return spawner
