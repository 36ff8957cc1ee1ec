"""What a real hub tells a user who cannot have a server, and that nothing of it stays behind: no job, no process, no dead hub."""

import threading
import time

import pytest

from tests.e2e.hub.site import SERVICE_TOKEN, Browser, HubSite
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(700)


def message(user: Browser, **options: str) -> tuple[int, str]:
    """What the hub answers to a spawn that it refuses."""
    answer = user.api("POST", f"/users/{user.name}/server", options)
    return answer.status_code, answer.json()["message"]


def nothing_is_left(site: HubSite, user: Browser) -> bool:
    return site.jobs() == [] and site.servers() == [] and user.model()["servers"] == {}


@pytest.mark.feature("N04", "B08")
def test_full_group_is_refused_with_who_holds_what_and_the_hub_lives_on(site: HubSite, ann: Browser, amy: Browser) -> None:
    amy.spawn(profile="gpu")

    refused = [message(ann, profile="gpu-pair") for _ in range(10)]

    assert set(refused) == {
        (
            409,
            "No room for gpu-pair: asks for 2 GPU; queue research has 1 of 2 GPU free; "
            "notebook server 'notebook' of amy holds 1 GPU.",
        )
    }
    assert site.hub_is_up()
    assert [job["owner"] for job in site.jobs()] == ["amy"]
    assert site.use("research") == 1

    assert ann.spawn(profile="gpu").status_code in (201, 202)
    assert ann.has_server()
    assert site.use("research") == 2


@pytest.mark.feature("N04")
def test_other_groups_are_a_number_in_the_refusal(site: HubSite, ann: Browser, bob: Browser) -> None:
    bob.spawn(profile="gpu")
    site.control("POST", "/jobs", SERVICE_TOKEN, sleeper("quant", gpus=1))
    eventually(lambda: site.use("root") == 2)

    refused = message(ann, profile="gpu-pair")

    for job in site.jobs(kind="batch"):
        site.control("POST", f"/jobs/{job['id']}/cancel", SERVICE_TOKEN)
    eventually(lambda: site.jobs(kind="batch") == [])
    assert refused == (409, "No room for gpu-pair: asks for 2 GPU; queue root has 1 of 3 GPU free; other groups hold 2 GPU.")


def sleeper(queue: str, gpus: int) -> dict[str, object]:
    pod = {"role": "worker", "gpus": gpus, "memory": "64Mi"}
    return {"name": "sleeper", "queue": queue, "pods": [pod], "command": ["sleep", "600"], "grace": "1s"}


@pytest.mark.feature("N03")
def test_profile_of_another_group_is_refused(site: HubSite, bob: Browser) -> None:
    assert message(bob, profile="gpu-pair") == (403, "profile: 'gpu-pair' is not offered to bob; expected cpu, gpu.")
    assert nothing_is_left(site, bob)


@pytest.mark.feature("N02")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "evil.example/x"}, "image: 'evil.example/x' is not an image of profile 'cpu'; expected none."),
        ({"node": "a"}, "options: 'node' cannot be chosen; expected profile, image, queue and run_as."),
        ({"profile": ["gpu"]}, "options: profile is ['gpu']; expected a text."),
    ],
)
def test_options_from_a_script_are_checked(site: HubSite, bob: Browser, options: dict[str, str], said: str) -> None:
    assert message(bob, **options) == (400, said)
    assert nothing_is_left(site, bob)


def test_user_in_no_group_is_told_so(site: HubSite) -> None:
    zoe = site.browser("zoe")

    assert "No profile is offered to you; ask an admin for a group or a profile." in zoe.http.get("/hub/spawn").text
    assert message(zoe) == (
        403,
        "profile: none is offered to zoe, who is in no group of the hub; ask an admin for a group or a profile.",
    )
    assert nothing_is_left(site, zoe)


def test_nothing_starts_while_the_control_plane_is_away(site: HubSite, ann: Browser) -> None:
    said = "The control plane does not answer, so nobody knows whether there is room. Nothing was started; try again soon."
    site.stop_control()
    try:
        assert said in ann.http.get("/hub/spawn").text
        refused = [message(ann, profile="cpu") for _ in range(4)]
        assert set(refused) == {(503, said)}
        assert site.servers() == []
    finally:
        site.start_control()

    assert site.hub_is_up()
    assert nothing_is_left(site, ann)
    ann.spawn(profile="cpu")
    assert ann.has_server()


def test_end_that_the_control_plane_did_not_hear_is_told_again(site: HubSite, ann: Browser) -> None:
    ann.spawn(profile="gpu")
    site.stop_control()

    ann.stop()

    site.start_control()
    assert len(site.jobs()) in (0, 1)
    eventually(lambda: site.jobs() == [])


@pytest.mark.feature("B01", "S10")
def test_group_never_passes_its_max_when_all_start_at_once(site: HubSite, ann: Browser, amy: Browser, bob: Browser) -> None:
    most = {"research": 0, "root": 0}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            for queue in most:
                most[queue] = max(most[queue], site.use(queue))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    wanted = [(ann, "gpu-pair"), (amy, "gpu-pair"), (bob, "gpu")]
    starts = [threading.Thread(target=user.spawn, kwargs={"profile": profile}) for user, profile in wanted]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    is_over.set()
    watcher.join()
    for queue in most:
        most[queue] = max(most[queue], site.use(queue))

    assert most == {"research": 2, "root": 3}
    assert sorted(user.has_server() for user in (ann, amy)) == [False, True]
    assert bob.has_server()
    site.stop_control()
    verified = site.machine.run("scheduler", "verify")
    site.start_control()
    assert verified.code == 0, verified
