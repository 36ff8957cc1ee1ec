"""`tuttilab doctor` for a user in a server of the hub, and for whoever runs its control plane; and what a user is told to do."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.hub.site import SERVICE_TOKEN, Browser, HubSite
from tests.user_machine import UserMachine
from tuttilab.scheduler.runtime import discovery

pytestmark = pytest.mark.timeout(700)

Findings = dict[str, tuple[str, str, str]]
"""Level, detail and remedy by what was checked."""


def doctor(machine: UserMachine, **environ: str) -> tuple[int, Findings]:
    said = machine.run("doctor", "--json", cwd=None, timeout_s=150, **environ)
    assert said.err == "", said
    return said.code, {one["what"]: (one["level"], one["detail"], one["remedy"]) for one in said.json}


@pytest.fixture
def in_server(site: HubSite, ann: Browser, tmp_path: Path) -> UserMachine:
    """A terminal in ann's server: its own environment, as the hub made it."""
    assert ann.spawn(profile="cpu").is_success
    server = next(psutil.Process(pid) for pid in site.servers() if psutil.Process(pid).environ().get("JUPYTERHUB_USER") == "ann")
    given = {name: value for name, value in server.environ().items() if name.startswith(("TUTTILAB_", "JUPYTERHUB_"))}
    environ = {**site.machine.environ, **given, "TUTTILAB_STATE_DIR": str(tmp_path / "own")}
    return dataclasses.replace(site.machine, state=tmp_path / "own", environ=environ)


def test_in_a_server_the_user_learns_who_they_are_what_runs_where_and_which_queues_are_theirs(
    site: HubSite, in_server: UserMachine
) -> None:
    code, found = doctor(in_server)

    assert {name: finding for name, finding in found.items() if finding[0] == "broken"} == {}
    assert code == 0
    level, detail, _ = found["service"]
    assert (level, re.sub(r"version .*", "", detail)) == ("ok", f"{site.control_url} answers ann (user, groups research), ")
    assert found["cluster here"] == ("ok", "local, 1 node", "")
    assert found["queues"] == ("ok", "research", "")
    assert found["clock"] == ("ok", "as there", "")


def test_a_token_without_the_scope_or_unknown_has_its_own_remedy(site: HubSite, ann: Browser, in_server: UserMachine) -> None:
    narrow = ann.token(["read:users!user"])

    for token, says, remedy in [
        (narrow, "lacks the scope access:services!service=tuttilab", "the role `user` needs"),
        ("wrong", "The hub does not know this token", "start it again: it gets another token."),
    ]:
        code, found = doctor(in_server, JUPYTERHUB_API_TOKEN=token)
        assert (code, found["service"][0]) == (1, "broken")
        assert says in found["service"][1]
        assert remedy in found["service"][2]


def test_a_server_starts_no_control_plane_of_its_own(site: HubSite, ann: Browser, in_server: UserMachine) -> None:
    headers = {"Authorization": f"token {ann.token()}"}
    status = httpx.get(f"{site.url}/user/ann/tuttilab/status", headers=headers, trust_env=False, timeout=150)
    assert status.json()["can_start"] is False

    said = in_server.run("up")

    assert said.code == 3
    assert "which only the hub's admin starts" in said.err
    assert not in_server.state.exists()


def test_whoever_runs_the_control_plane_learns_what_it_may_do_at_the_hub(site: HubSite, ann: Browser) -> None:
    code, found = doctor(site.machine, JUPYTERHUB_API_TOKEN=SERVICE_TOKEN)
    assert (code, found["control plane"][0]) == (0, "ok")
    assert "(admin)" in found["control plane"][1]
    assert found["hub"][0] == "ok"
    assert found["hub"][1].startswith(f"{site.hub_url}/hub/api, JupyterHub 6.")
    assert found["clock of the hub"] == ("ok", "as there", "")
    assert found["hub's token"] == ("ok", "service 'tuttilab' with list:users, read:users:name, read:servers", "")

    code, found = doctor(site.machine, JUPYTERHUB_API_TOKEN="wrong")
    assert (code, found["hub's token"][:2]) == (1, ("broken", "it answers 403"))
    assert "the service 'tuttilab' of jupyterhub_config.py" in found["hub's token"][2]

    code, found = doctor(site.machine, JUPYTERHUB_API_TOKEN=ann.token())
    assert (code, found["hub's token"][0]) == (1, "broken")
    assert found["hub's token"][1].startswith("it is of the user 'ann'; expected the service 'tuttilab'")

    code, found = doctor(site.machine)
    assert (code, found["hub"][0]) == (0, "note")


def test_whoever_runs_the_hub_learns_whether_its_token_counts(site: HubSite, tmp_path: Path) -> None:
    environ = {**site.machine.environ, "TUTTILAB_STATE_DIR": str(tmp_path / "hubs"), "TUTTILAB_URL": site.control_url}
    hub = dataclasses.replace(site.machine, environ=environ)

    code, found = doctor(hub, TUTTILAB_TOKEN=SERVICE_TOKEN)
    assert (code, found["service"][0], found["cluster here"][0]) == (0, "ok", "ok")
    assert " answers tuttilab (admin), " in found["service"][1]

    code, found = doctor(hub, TUTTILAB_TOKEN="of-another-hub")
    assert (code, found["service"][0], found["service"][2]) == (1, "broken", "Check TUTTILAB_URL and TUTTILAB_TOKEN.")


def test_the_log_has_no_line_for_each_request_of_our_own(site: HubSite, ann: Browser) -> None:
    assert site.control("GET", "/me", ann.token()).status_code == 200

    assert "HTTP Request" not in discovery.log_file(site.machine.state).read_text()


def test_without_a_control_plane_users_are_told_what_they_can_do_and_no_address(site: HubSite, in_server: UserMachine) -> None:
    site.stop_control()
    try:
        said = in_server.run("jobs")
        assert (said.code, said.err) == (
            4,
            "tuttilab: The control plane of this hub does not answer; what runs goes on. Try again soon, and tell the hub's admin "
            "if it lasts.\n",
        )
        code, found = doctor(in_server)
        assert (code, found["service"][0], found["service"][2]) == (1, "broken", "Tell the hub's admin; jobs that run go on.")
        code, found = doctor(site.machine, JUPYTERHUB_API_TOKEN=SERVICE_TOKEN)
        assert (code, found["control plane"][1]) == (1, "not running; it ran as a service")
        assert "`tuttilab scheduler serve --config FILE`" in found["control plane"][2]
    finally:
        site.start_control()
