"""A local cluster on Postgres has one control plane: a second one is refused when it starts, not when it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.replicas import CONFIG, Replica, Site, made_site
from tests.user_machine import CommandResult, UserMachine

pytestmark = [pytest.mark.requires("postgres"), pytest.mark.timeout(700)]

LOCAL = CONFIG.replace("kind: fake", "kind: local")
ALONE = LOCAL.replace('store: {{url: "{url}"}}', 'store: {{url: "{url}", alone: true}}')


@pytest.fixture
def site(tmp_path: Path, postgres_server: Postgres) -> Iterator[Site]:
    with made_site(tmp_path, postgres_server) as site:
        yield site


def end(replica: Replica, job: str) -> None:
    """Its pod is a process of this machine and would stay."""
    with replica.client() as client:
        client.cancel(job)
        assert client.wait(job, timeout_s=150).phase == "Cancelled"


def on_a_second_machine(site: Site, *arguments: str) -> CommandResult:
    state = site.folder / "second"
    return UserMachine(site.folder, state, {**os.environ, "TUTTILAB_STATE_DIR": str(state)}).run(*arguments)


def test_a_second_control_plane_is_refused_while_the_first_one_runs(site: Site) -> None:
    first = site.start("first", ALONE)

    said = on_a_second_machine(site, "scheduler", "serve", "--config", str(site.folder / "tuttilab.yaml"))

    assert said.code == 2, said
    assert "a local cluster, whose pods only one state folder knows" in said.err
    assert first.process.poll() is None
    job = first.submit_until_accepted()
    assert first.knows(job)
    end(first, job)


def test_the_only_one_leads_again_after_it_was_killed(site: Site) -> None:
    first = site.start("first", ALONE)
    job = first.submit_until_accepted()
    first.process.kill()
    first.process.wait(150)

    again = site.start("first", ALONE)

    assert again.knows(job)
    end(again, job)


def test_check_and_start_refuse_a_local_cluster_that_several_would_share(site: Site) -> None:
    config = str(site.write_config(LOCAL))

    for arguments in (("scheduler", "check"), ("scheduler", "serve"), ("up",)):
        said = on_a_second_machine(site, *arguments, "--config", config)
        assert said.code == 2, said
        assert "clusters[0].kind: local does not go with several control planes on Postgres" in said.err
