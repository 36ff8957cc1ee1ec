"""What goes wrong with pods on real nodes, each with a state that is true and one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

from tests.kube import images
from tests.kube.job_site import SLEEPER, Site
from tests.kube.registry import other_architecture, running_registry
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]
OTHER_MACHINE = "localhost/other-machine:1"
E_MACHINE, EM_X86_64, EM_AARCH64 = 18, 62, 183
"""Of an ELF file's header."""


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


def test_gpus_that_fail_are_no_room_and_end_nothing(site: Site) -> None:
    """Of four on each node."""
    runs = site.started("--gpus", "1", "--", *SLEEPER)
    eventually(lambda: "on\n" in site.logs(runs))

    with site.cluster.gpus_unhealthy(3):
        waits = site.started("--gpus", "2", "--", "true")
        site.until_it_waits_for(waits, "there cannot be given out now: devices are unhealthy, or their device plugin does not run")
        assert site.job(runs)["phase"] == "Running", "what runs on a GPU is its own"
        assert site.job(waits)["attempts"] == []

    site.until(waits, "Succeeded")
    assert len(site.job(runs)["attempts"]) == 1
    assert site.machine.run("cancel", runs).code == 0
    site.until(runs, "Cancelled")


def image_of_another_machine(place: Path) -> Path:
    """It claims to be for this one, and its program is not: busybox with another machine's number in its header."""
    program = bytearray(Path(shutil.which("busybox") or "").resolve().read_bytes())
    other = {"amd64": EM_X86_64, "arm64": EM_AARCH64}[other_architecture()]
    program[E_MACHINE : E_MACHINE + 2] = other.to_bytes(2, "little")
    images.layer([("bin/program", bytes(program))], place / "layer")
    images.image(place / "other.tar", OTHER_MACHINE, [place / "layer"], {"Cmd": ["/bin/program"]})
    return place / "other.tar"


def test_a_program_for_another_kind_of_machine_is_told_as_such(site: Site, tmp_path: Path) -> None:
    site.cluster.load_image(image_of_another_machine(tmp_path))

    ended = site.until(site.started("--", "/bin/program", image=OTHER_MACHINE), "Failed")

    assert ended["reason"] == (
        "it could not start: its image or program is for another kind of machine than its node; "
        "use an image for the nodes' architecture"
    )
    assert len(ended["attempts"]) == 1


def test_an_image_without_anything_for_this_kind_of_machine_is_told_as_such(site: Site) -> None:
    with running_registry(site.cluster.host) as address:
        site.cluster.trust_registry(address)
        image = f"{address}/other:1"
        job = site.started("--", "true", image=image)

        ended = site.until(job, "Failed")

    assert "its image or program is for another kind of machine than its node" in ended["reason"]
    assert f"image '{image}' has nothing for its node's kind of machine" in site.logs(job)


def test_a_namespace_that_is_deleted_below_a_gang_is_not_held(own_site: Site) -> None:
    own_site.up()
    job = own_site.started("--workers", "2", "--", *SLEEPER)
    eventually(lambda: own_site.logs(job).count(" on\n") == 2)
    path = f"/api/v1/namespaces/{own_site.namespace}"

    own_site.cluster.api.delete(path)

    eventually(lambda: not own_site.cluster.api.exists(path), 120)
    first = own_site.job(job)["attempts"][0]
    assert first["phase"] == "Lost", first
    # Whichever of its pods goes first.
    assert any(why in first["reason"] for why in ("was lost (", "its master ended first (", "cut off from its master")), first
    own_site.until_it_waits_for(job, f"there is no namespace '{own_site.namespace}'")
    assert own_site.machine.run("cancel", job).code == 0
    own_site.until(job, "Cancelled")


def test_a_namespace_without_a_control_plane_is_freed_by_a_release(own_site: Site) -> None:
    own_site.up()
    job = own_site.started("--", *SLEEPER)
    eventually(lambda: "on\n" in own_site.logs(job))
    plane = psutil.Process(own_site.machine.runtime().pid)
    plane.kill()
    plane.wait(150)
    assert "1 pod on cluster k has not ended" in own_site.machine.run("cluster", "release", "k").err
    path = f"/api/v1/namespaces/{own_site.namespace}"
    own_site.cluster.api.delete(path)
    eventually(lambda: [pod["status"]["phase"] for pod in own_site.pods()] == ["Failed"])
    assert own_site.cluster.api.exists(path)

    said = own_site.machine.run("cluster", "release", "k")

    assert said.out.endswith(": ended\n1 pod released.\n"), said
    eventually(lambda: not own_site.cluster.api.exists(path), 90)
    own_site.up()
    eventually(lambda: own_site.job(job)["attempts"][0]["phase"] == "Lost", 120)
    assert own_site.machine.run("cancel", job).code == 0
    own_site.until(job, "Cancelled")
