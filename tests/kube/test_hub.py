"""A real JupyterHub whose servers are pods of a real Kubernetes, in one quota with the gangs that are submitted from them."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.e2e.hub.kernel import run_cells
from tests.e2e.hub.site import Browser
from tests.kube import lab_image, real
from tests.kube.hub_site import GPU_MAX, KubeHubSite, made_kube_hub
from tests.kube.real import GPU, RealCluster
from tests.kube.volumes import drop_volume, make_claim
from tests.user_machine import eventually
from tuttilab.spawner.volumes import cephfs_static, volumes_of

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]

SETTINGS: dict[str, Any] = {"patience_s": 2.0, "more": {"container_patience_s": 4}}
VOLUMES = real.ROOT / "volumes"
SMALL: dict[str, Any] = {"groups": ["research", "quant"], "cpus": 1, "memory": "512Mi", "env": {"HOME": "/tmp"}}
WORKSPACE = {"path": "/workspace", "claim": "work", "sub_path": "users/{owner}"}
STORAGES: list[dict[str, Any]] = [
    {"claim": "work", "groups": {"research": "rw", "quant": "rw"}},
    {"claim": "market", "groups": {"research": "rw", "quant": "r"}},
    {"host_path": str(VOLUMES / "node"), "groups": {"research": "r"}},
]
PROFILES: list[dict[str, Any]] = [
    {"name": "cpu", "custom_images": ["localhost/tuttilab-lab"], "proxy_users": {"etl": {"uid": 2001, "gid": 2002}}, **SMALL},
    {"name": "gpu", "title": "One GPU", "gpus": 1, **SMALL},
    {"name": "gpu-pair", "gpus": 2, **SMALL},
    {"name": "mounts", "mounts": [WORKSPACE, {"path": "/data", "claim": "market"}], **SMALL},
    {"name": "yarn", "driver_ports": 2, **SMALL},
    {"name": "too-small", **SMALL, "cpus": "100m", "memory": "24Mi"},
    {"name": "no-image", **SMALL, "cpus": "100m", "image": "localhost/not-there:1"},
    {"name": "no-room", **SMALL},
    {"name": "path-node", **SMALL, "groups": ["research"], "mounts": [{"path": "/data", "host_path": str(VOLUMES / "node")}]},
    {
        "name": "path-link",
        **SMALL,
        "groups": ["research"],
        "mounts": [{"path": "/data", "host_path": str(VOLUMES / "node"), "sub_path": "leads-out", "mode": "r"}],
    },
]


@pytest.fixture(scope="module")
def site(lab_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeHubSite]:
    with made_kube_hub(tmp_path_factory.mktemp("hub"), lab_cluster, PROFILES, STORAGES, **SETTINGS) as site:
        yield site


@pytest.fixture(scope="module")
def volumes(site: KubeHubSite) -> Iterator[Path]:
    """Folders that the nodes share, as an export is, and claims of two of them."""
    for name in ("work/users/ann", "work/users/bob", "market", "node"):
        (VOLUMES / name).mkdir(parents=True)
        os.chown(VOLUMES / name, 1000, 1000)
    (VOLUMES / "node" / "there.txt").write_text("of the node")
    (VOLUMES / "node" / "leads-out").symlink_to("/etc")
    for name in ("work", "market"):
        make_claim(site.cluster, site.servers_namespace, name, VOLUMES / name)
    yield VOLUMES
    for name in ("work", "market"):
        drop_volume(site.cluster, site.servers_namespace, name)
    shutil.rmtree(VOLUMES)


def started(site: KubeHubSite, user: Browser, **options: str) -> None:
    user.spawn(**options)
    assert user.has_server(), site.told()


def refused(site: KubeHubSite, user: Browser, **options: str) -> str:
    """What the hub's page says of a server that did not start."""
    asked = user.api("POST", f"/users/{user.name}/server", options)
    if not asked.is_success:
        return str(asked.json()["message"])
    eventually(lambda: not user.pending(), 120)
    assert not user.has_server(), site.told()
    page = user.http.get(f"/hub/spawn-pending/{user.name}").text
    return " ".join(re.sub(r"<[^>]+>", " ", page).replace("&#39;", "'").split())


def status_at(url: str, headers: dict[str, str]) -> int:
    return httpx.get(url, headers=headers, trust_env=False, timeout=150).status_code


def answers_at(url: str) -> bool:
    try:
        return status_at(url, {}) == 200
    except httpx.TransportError:
        return False


@pytest.mark.feature("N01", "N14", "N17")
async def test_a_server_from_the_form_is_a_pod_of_its_users_alone_until_it_is_stopped(
    site: KubeHubSite, ann: Browser, bob: Browser
) -> None:
    form = ann.http.get("/hub/spawn").text
    assert {"cpu", "gpu"} <= set(re.findall(r'name="profile" value="([^"]+)"', form))

    ann.post("/hub/spawn/ann", {"profile": "gpu"})
    eventually(lambda: not ann.pending(), 120)
    assert ann.has_server(), site.told()

    lab = ann.http.get("/user/ann/lab")
    assert (lab.status_code, "jupyter-config-data" in lab.text) == (200, True)
    (pod,) = site.items("pods")
    (job,) = site.jobs()
    assert (pod["status"]["phase"], pod["metadata"]["labels"]["tuttilab.io/job"]) == ("Running", job["id"])
    assert (job["kind"], job["phase"], job["owner"]) == ("notebook", "Running", "ann")
    (server,) = pod["spec"]["containers"]
    assert server["resources"]["requests"] == server["resources"]["limits"]
    assert (server["resources"]["limits"][GPU], site.use("research")) == ("1", 1)

    others = {"Authorization": f"token {bob.token()}"}
    assert bob.http.get("/user/ann/lab").status_code == 403
    assert bob.http.get("/user/ann/api/contents", headers=others).status_code == 403
    own = {"Authorization": f"token {ann.token()}"}
    kernel = ann.http.post("/user/ann/api/kernels", headers=own, json={"name": "python3"}).json()["id"]
    channel = f"ws{site.url.removeprefix('http')}/user/ann/api/kernels/{kernel}/channels"
    (await websocket_connect(HTTPRequest(channel, headers=own))).close()
    with pytest.raises(HTTPClientError, match="403"):
        await websocket_connect(HTTPRequest(channel, headers=others))
    # Past the proxy, at the pod itself: nobody comes in without a token, and there is one.
    inside = f"http://{pod['status']['podIP']}:8888/user/ann/api/contents"
    for headers in ({}, {"Authorization": "token wrong"}):
        assert status_at(inside, headers) == 403
    given = {variable["name"]: variable.get("value") for variable in server["env"]}
    assert len(given["JUPYTERHUB_API_TOKEN"]) >= 32

    ann.stop()

    left = {kind: [item["metadata"]["name"] for item in site.items(kind)] for kind in ("pods", "services", "configmaps")}
    assert left == {"pods": [], "services": [], "configmaps": ["kube-root-ca.crt"]}
    eventually(lambda: site.jobs() == [])
    assert site.use("research") == 0


@pytest.mark.feature("N22")
async def test_what_listens_at_a_servers_driver_ports_is_reached_from_outside_until_it_stops(
    site: KubeHubSite, ann: Browser, amy: Browser, bob: Browser
) -> None:
    """Two ports a server, and four in all. A driver listens at the port that it tells others, at the address that it is told."""
    started(site, ann, profile="yarn")
    port_of = "int(os.environ['TUTTILAB_DRIVER_PORTS'].split(',')[1])"
    listen = f"import http.server as h, os; h.test(h.SimpleHTTPRequestHandler, port={port_of}, bind='0.0.0.0')"
    # Its kernel, and the pipes to it, are gone once the cells have run.
    where = "start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    await run_cells(site, ann, f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {listen!r}], {where})")
    told = await run_cells(site, ann, "import os; print(os.environ['TUTTILAB_DRIVER_HOST'], os.environ['TUTTILAB_DRIVER_PORTS'])")
    host, ports = told.split()
    port = int(ports.split(",")[1])

    eventually(lambda: answers_at(f"http://{host}:{port}"), 90)
    started(site, amy, profile="yarn")
    services = [item for item in site.items("services") if item["spec"]["type"] == "NodePort"]
    assert sorted(one["nodePort"] for item in services for one in item["spec"]["ports"]) == [30100, 30101, 30102, 30103]
    said = refused(site, bob, profile="yarn")
    assert "2 asked, and 0 of the site's 4 (30100-30103) are free" in said

    ann.stop()

    assert len(site.items("services")) == 1
    started(site, bob, profile="yarn")
    assert len(site.items("services")) == 2


@pytest.mark.feature("N07", "N08", "N10")
async def test_a_workspace_keeps_its_file_and_a_group_that_may_read_cannot_write(
    site: KubeHubSite, volumes: Path, ann: Browser, bob: Browser
) -> None:
    started(site, ann, profile="mounts")
    said = await run_cells(
        site,
        ann,
        "open('/workspace/kept.txt', 'w').write('kept'); open('/data/new.txt', 'w').write('new')",
        "import os; print(os.getuid(), os.getgid())",
        "print([line.split()[1] for line in open('/proc/self/status') if 'NoNewPrivs' in line])",
    )
    assert said == "1000 1000\n['1']\n"
    written = volumes / "work" / "users" / "ann" / "kept.txt"
    assert (written.read_text(), written.stat().st_uid, written.stat().st_gid) == ("kept", 1000, 1000)

    ann.stop()
    started(site, ann, profile="mounts")
    assert await run_cells(site, ann, "print(open('/workspace/kept.txt').read())") == "kept\n"

    started(site, bob, profile="mounts")
    with pytest.raises(AssertionError, match="Read-only file system"):
        await run_cells(site, bob, "print(open('/data/new.txt').read())", "open('/data/other.txt', 'w')")
    assert not (volumes / "market" / "other.txt").exists()


@pytest.mark.feature("N07", "N08")
async def test_a_folder_of_the_node_is_mounted_and_a_link_out_of_it_is_not(
    site: KubeHubSite, volumes: Path, ann: Browser, bob: Browser
) -> None:
    started(site, ann, profile="path-node")
    with pytest.raises(AssertionError, match="Read-only file system"):
        await run_cells(site, ann, "print(open('/data/there.txt').read())", "open('/data/other.txt', 'w')")
    ann.stop()

    said = refused(site, ann, profile="path-link")

    assert "The server did not start" in said
    assert "CreateContainerConfigError" in said
    eventually(lambda: site.jobs() == [])
    assert site.items("pods", site.open_namespace) == []


@pytest.mark.feature("N07")
def test_all_kinds_of_volumes_are_known_to_the_cluster(site: KubeHubSite) -> None:
    """No node here can mount NFS or CephFS; the API server checks what is asked of it."""
    from tuttilab.scheduler.domain.requests import MountRequest, ProfileRequest

    mounts = (
        MountRequest(path="/a", cephfs="research", sub_path="users/{owner}"),
        MountRequest(path="/b", claim="work", mode="r"),
        MountRequest(path="/c", nfs="nas.example:/export/team"),
        MountRequest(path="/d", host_path="/srv/data", mode="r"),
    )
    made = volumes_of(ProfileRequest(name="p", mounts=mounts), "ann", "cephfs-{name}")
    container = {"name": "notebook", "image": lab_image.LAB, "volumeMounts": list(made.mounts)}
    pod = {"metadata": {"name": "all-kinds"}, "spec": {"containers": [container], "volumes": list(made.volumes)}}
    manifests = cephfs_static(
        "research",
        namespace=site.open_namespace,
        claim="cephfs-research",
        cluster_id="ceph",
        fs_name="fs",
        root_path="/volumes/research",
        secret="cephfs",
        secret_namespace="ceph",
    )

    accepted = site.cluster.api.post(f"/api/v1/namespaces/{site.open_namespace}/pods?dryRun=All", pod)
    volume = site.cluster.api.post("/api/v1/persistentvolumes?dryRun=All", manifests[0])

    kinds = [{"persistentVolumeClaim", "nfs", "hostPath"} & set(each) for each in accepted["spec"]["volumes"]]
    assert kinds[:4] == [{"persistentVolumeClaim"}, {"persistentVolumeClaim"}, {"nfs"}, {"hostPath"}]
    assert volume["spec"]["csi"]["driver"] == "cephfs.csi.ceph.com"


@pytest.mark.feature("N08")
@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ({"host_path": "/etc"}, "mounts[0].host_path: '/etc' is not in storages of tuttilab.yaml"),
        ({"claim": "work", "sub_path": "../users"}, "mounts[0].sub_path: '../users' is no folder"),
        ({"claim": "work", "sub_path": "users/{owner}/data"}, "goes on below the user's own folder, where a link could lead"),
    ],
)
def test_a_mount_outside_of_the_list_is_refused_on_create_and_edit(site: KubeHubSite, mount: dict[str, Any], said: str) -> None:
    for name in ("new", "mounts"):
        refusal = site.try_to_apply({"name": name, **SMALL, "mounts": [{"path": "/data", **mount}]})
        assert said in " ".join(refusal.split())


@pytest.mark.feature("N12")
def test_the_hubs_page_and_the_job_say_why_a_server_did_not_start(
    site: KubeHubSite, ann: Browser, amy: Browser, bob: Browser
) -> None:
    said: dict[str, str] = {}

    def ask(user: Browser, profile: str) -> None:
        said[profile] = refused(site, user, profile=profile)

    asks = [threading.Thread(target=ask, args=each) for each in ((ann, "no-image"), (amy, "too-small"), (bob, "no-room"))]
    for each in asks:
        each.start()
    for each in asks:
        each.join()

    expected = {
        "no-image": "image 'localhost/not-there:1' cannot be pulled on this cluster (ImagePullBackOff: ",
        "too-small": "the server used more memory than it has (24Mi) and was killed (OOMKilled); choose a profile with more",
        "no-room": "the cluster did not place it on the node that was chosen (Unschedulable: ",
    }
    for profile, sentence in expected.items():
        assert f"The server did not start: {sentence}" in said[profile], said
    eventually(lambda: site.jobs() == [])
    jobs = {job["labels"]["notebook-profile"]: job for job in site.jobs(all="true", state="Failed")}
    for profile, sentence in expected.items():
        shown = site.run("job", jobs[profile]["id"]).out
        assert sentence in " ".join(shown.split())
    assert site.items("pods") == []


@pytest.mark.feature("N02", "N10")
async def test_a_custom_image_and_a_proxy_user_travel_all_the_way(site: KubeHubSite, ann: Browser) -> None:
    started(site, ann, profile="cpu", image=lab_image.OTHER_LAB, run_as="etl")

    printed = await run_cells(
        site,
        ann,
        "print(open('/image.txt').read().strip())",
        "import os; open('/tmp/file', 'w'); made = os.stat('/tmp/file'); print(made.st_uid, made.st_gid)",
    )

    assert printed == "the other one\n2001 2002\n"
    ann.stop()
    for run_as in ("root", "bob"):
        said = refused(site, ann, profile="cpu", run_as=run_as)
        assert said == f"run_as: '{run_as}' is not a proxy user of profile 'cpu'; expected etl."
    said = site.try_to_apply({"name": "rooted", **SMALL, "proxy_users": {"root": {"uid": 0, "gid": 0}}})
    assert "proxy_users.root.uid: 0 cannot be used; expected 1 to 2147483647: nobody runs as root." in " ".join(said.split())


@pytest.mark.feature("B01")
async def test_servers_and_gangs_never_pass_the_groups_max_together(site: KubeHubSite, ann: Browser, amy: Browser) -> None:
    """The cluster has eight GPUs and the group four."""
    started(site, ann, profile="gpu-pair")
    most = {"ledger": 0, "pods": 0}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            most["ledger"] = max(most["ledger"], site.use("research"))
            most["pods"] = max(most["pods"], site.gpus_of_pods())
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    magic = "%%submit handle{} --workers 2 --gpus 1 --cpus 0.1 --memory 64Mi\nimport time; time.sleep(1); print('done')"
    cells = [magic.format(number) for number in range(3)]
    ends = "print([handle.wait().status for handle in (handle0, handle1, handle2)])"
    storm = asyncio.create_task(run_cells(site, ann, "%load_ext tuttilab.magics", *cells, ends, limit_s=150))
    # She gets her server or is refused, as it comes; what she got she gives back, so that all gangs have their turn.
    await asyncio.to_thread(amy.spawn, profile="gpu-pair")
    if amy.has_server():
        await asyncio.to_thread(amy.stop)
    printed = await storm
    is_over.set()
    watcher.join()

    gangs = site.jobs(all="true", kind="distributed")
    assert most["ledger"] == GPU_MAX
    assert most["pods"] <= GPU_MAX
    assert "['Succeeded', 'Succeeded', 'Succeeded']" in printed
    assert {gang["phase"] for gang in gangs} == {"Succeeded"}
    assert {(gang["owner"], gang["group"]) for gang in gangs} == {("ann", "research")}
