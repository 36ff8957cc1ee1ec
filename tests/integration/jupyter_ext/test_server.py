"""The server extension in a real Jupyter server before a real control plane, asked as pages and as strangers ask."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import psutil
import pytest

from tests.lab import TOKEN, Lab, answers, made_lab
from tests.ports import free_port
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(700)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with made_lab(tmp_path_factory.mktemp("server")) as lab:
        yield lab


@pytest.fixture
def page(lab: Lab) -> Iterator[httpx.Client]:
    """Signed in by cookie, as a browser is, with the token against foreign pages."""
    with httpx.Client(base_url=lab.url, trust_env=False, timeout=150) as client:
        client.get("/lab", params={"token": TOKEN}, follow_redirects=True)
        client.headers["X-XSRFToken"] = client.cookies["_xsrf"]
        yield client


def test_answers_are_the_control_planes_own(page: httpx.Client, lab: Lab) -> None:
    job = lab.until(lab.submit("own", "sh", "-c", "echo hello"), "Succeeded")

    assert page.get(f"/tuttilab/jobs/{job.id}").json()["name"] == "own"
    assert [found["name"] for found in page.get("/tuttilab/jobs?all=true&text=own").json()["jobs"]] == ["own"]
    assert page.get(f"/tuttilab/jobs/{job.id}/logs?rank=0&start=0&limit=10").json()["lines"] == ["hello"]
    assert {queue["name"] for queue in page.get("/tuttilab/quota").json()} >= {"root", "research", "quant"}
    assert page.get(f"/tuttilab/jobs/{job.id}/explain").json() is None
    for path in ("clusters", "nodes", "queues", "dags", "runs", "me"):
        assert page.get(f"/tuttilab/{path}").status_code == 200
    assert page.get("/tuttilab/status").json()["can_start"] is True


def test_refusals_are_told_in_one_sentence(page: httpx.Client) -> None:
    answer = page.get("/tuttilab/jobs/nosuchjob")

    assert (answer.status_code, answer.json()["type"]) == (404, "not-found")
    assert "nosuchjob" in answer.json()["message"]
    assert page.get("/tuttilab/jobs?statee=Running").json()["type"] == "bad-input"
    assert page.get("/tuttilab/jobs?state=Runing").status_code == 400


@pytest.mark.parametrize("path", ["/tuttilab/status", "/tuttilab/jobs", "/tuttilab/quota", "/tuttilab/runs"])
def test_nobody_else_reads(lab: Lab, path: str) -> None:
    for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": "Bearer wrong"}):
        assert httpx.get(lab.url + path, headers=headers, trust_env=False, timeout=150).status_code == 403


def test_writing_takes_signing_in_the_pages_token_and_json(page: httpx.Client, lab: Lab) -> None:
    job = lab.until(lab.submit("target", "sleep", "1000"), "Running")
    url = f"/tuttilab/jobs/{job.id}/cancel"
    json_type = {"Content-Type": "application/json"}

    assert httpx.post(lab.url + url, json={}, trust_env=False, timeout=150).status_code == 403
    assert page.post(url, json={}, headers={"X-XSRFToken": ""}).status_code == 403
    assert page.post(url, json={}, headers={"X-XSRFToken": "wrong"}).status_code == 403
    assert page.post(url, data={"_xsrf": page.cookies["_xsrf"]}).status_code == 415
    assert page.post(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert page.post(url, json={"name": "mine", "command": ["true"]}).status_code == 400
    assert page.post(url, json={}, headers={"Origin": "http://evil.invalid"}).status_code in (403, 404)
    assert page.get(url).status_code == 405
    assert lab.client.job(job.id).phase == "Running"

    answer = page.post(url, content=b"{}", headers=json_type)
    assert (answer.status_code, answer.json()["id"]) == (200, job.id)
    lab.until(job, "Cancelled")


def test_a_page_deletes_an_ended_job_with_signing_in_and_the_pages_token(page: httpx.Client, lab: Lab) -> None:
    job = lab.until(lab.submit("old", "true"), "Succeeded")
    live = lab.until(lab.submit("live", "sleep", "1000"), "Running")
    url, json_type = f"/tuttilab/jobs/{job.id}", {"Content-Type": "application/json"}

    assert httpx.delete(lab.url + url, headers=json_type, trust_env=False, timeout=150).status_code == 403
    assert page.delete(url, headers=json_type | {"X-XSRFToken": "wrong"}).status_code == 403
    assert page.delete(url).status_code == 415
    assert page.delete(f"/tuttilab/jobs/{live.id}", headers=json_type).status_code == 409
    assert lab.client.job(job.id).phase == "Succeeded"

    answer = page.delete(url, headers=json_type)
    assert (answer.status_code, answer.json()) == (200, {})
    assert page.get(url).status_code == 404
    lab.client.cancel(live.id)


def test_a_page_starts_a_job_over_once_a_click(page: httpx.Client, lab: Lab) -> None:
    job = lab.until(lab.submit("again", "sh", "-c", "exit 3"), "Failed")

    clicks = [page.post(f"/tuttilab/jobs/{job.id}/retry", json={}).json() for _ in range(2)]

    assert [click["retry_of"] for click in clicks] == [job.id, job.id]
    assert len({click["id"] for click in clicks}) == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/tuttilab/jobs"),
        ("POST", "/tuttilab/shutdown"),
        ("GET", "/tuttilab/jobs/%2e%2e/me"),
        ("GET", "/tuttilab/jobs/abcd%2f..%2fme"),
        ("GET", "/tuttilab/artifacts/abcd"),
        ("GET", "/tuttilab/changes"),
        ("GET", "/tuttilab/spark/sessions"),
        ("DELETE", "/tuttilab/jobs"),
        ("DELETE", "/tuttilab/runs/abcdef"),
    ],
)
def test_what_is_not_on_the_list_is_not_there(page: httpx.Client, method: str, path: str) -> None:
    answer = page.request(method, path, json={} if method == "POST" else None)

    assert answer.status_code in (404, 405)


def test_control_planes_token_is_in_no_answer(page: httpx.Client, lab: Lab) -> None:
    token = lab.machine.runtime().token
    texts = [page.get(f"/tuttilab/{path}").text for path in ("status", "jobs?all=true", "quota", "clusters", "nodes", "me", "runs")]
    lab_page = page.get("/lab").text

    assert [text for text in (*texts, lab_page) if token in text] == []
    assert lab.machine.runtime().url not in lab_page


def test_answers_are_kept_by_no_cache_and_taken_for_nothing_else(page: httpx.Client) -> None:
    headers = page.get("/tuttilab/jobs").headers

    assert [headers[name] for name in ("Cache-Control", "X-Content-Type-Options")] == ["no-store", "nosniff"]
    assert headers["Content-Type"].startswith("application/json")


def test_one_long_poll_serves_all_pages(page: httpx.Client, lab: Lab) -> None:
    for _ in range(5):
        page.get("/tuttilab/status")
    eventually(lambda: page.get("/tuttilab/status").json()["status"] == "up")
    before = page.get("/tuttilab/status").json()["seq"]
    job = lab.submit("news", "true")
    lab.until(job, "Succeeded")

    assert eventually(lambda: page.get("/tuttilab/status").json()["seq"] > before)
    port = int(re.sub(r".*:", "", lab.machine.runtime().url))
    assert lab.server is not None
    server = next(one for one in lab.machine.processes() if one.pid == lab.server.pid)
    to_it = (one for one in server.net_connections() if one.raddr and one.raddr.port == port)
    open_to_it = [one for one in to_it if one.status == psutil.CONN_ESTABLISHED]
    assert 1 <= len(open_to_it) <= 4


def test_wrong_token_of_the_server_is_not_the_pages_fault(lab: Lab) -> None:
    runtime = lab.machine.runtime()
    with made_server(lab, {"TUTTILAB_URL": runtime.url, "TUTTILAB_TOKEN": "revoked"}) as url:
        answer = httpx.get(f"{url}/tuttilab/jobs", headers={"Authorization": f"token {TOKEN}"}, trust_env=False, timeout=150)

    assert (answer.status_code, answer.json()["type"]) == (502, "unauthenticated")
    assert "revoked" not in json.dumps(answer.json())


def test_server_starts_a_control_plane_only_where_it_may(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.mktemp("none") / "state"
    options = ["--TuttiLab.start_control_plane=False"]
    with made_server(lab, {"TUTTILAB_STATE_DIR": str(state)}, options) as url:
        answer = httpx.get(f"{url}/tuttilab/jobs", headers={"Authorization": f"token {TOKEN}"}, trust_env=False, timeout=150)

    assert (answer.status_code, answer.json()["type"]) == (503, "unavailable")
    assert not state.exists()


@contextmanager
def made_server(lab: Lab, environ: dict[str, str], options: Sequence[str] = ()) -> Iterator[str]:
    """One more Jupyter server, with an environment of its own, straight from `jupyter server`."""
    port = free_port()
    command = [sys.executable, "-m", "jupyter_server", f"--ServerApp.port={port}", f"--IdentityProvider.token={TOKEN}", *options]
    if os.geteuid() == 0:
        command.append("--allow-root")
    server = subprocess.Popen(
        command,
        cwd=lab.machine.home,
        env={**lab.machine.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/api/status"))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=150)
