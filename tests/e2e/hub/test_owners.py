"""A hub for several people on one machine: root runs it and its control plane, on Postgres; jobs and servers run as their users."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.hub.guide import HUB_API, blocks
from tests.e2e.hub.site import SERVICE_TOKEN, Browser, HubSite, made_hub
from tests.postgres import Postgres
from tests.unix_accounts import Accounts, open_folder, processes_of
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("users"), pytest.mark.requires("postgres"), pytest.mark.timeout(700)]

# As `jupyterhub-singleuser`, by an interpreter that every user can run.
SERVER = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from jupyterhub.singleuser import main
main()
"""


class OfOwners(HubSite):
    accounts: Accounts
    pods: Path
    database = ""
    url_of_database = ""

    def start_control(self) -> None:
        here = self.accounts
        text = blocks("yaml")[1].replace(HUB_API, f"{self.hub_url}/hub/api").replace("port: 9321", f"port: {self.ports[3]}")
        text = text.replace("postgresql+psycopg://tuttilab@/tuttilab", self.url_of_database)
        text = text.replace(
            "accounts: {eva.berg: eva}",
            f"accounts: {{ann: {here.ann}, bob: {here.bob}}}\n    folder: {self.pods}\n    sidecar_user: {here.sidecar}\n"
            f"    python: {here.python}",
        )
        text += f"proxy_users: [{{name: etl, groups: [quant], account: {here.bob}}}]\n"
        config = self.folder / "tuttilab.yaml"
        config.write_text(text)
        self._serve("control", config, {"JUPYTERHUB_API_TOKEN": SERVICE_TOKEN})
        eventually(lambda: self._answers(f"{self.control_url}/readyz"), 150)

    def traits(self) -> dict[str, Any]:
        command = [str(self.accounts.python), "-c", SERVER, sysconfig.get_path("purelib")]
        return {"run_as_owner": True, "accounts": {"ann": self.accounts.ann, "bob": self.accounts.bob}, "cmd": command}

    def job(self, token: str, script: str, **more: object) -> str:
        body = {"name": "one", "command": ["sh", "-c", script], "pods": [{"cpus": 1, "memory": "64Mi"}], **more}
        sent = self.control("POST", "/jobs", token, body)
        assert sent.status_code == 201, sent.text
        return str(sent.json()["id"])

    def phase(self, job: str) -> str:
        return str(self.control("GET", f"/jobs/{job}", SERVICE_TOKEN).json()["phase"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres, accounts: Accounts) -> Iterator[OfOwners]:
    OfOwners.accounts, OfOwners.database = accounts, postgres_server.new_database()
    OfOwners.url_of_database = postgres_server.url(OfOwners.database)
    with open_folder() as OfOwners.pods:
        with made_hub(tmp_path_factory.mktemp("hub"), kind=OfOwners) as site:
            assert isinstance(site, OfOwners)
            yield site
        postgres_server.drop(OfOwners.database)


OUT = {"name": "out", "path": "out"}


def uid_of(site: OfOwners, name: str) -> int:
    return site.accounts.uid(getattr(site.accounts, name))


@pytest.mark.feature("N10", "O08")
def test_jobs_of_a_hubs_users_run_as_their_accounts_and_outlive_the_control_plane(
    site: OfOwners, postgres_server: Postgres, ann: Browser, bob: Browser
) -> None:
    tokens = {"ann": ann.token(), "bob": bob.token()}
    jobs = {name: site.job(token, "id -un; id -u; exec sleep 300") for name, token in tokens.items()}
    for name, job in jobs.items():
        account = getattr(site.accounts, name)
        said = [account, str(uid_of(site, name))]
        eventually(lambda job=job, name=name: log_of(site, job, tokens[name]))  # type: ignore[misc]
        assert log_of(site, job, tokens[name]) == said
    assert site.control("GET", f"/jobs/{jobs['ann']}/logs", tokens["bob"]).status_code in (403, 404)
    assert postgres_server.ask(site.database, "SELECT count(*) FROM jobs") >= 2

    site.kill("control")
    site.start_control()

    for name, job in jobs.items():
        eventually(lambda job=job: site.phase(job) == "Running")  # type: ignore[misc]
        assert site.control("POST", f"/jobs/{job}/cancel", tokens[name]).is_success
        eventually(lambda job=job: site.phase(job) == "Cancelled", 40)  # type: ignore[misc]
    assert [pid for name in ("ann", "bob") for pid in processes_of(uid_of(site, name))] == []


def log_of(site: OfOwners, job: str, token: str) -> list[str]:
    return [str(line) for line in site.control("GET", f"/jobs/{job}/logs", token).json()["lines"]]


@pytest.mark.feature("J16")
def test_a_member_of_its_group_runs_a_job_as_a_proxy_user_and_nobody_else(site: OfOwners, ann: Browser) -> None:
    eva, theirs = site.browser("eva").token(), ann.token()
    # eva has no account on the machine: her job is the proxy user's in every part.
    job = site.job(eva, "id -u; echo $USER; touch $HOME/by-etl; echo kept >$RESULT_DIR/out", run_as="etl", outputs=[OUT])
    eventually(lambda: site.phase(job) == "Succeeded", 150)

    view = site.control("GET", f"/jobs/{job}", eva).json()
    assert (view["owner"], view["group"], view["run_as"]) == ("eva", "research", "etl")
    assert log_of(site, job, eva) == [str(uid_of(site, "bob")), site.accounts.bob]
    assert (site.accounts.homes / site.accounts.bob / "by-etl").stat().st_uid == uid_of(site, "bob")
    output = view["attempts"][-1]["pods"][0]["outputs"]["out"]
    assert site.control("GET", f"/artifacts/{output}", eva).text == "kept\n"
    assert "to run as etl" in site.control("GET", "/audit?limit=200", eva).text

    body = {"command": ["id"], "run_as": "etl"}
    refused = site.control("POST", "/jobs", theirs, body)
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "run_as: 'etl' is no proxy user of yours; expected none, so leave it out. The site's admin lists them by group, under "
        "proxy_users of tuttilab.yaml.",
    )


@pytest.mark.feature("N10")
def test_a_user_without_an_account_is_told_so_by_the_job_and_by_the_hub(site: OfOwners, amy: Browser) -> None:
    job = site.job(amy.token(), "id")
    eventually(lambda: site.phase(job) == "Failed")

    told = site.control("GET", f"/jobs/{job}", SERVICE_TOKEN).text
    assert "user amy has no account 'amy' on this machine, and jobs run here as their owners" in told
    refused = amy.spawn(profile="cpu")
    assert refused.status_code == 403
    assert "user amy has no account 'amy' on this machine, and servers run here as their owners" in refused.text
    assert site.jobs(owner="amy") == []


@pytest.mark.feature("N10")
def test_servers_run_as_their_users_in_their_homes(site: OfOwners, ann: Browser) -> None:
    assert ann.spawn(profile="cpu").is_success
    assert ann.has_server(), site.log("hub")

    servers = [psutil.Process(pid) for pid in processes_of(uid_of(site, "ann"))]
    assert servers
    for server in servers:
        status = Path(f"/proc/{server.pid}/status").read_text()
        assert "\nNoNewPrivs:\t1\n" in status
        assert f"\nUid:\t{uid_of(site, 'ann')}\t{uid_of(site, 'ann')}\t{uid_of(site, 'ann')}\t" in status
    environ = servers[0].environ()
    assert (environ["HOME"], environ["USER"]) == (str(site.accounts.homes / site.accounts.ann), site.accounts.ann)
    assert servers[0].cwd() == environ["HOME"]
    assert SERVICE_TOKEN not in environ.values()

    ann.stop()
    eventually(lambda: site.jobs(owner="ann") == [])
