"""What goes wrong with pods on real nodes, each with a state that is true and one sentence."""

from __future__ import annotations

import psutil
import pytest

from tests.kube import images
from tests.kube.job_site import SLEEPER, Site
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(300)]


def test_a_pod_that_a_person_deletes_is_no_failure_of_its_job(site: Site) -> None:
    job = site.started("--", *SLEEPER)
    eventually(lambda: "on\n" in site.logs(job))
    (pod,) = site.pods()

    site.cluster.api.delete(f"/api/v1/namespaces/{site.namespace}/pods/{pod['metadata']['name']}")

    eventually(lambda: len(site.job(job)["attempts"]) == 2 and site.job(job)["attempts"][1]["phase"] == "Running", 90)
    first = site.job(job)["attempts"][0]
    assert (first["phase"], "(Deleted: somebody deleted it)" in first["reason"]) == ("Lost", True)
    assert site.machine.run("cancel", job).code == 0
    site.until(job, "Cancelled")


def test_a_job_that_fills_its_nodes_disk_beyond_what_it_asked_for_fails_and_is_not_tried_for_ever(site: Site) -> None:
    manifest = site.machine.home / "fill.yaml"
    fill = "dd if=/dev/zero of=/tmp/fill bs=1048576 count=64; sleep 600"
    manifest.write_text(
        f"""kind: Job
name: fill
image: {images.BUSYBOX}
command: [sh, -c, "{fill}"]
pods: [{{cpus: 0.1, memory: 64Mi, resources: {{ephemeral-storage: 16Mi}}}}]
""",
        encoding="utf-8",
    )
    said = site.machine.run("submit", str(manifest), "--json")
    assert said.code == 0, said

    ended = site.until(said.json["id"], "Failed", limit_s=180)

    assert "wrote more to its node's disk than it asked for and was put out" in ended["reason"]
    assert len(ended["attempts"]) == 1


def test_a_namespace_that_is_deleted_below_a_gang_is_not_held(site: Site) -> None:
    job = site.started("--workers", "2", "--", *SLEEPER)
    eventually(lambda: site.logs(job).count(" on\n") == 2)
    path = f"/api/v1/namespaces/{site.namespace}"

    site.cluster.api.delete(path)

    eventually(lambda: not site.cluster.api.exists(path), 120)
    first = site.job(job)["attempts"][0]
    assert first["phase"] == "Lost", first
    # Whichever of its pods goes first.
    assert any(why in first["reason"] for why in ("was lost (", "its master ended first (", "cut off from its master")), first
    site.until_it_waits_for(job, f"there is no namespace '{site.namespace}'")
    assert site.machine.run("cancel", job).code == 0
    site.until(job, "Cancelled")


def test_a_namespace_without_a_control_plane_is_freed_by_a_release(site: Site) -> None:
    job = site.started("--", *SLEEPER)
    eventually(lambda: "on\n" in site.logs(job))
    plane = psutil.Process(site.machine.runtime().pid)
    plane.kill()
    plane.wait(60)
    assert "1 pod on cluster k has not ended" in site.machine.run("cluster", "release", "k").err
    path = f"/api/v1/namespaces/{site.namespace}"
    site.cluster.api.delete(path)
    eventually(lambda: [pod["status"]["phase"] for pod in site.pods()] == ["Failed"])
    assert site.cluster.api.exists(path)

    said = site.machine.run("cluster", "release", "k")

    assert said.out.endswith(": ended\n1 pod released.\n"), said
    eventually(lambda: not site.cluster.api.exists(path), 90)
    site.up()
    eventually(lambda: site.job(job)["attempts"][0]["phase"] == "Lost", 120)
    assert site.machine.run("cancel", job).code == 0
    site.until(job, "Cancelled")
