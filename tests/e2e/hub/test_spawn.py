"""A real hub: log in, choose a profile, use the server, stop it; and the ledger knows of it for exactly as long as it lives."""

import re

import psutil
import pytest

from tests.e2e.hub.kernel import run_cells
from tests.e2e.hub.site import SERVICE_TOKEN, Browser, HubSite
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(700)


@pytest.mark.feature("N01", "N03", "A07")
def test_form_offers_the_profiles_of_the_users_groups_and_the_server_opens_lab(site: HubSite, bob: Browser) -> None:
    form = bob.http.get("/hub/spawn").text
    assert re.findall(r'name="profile" value="([^"]+)"', form) == ["cpu", "gpu"]

    bob.post("/hub/spawn/bob", {"profile": "gpu"})
    eventually(bob.has_server)

    lab = bob.http.get("/user/bob/lab")
    assert lab.status_code == 200
    assert '"appName": "JupyterLab"' in lab.text or "jupyter-config-data" in lab.text
    (job,) = site.jobs()
    assert (job["owner"], job["group"], job["labels"]["notebook-profile"]) == ("bob", "quant", "gpu")


def test_server_is_a_job_for_as_long_as_it_lives(site: HubSite, ann: Browser) -> None:
    assert ann.spawn(profile="gpu").status_code in (201, 202)
    assert ann.has_server()

    (job,) = site.jobs()
    assert (job["kind"], job["owner"], job["queue"], job["phase"]) == ("notebook", "ann", "research", "Running")
    assert (site.use("research"), site.use("root")) == (1, 1)

    ann.stop()
    eventually(lambda: site.jobs() == [])
    assert (site.use("research"), site.servers()) == (0, [])
    assert site.jobs(all="true", state="Succeeded")[0]["id"] == job["id"]


@pytest.mark.feature("N06")
def test_server_sees_what_its_profile_gives_it_and_no_secret_of_the_hub(site: HubSite, ann: Browser) -> None:
    ann.spawn(profile="cpu")
    (server,) = site.servers()
    environ = psutil.Process(server).environ()

    assert environ["TUTTILAB_URL"] == site.control_url
    assert (environ["NVIDIA_VISIBLE_DEVICES"], environ["CUDA_VISIBLE_DEVICES"]) == ("", "")
    assert SERVICE_TOKEN not in environ.values()
    assert environ["HOME"].endswith("/homes/ann")
    ann.stop()

    ann.spawn(profile="gpu")
    (server,) = site.servers()
    environ = psutil.Process(server).environ()

    assert environ["SITE"] == "shown"
    assert "NVIDIA_VISIBLE_DEVICES" not in environ


@pytest.mark.feature("N17")
def test_server_is_its_owners_alone(site: HubSite, ann: Browser, bob: Browser) -> None:
    ann.spawn(profile="cpu")

    assert ann.http.get("/user/ann/api/status", headers={"Authorization": f"token {ann.token()}"}).status_code == 200
    assert bob.http.get("/user/ann/api/status", headers={"Authorization": f"token {bob.token()}"}).status_code == 403
    assert bob.http.get("/user/ann/lab").status_code == 403


async def test_panel_of_a_server_speaks_for_its_owner(site: HubSite, ann: Browser) -> None:
    ann.spawn(profile="cpu")

    me = ann.http.get("/user/ann/tuttilab/me", headers={"Authorization": f"token {ann.token()}"})

    assert (me.status_code, me.json()["name"], me.json()["groups"]) == (200, "ann", ["research"])


@pytest.mark.feature("M12")
async def test_gang_is_submitted_from_a_notebook_with_the_servers_own_token(site: HubSite, ann: Browser) -> None:
    ann.spawn(profile="cpu")

    printed = await run_cells(
        site,
        ann,
        "%load_ext tuttilab.magics",
        "%%submit handle --workers 2 --memory 256Mi --wait\nimport os\nprint('rank', os.environ['TUTTILAB_RANK'])",
        "print('ended as', handle.status)",
    )

    assert "ended as Succeeded" in printed
    (gang,) = site.jobs(all="true", kind="distributed")
    assert (gang["owner"], gang["group"], gang["phase"]) == ("ann", "research", "Succeeded")
    assert [(pods["role"], pods["count"]) for pods in gang["pods"]] == [("worker", 2)]


def test_restarted_hub_finds_its_servers_and_their_jobs(site: HubSite, ann: Browser) -> None:
    ann.spawn(profile="gpu")
    (job,) = site.jobs()

    # As after a crash: the server goes on while the hub is away.
    site.kill("hub")
    site.stop_control()
    site.start_control()
    assert [(one["id"], one["phase"]) for one in site.jobs()] == [(job["id"], "Running")]
    site.start_hub()

    eventually(ann.has_server)  # the hub looks for its servers once it answers
    assert [one["id"] for one in site.jobs()] == [job["id"]]
    ann.stop()
    eventually(lambda: site.jobs() == [])


def test_server_that_dies_gives_its_room_back(site: HubSite, ann: Browser) -> None:
    ann.spawn(profile="gpu")
    (server,) = site.servers()

    psutil.Process(server).kill()

    eventually(lambda: site.jobs() == [])
    eventually(lambda: not ann.model()["servers"])


def test_cancelled_job_stops_its_server(site: HubSite, ann: Browser) -> None:
    ann.spawn(profile="gpu")
    (job,) = site.jobs()

    asked = site.control("POST", f"/jobs/{job['id']}/cancel", SERVICE_TOKEN)

    assert asked.json()["phase"] == "Stopping"
    eventually(lambda: (site.jobs(), site.servers(), ann.model()["servers"]) == ([], [], {}))
