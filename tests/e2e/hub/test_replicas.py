"""A hub whose control plane is two processes on one Postgres: users are known at both, and servers outlive the leader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.hub.guide import HUB_API, blocks
from tests.e2e.hub.site import SERVICE_TOKEN, HubSite, made_hub
from tests.ports import free_ports
from tests.postgres import Postgres
from tests.user_machine import eventually

pytestmark = [pytest.mark.requires("postgres"), pytest.mark.timeout(700)]


class TwoOnPostgres(HubSite):
    """The hub asks `control`, which follows `leader`."""

    database = ""

    def start_control(self) -> None:
        (port,) = free_ports(1)
        key = self.folder / "key"
        key.write_bytes(os.urandom(32))
        for name, at in (("leader", port), ("control", self.ports[3])):
            text = blocks("yaml")[0].replace(HUB_API, f"{self.hub_url}/hub/api").replace("port: 9321", f"port: {at}")
            text = text.replace("kind: local", "kind: fake").replace("auth: {", f"auth: {{key_file: {key}, ")
            config = self.folder / f"{name}.yaml"
            config.write_text(f"store: {{url: {self.database!r}}}\n{text}")
            folder = str(self.folder) if name == "control" else str(self.folder / "leader")
            self._serve(name, config, {"JUPYTERHUB_API_TOKEN": SERVICE_TOKEN, "TUTTILAB_STATE_DIR": folder})
            eventually(lambda at=at: self._answers(f"http://127.0.0.1:{at}/readyz"))  # type: ignore[misc]
        self.leader_url = f"http://127.0.0.1:{port}"


@pytest.fixture
def site(tmp_path: Path, postgres_server: Postgres) -> Iterator[TwoOnPostgres]:
    name = postgres_server.new_database()
    TwoOnPostgres.database = postgres_server.url(name)
    with made_hub(tmp_path, patience_s=20.0, kind=TwoOnPostgres) as site:
        assert isinstance(site, TwoOnPostgres)
        yield site
    postgres_server.drop(name)


def test_users_of_the_hub_and_their_servers_go_on_when_the_leader_is_killed(site: TwoOnPostgres) -> None:
    ann = site.browser("ann")
    token = ann.token()

    said = [
        httpx.get(f"{url}/api/v1/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=150).json()
        for url in (site.leader_url, site.control_url)
    ]
    assert [(one["name"], one["groups"], one["admin"]) for one in said] == [("ann", ["research"], False)] * 2
    assert site.control("GET", "/me", "wrong").status_code == 401
    assert ann.spawn(profile="gpu").is_success
    (server,) = site.jobs(owner="ann")
    assert (server["kind"], server["phase"], site.use("research")) == ("notebook", "Running", 1)

    site.kill("leader")

    eventually(lambda: site.control("GET", "/me", token).status_code == 200)
    assert site.control("GET", "/me", token).json()["name"] == "ann"
    assert site.use("research") == 1
    ann.stop()
    eventually(lambda: site.use("research") == 0)
    ended = site.control("GET", f"/jobs/{server['id']}", token).json()
    assert (ended["owner"], ended["phase"], len(ended["attempts"])) == ("ann", "Succeeded", 1)
