"""Almost valid requests to the server extension in Lab, with and without its cookie, are answered in its own words."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx
import pytest

from tests.attack.mutations import TEXTS, changed, hostile, rounds
from tests.doses import attack_dose
from tests.lab import TOKEN, Lab, made_lab

ROUNDS = attack_dose("LAB", suite=80, attack=4000)
PATHS = (
    "status",
    "jobs",
    "jobs/{}",
    "jobs/{}/logs",
    "jobs/{}/cancel",
    "jobs/{}/retry",
    "jobs/{}/explain",
    "jobs/{}/events",
    "quota",
    "queues",
    "nodes",
    "runs/{}",
    "runs/{}/cancel",
    "dags/{}",
    "me",
    "{}",
    "{}/{}",
)
QUERIES = ("state", "text", "all", "limit", "cursor", "rank", "start", "attempt", "since", "x")
BODY = {"name": "mine", "command": ["true"], "keys": ["a"], "labels": {"a": "b"}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with made_lab(tmp_path_factory.mktemp("attacked-lab")) as lab:
        yield lab


@pytest.fixture
def page(lab: Lab) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=lab.url, trust_env=False, timeout=60) as client:
        client.get("/lab", params={"token": TOKEN}, follow_redirects=True)
        client.headers["X-XSRFToken"] = client.cookies["_xsrf"]
        yield client


def asked(page: httpx.Client, chance: random.Random, job_id: str) -> httpx.Response:
    path = chance.choice(PATHS)
    while "{}" in path:
        part = job_id if chance.random() < 0.5 else chance.choice(TEXTS)
        path = path.replace("{}", quote(part if part not in ("", ".", "..") else "x", safe=""), 1)
    query = {chance.choice(QUERIES): str(hostile(chance)) for _ in range(chance.randrange(3))}
    method = chance.choice(("GET", "GET", "POST", "PUT", "PATCH", "DELETE"))
    body = None if method == "GET" else json.dumps(changed(BODY, chance)).encode()
    kind = chance.choice(("application/json", "application/json", "text/plain", "application/x-www-form-urlencoded"))
    return page.request(method, f"/tuttilab/{path}", params=query, content=body, headers={"Content-Type": kind} if body else {})


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + ROUNDS)
def test_no_almost_valid_request_of_a_page_is_an_error_of_ours(lab: Lab, page: httpx.Client, tell: Callable[[str], None]) -> None:
    job = lab.until(lab.submit("honest", "true"), "Succeeded")
    log = lab.machine.home / "lab.log"
    before = log.stat().st_size
    statuses: Counter[int] = Counter()
    for number, chance in enumerate(rounds(5, ROUNDS)):
        answer = asked(page, chance, job.id)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, f"round {number}: {answer.request.method} {answer.request.url}: {answer.text[:500]}"
        assert "evil.invalid" not in answer.headers.get("location", ""), f"round {number}"
    assert statuses[200] > 0
    assert statuses[404] > 0
    assert "Traceback" not in log.read_text(errors="replace")[before:]
    assert lab.client.job(job.id).phase == "Succeeded"
    tell(f"{ROUNDS} almost valid requests to Lab's server, answers {dict(sorted(statuses.items()))}")


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + ROUNDS)
def test_whoever_is_not_signed_in_learns_nothing(lab: Lab) -> None:
    job = lab.until(lab.submit("secret-name", "true"), "Succeeded")
    with httpx.Client(base_url=lab.url, trust_env=False, timeout=60) as stranger:
        for number, chance in enumerate(rounds(6, ROUNDS // 2)):
            answer = asked(stranger, chance, job.id)
            assert answer.status_code in (302, 400, 403, 404, 405), f"round {number}: {answer.request.url}: {answer.status_code}"
            assert "secret-name" not in answer.text, f"round {number}"
