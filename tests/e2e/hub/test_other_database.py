"""A control plane that comes up with another database than the one that admitted the hub's servers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hub.site import Browser, HubSite, made_hub
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(700)
DATABASE = "state.db"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with made_hub(tmp_path_factory.mktemp("database")) as site:
        yield site


def test_no_server_is_stopped_for_being_unknown_and_all_are_counted_again(site: HubSite, tmp_path: Path) -> None:
    ann, bob = site.browser("ann"), site.browser("bob")
    ann.spawn(profile="gpu")
    site.stop_control()
    older = shutil.copy(site.machine.state / DATABASE, tmp_path / DATABASE)  # without bob's server
    site.start_control()
    bob.spawn(profile="gpu")
    running, held = sorted(site.servers()), site.use("root")
    assert (len(running), held) == (2, 2)

    # An empty database: the servers go on although nobody can count them, because it has no profile either.
    take_away(site)
    site.start_control()
    eventually(lambda: site.log("hub").count("cannot adopt it; it goes on") >= 2)
    assert (sorted(site.servers()), ann.has_server(), bob.has_server()) == (running, True, True)
    said = site.machine.run("profile", "apply", str(site.folder / "profiles.yaml"))
    assert said.code == 0, said
    counted(site, running, held)

    # An older database knows one of them.
    site.stop_control()
    take_away(site, stopped=True)
    shutil.copy(older, site.machine.state / DATABASE)
    site.start_control()
    counted(site, running, held)

    # The other order: the hub comes up after the control plane, and knows the jobs that stand for its servers now.
    site.kill("hub")
    take_away(site)
    site.start_control()
    assert site.machine.run("profile", "apply", str(site.folder / "profiles.yaml")).code == 0
    site.start_hub()
    counted(site, running, held)
    site.kill("hub")
    site.start_hub()
    counted(site, running, held)

    # What ended a server before ends it still.
    (job,) = [job for job in site.jobs() if job["owner"] == "ann"]
    assert site.machine.run("cancel", job["id"]).code == 0
    eventually(lambda: len(site.servers()) == 1)
    bob_again = Browser(bob.http, "bob")
    bob_again.login()
    bob_again.stop()
    eventually(lambda: (site.servers(), site.use("root")) == ([], 0))


def take_away(site: HubSite, *, stopped: bool = False) -> None:
    if not stopped:
        site.stop_control()
    for file in site.machine.state.glob(f"{DATABASE}*"):
        if not file.name.endswith(".lock"):
            file.unlink()


def counted(site: HubSite, running: list[int], held: int) -> None:
    """Both servers run on, each is one job, and their GPUs are charged."""
    eventually(lambda: sorted(job["owner"] for job in site.jobs() if job["phase"] == "Running") == ["ann", "bob"])
    assert sorted(site.servers()) == running
    assert site.use("root") == held
    assert len(site.jobs()) == len(running)
