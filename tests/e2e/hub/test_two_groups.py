"""A user in two groups: the profile's group decides where the server is queued and charged, and room where several are left."""

import re

import pytest

from tests.e2e.hub.site import Browser, HubSite
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(700)

OF_QUANT = """
kind: Profile
name: of-quant
groups: [quant]
memory: 1Gi
gpus: 1
"""


def test_a_server_is_charged_to_the_group_of_its_profile_and_else_to_one_with_room(site: HubSite, ann: Browser) -> None:
    manifest = site.folder / "of-quant.yaml"
    manifest.write_text(OF_QUANT)
    assert site.machine.run("profile", "apply", str(manifest)).code == 0
    eva = site.browser("eva")

    assert eva.spawn(profile="of-quant").is_success
    (server,) = site.jobs(owner="eva")
    assert (server["queue"], server["group"], server["phase"]) == ("quant", "quant", "Running")
    assert (site.use("quant"), site.use("research")) == (1, 0)
    eva.stop()
    eventually(lambda: site.use("quant") == 0)

    assert eva.spawn(profile="gpu").is_success
    assert [(one["queue"], one["group"]) for one in site.jobs(owner="eva")] == [("research", "research")]
    eva.stop()
    eventually(lambda: site.use("research") == 0)

    assert ann.spawn(profile="gpu-pair").is_success
    assert eva.spawn(profile="gpu").is_success
    assert [(one["queue"], one["group"], one["phase"]) for one in site.jobs(owner="eva")] == [("quant", "quant", "Running")]
    token = eva.token()
    job = site.control("POST", "/jobs", token, {"name": "j", "pods": [{"memory": "64Mi", "gpus": 1}], "command": ["true"]}).json()
    # Of three GPUs of the site none is left: both queues would have it wait, and research is the default.
    assert job["queue"] == "research"
    eva.stop()


def test_the_form_offers_the_queues_of_who_has_several_and_the_server_goes_where_it_was_told(site: HubSite, bob: Browser) -> None:
    pinned = site.folder / "pinned.yaml"
    pinned.write_text("kind: Profile\nname: pinned\ngroups: [research]\nqueue: research\nmemory: 1Gi\n")
    assert site.machine.run("profile", "apply", str(pinned)).code == 0
    eva = site.browser("eva")
    page = eva.http.get("/hub/spawn").text

    (choice,) = re.findall(r'<select[^>]* name="queue">(.*?)</select><small>(.*?)</small>', page)
    assert re.findall(r'<option value="([^"]*)">', choice[0]) == ["", "research", "quant"]
    assert choice[1] == "cpu: research, quant; gpu: research, quant"
    assert 'name="queue"' not in bob.http.get("/hub/spawn").text

    eva.post("/hub/spawn", {"profile": "gpu", "queue": "quant"})
    eventually(lambda: [one["phase"] for one in site.jobs(owner="eva")] == ["Running"], 90)
    assert [(one["queue"], one["group"]) for one in site.jobs(owner="eva")] == [("quant", "quant")]
    assert (site.use("quant"), site.use("research")) == (1, 0)
    eva.stop()
    eventually(lambda: site.use("quant") == 0)

    theirs = bob.spawn(profile="cpu", queue="research")
    assert (theirs.status_code, "'research' is for the groups research; expected one of quant" in theirs.text) == (403, True)
    other = eva.spawn(profile="pinned", queue="quant")
    assert (other.status_code, "profile 'pinned' wait in queue 'research'; leave 'quant' out" in other.text) == (400, True)
    assert site.jobs(owner="bob") == site.jobs(owner="eva") == []
