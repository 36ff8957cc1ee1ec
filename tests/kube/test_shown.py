"""What is shown of a job while it runs in containers: its pictures, and what it uses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.magics.conftest import Kernel
from tests.kube import product_images
from tests.kube.cluster import Cluster
from tests.kube.faults import FaultyApi, faulty_api
from tests.kube.job_site import SLEEPER, Site
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]
CELL = f"%%submit total --image {product_images.NOTEBOOK} --cpus 0.2 --memory 128Mi"
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(3 * 2**20)).decode()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_is_shown_while_its_cell_runs_in_a_container(site: Site, kernel: Kernel, workers: int) -> None:
    """A large one, in a pod of its own and in one of a gang."""
    code = """
import base64, time
class Picture:
    def _repr_png_(self):
        return base64.b64decode(picture)
display(Picture())
print("shown", flush=True)
time.sleep(10)
"""
    assert kernel.run(f"picture = {PICTURE!r}").status == "ok"
    sent = kernel.send(f"{CELL} --workers {workers}{code}")

    ran = kernel.gather(sent, timeout=120, until=lambda ran: any("image/png" in data for data in ran.displays))

    assert [data["image/png"] for data in ran.displays if "image/png" in data] == [PICTURE]
    (job,) = json.loads(site.machine.run("jobs", "--json").out)
    assert job["phase"] == "Running"
    rest = kernel.gather(sent, timeout=120)
    assert rest.status == "ok", rest.error
    assert not any("image/png" in data for data in rest.displays)  # it is not shown a second time


@pytest.fixture
def metrics(own_site: Site) -> Iterator[FaultyApi]:
    """The site's cluster with a metrics API: what its kubelets count, as metrics-server hands it on."""
    cluster = own_site.cluster
    with faulty_api(cluster) as faults, faults.answering("^/apis/metrics.k8s.io/", lambda: pod_metrics(cluster)):
        own_site.settings["kubeconfig"] = str(faults.kubeconfig(own_site.kubeconfig))
        own_site.up()
        yield faults
        # Its jobs are ended through the proxy.
        own_site.machine.run("down", "--now", timeout_s=150)


def pod_metrics(cluster: Cluster) -> dict[str, Any]:
    items = []
    for node in cluster.ready_nodes():
        for pod in cluster.api.get(f"/api/v1/nodes/{node}/proxy/stats/summary")["pods"]:
            containers = [
                {
                    "name": each["name"],
                    "usage": {
                        "cpu": f"{each['cpu'].get('usageNanoCores', 0)}n",
                        "memory": f"{each['memory'].get('workingSetBytes', 0) // 1024}Ki",
                    },
                }
                for each in pod.get("containers", [])
                if "cpu" in each and "memory" in each
            ]
            at = max((each["cpu"]["time"] for each in pod.get("containers", []) if "cpu" in each), default="")
            items.append({"metadata": pod["podRef"], "timestamp": at, "window": "10s", "containers": containers})
    return {"kind": "PodMetricsList", "items": [item for item in items if item["timestamp"]]}


@pytest.mark.usefixtures("metrics")
def test_what_a_job_uses_is_shown_while_it_runs_in_a_container(own_site: Site) -> None:
    code = "import time; held = bytearray(40 << 20)\nuntil = time.time() + 120\nwhile time.time() < until: pass"
    job = own_site.started("--workers", "2", "--cpus", "0.1", "--memory", "128Mi", "--", "python3", "-c", code)
    own_site.until_running(job)

    def used() -> Any:
        found = own_site.usage(job)["pods"]
        return found if len(found) == 2 and all(len(pod["seconds"]) >= 2 for pod in found) else None

    pods = eventually(used, 80)

    assert [pod["rank"] for pod in pods] == [0, 1]
    for pod in pods:
        assert 40 * 2**20 < pod["peak_memory"] < 128 * 2**20
        # Not more than it may have; on a busy machine it gets less.
        assert 0.01 < max(pod["cpus"]) < 0.2
        assert pod["cpu_s"] > 0.1
        assert pod["asked_cpus"] == 0.1
    assert own_site.machine.run("cancel", job).code == 0
    own_site.until(job, "Cancelled")
    assert len(own_site.usage(job)["pods"]) == 2


def test_without_the_right_jobs_run_and_the_log_says_why_their_use_is_not_shown(site: Site) -> None:
    said = "what pods use is not shown: the account may not get pods of metrics.k8s.io"
    job = site.started("--", *SLEEPER)
    site.until_running(job)
    eventually(lambda: said in (site.machine.state / "control.log").read_text(encoding="utf-8"), 40)
    assert site.usage(job)["pods"] == []
    assert site.job(job)["phase"] == "Running"
