"""A user in two groups: the profile's group decides where the server is queued and charged, and room where several are left."""

import pytest

from tests.e2e.hub.site import Browser, HubSite
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(300)

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
