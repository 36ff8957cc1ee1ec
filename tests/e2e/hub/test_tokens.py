"""Hub tokens at the control plane: whose they are, what they must carry, and how soon a revoked one stops to count."""

import httpx
import pytest

from tests.e2e.hub.site import SERVICE_TOKEN, Browser, HubSite
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(700)
SCOPE = "access:services!service=tuttilab"


def me(site: HubSite, token: str) -> httpx.Response:
    return site.control("GET", "/me", token)


@pytest.mark.feature("A07")
def test_token_stands_for_its_user_with_the_groups_of_the_hub(site: HubSite, ann: Browser) -> None:
    said = me(site, ann.token([SCOPE])).json()

    assert (said["name"], said["groups"], said["admin"]) == ("ann", ["research"], False)


def test_member_of_an_admin_group_is_admin(site: HubSite) -> None:
    root = site.browser("root")

    assert me(site, root.token()).json()["admin"] is True


@pytest.mark.feature("A06")
def test_token_without_the_services_scope_is_refused(site: HubSite, ann: Browser) -> None:
    refused = me(site, ann.token(["read:users!user"]))

    assert refused.status_code == 403
    assert refused.json()["detail"] == (
        f"This token of ann may not be used here: it lacks the scope {SCOPE}; ask for one that has it."
    )


@pytest.mark.parametrize("token", ["wrong", "0" * 64, SERVICE_TOKEN[:-1]])
def test_wrong_token_is_refused(site: HubSite, token: str) -> None:
    refused = me(site, token)

    assert refused.status_code == 401
    assert refused.json()["detail"].startswith("The hub does not know this token, or it was revoked or has expired")


@pytest.mark.feature("A06")
def test_revoked_token_counts_for_less_than_a_minute(site: HubSite, bob: Browser) -> None:
    token = bob.token([SCOPE])
    assert me(site, token).status_code == 200
    bob.revoke(bob.token_id())

    eventually(lambda: me(site, token).status_code == 401, 59)


@pytest.mark.feature("M13")
def test_user_may_not_speak_for_the_hub(site: HubSite, ann: Browser) -> None:
    token = ann.token()

    assert site.control("POST", "/notebooks", token, {"owner": "bob", "groups": ["quant"]}).status_code == 403
    assert site.control("GET", "/profiles?owner=bob&group=quant", token).status_code == 403
    assert site.control("POST", "/profiles", token, {"name": "mine", "gpus": 2}).status_code == 403
    assert site.control("POST", "/jobs", token, {"kind": "notebook", "command": ["true"]}).status_code == 403
    assert [one["profile"]["name"] for one in site.control("GET", "/profiles", token).json()] == ["cpu", "gpu", "gpu-pair"]


@pytest.mark.feature("M13")
def test_a_job_is_its_submitters_own_whoever_it_names(site: HubSite, ann: Browser, bob: Browser) -> None:
    body = {"name": "mine", "pods": [{"memory": "64Mi"}], "command": ["true"]}

    for named in ({"owner": "bob"}, {"group": "quant"}, {"labels": {}, "user": "bob"}):
        refused = site.control("POST", "/jobs", ann.token(), body | named)
        assert refused.status_code == 400, refused.text
    job = site.control("POST", "/jobs", ann.token(), body).json()
    assert job["owner"] == "ann"
    assert site.control("POST", f"/jobs/{job['id']}/retry", bob.token()).status_code == 404


def test_users_see_their_own_jobs_only(site: HubSite, ann: Browser, bob: Browser) -> None:
    body = {"name": "mine", "pods": [{"memory": "64Mi"}], "command": ["true"]}
    job = site.control("POST", "/jobs", ann.token(), body).json()

    assert site.control("GET", f"/jobs/{job['id']}", bob.token()).status_code == 404
    assert site.control("POST", f"/jobs/{job['id']}/cancel", bob.token()).status_code == 404
    assert site.control("GET", "/jobs?owner=*", bob.token()).status_code == 403
