"""Almost valid requests on every route: each is answered in its own words, and the control plane goes on answering."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.attack.mutations import TEXTS, Maker, changed, changed_bytes, hostile, rounds
from tests.doses import attack_dose
from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

V = "/api/v1"
ROUNDS = attack_dose("API", suite=6, attack=200)
"""For each route."""
ANSWER_S = 60.0
LEFT_OUT = {("post", f"{V}/shutdown")}
"""It would end the service that the others are tried on."""
METHODS = ("get", "post", "put", "patch", "delete")
JSON = "application/json"


@pytest.fixture
def web(attacked: UserMachine) -> Iterator[httpx.Client]:
    runtime = attacked.runtime()
    headers = {"Authorization": f"Bearer {runtime.token}"}
    with httpx.Client(base_url=runtime.url, headers=headers, trust_env=False, timeout=ANSWER_S) as web:
        yield web


def routes_of(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    found = [
        (method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS and (method, path) not in LEFT_OUT
    ]
    return sorted(found, key=lambda each: each[:2])


class Asker:
    def __init__(self, web: httpx.Client, document: dict[str, Any], ids: dict[str, list[str]]) -> None:
        self._web = web
        self._document = document
        self._ids = ids

    def ask(self, method: str, path: str, operation: dict[str, Any], chance: random.Random) -> httpx.Response:
        maker = Maker(self._document, chance)
        query: dict[str, str] = {}
        headers: dict[str, str] = {}
        for parameter in operation.get("parameters", ()):
            where, name = parameter["in"], parameter["name"]
            if where == "path":
                path = path.replace("{" + name + "}", quote(self._id(name, chance), safe=""))
            elif chance.random() < 0.6:
                value = hostile(chance) if chance.random() < 0.5 else maker.instance(parameter.get("schema", {}))
                text = value if isinstance(value, str) else json.dumps(value)
                if where == "query":
                    query[name] = text
                elif text.isascii() and text.isprintable() and text.strip() == text:
                    headers[name] = text
        if "wait" in query:
            query["wait"] = chance.choice(("0", "0.01", "-1", "nan", "inf", "1e9", ""))
        if chance.random() < 0.1:
            query[chance.choice(TEXTS) or "x"] = chance.choice(TEXTS)
        content = self._content(operation, maker, chance)
        if content is not None and "content-type" not in headers:
            headers["content-type"] = (
                JSON if chance.random() < 0.9 else chance.choice(("text/plain", "application/octet-stream", "x"))
            )
        return self._web.request(method, path, params=query, headers=headers, content=content)

    def _id(self, name: str, chance: random.Random) -> str:
        known = self._ids.get(name, [])
        if known and chance.random() < 0.6:
            return chance.choice(known)
        text = chance.choice(TEXTS)
        return text if text not in ("", ".", "..") else "x"

    def _content(self, operation: dict[str, Any], maker: Maker, chance: random.Random) -> bytes | None:
        kinds = operation.get("requestBody", {}).get("content", {})
        if not kinds:
            return b"{}" if chance.random() < 0.1 else None
        if JSON not in kinds:
            return chance.randbytes(chance.choice((0, 1, 1000)))
        body = maker.instance(kinds[JSON]["schema"])
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            body = changed(body, chance)
        content = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        return changed_bytes(content, chance) if chance.random() < 0.2 else content


def honest(attacked: UserMachine) -> dict[str, list[str]]:
    """One of each thing that an address can name."""
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        job = client.submit(JobRequest(name="honest", pods=(PodRequest(cpus="100m", memory="64Mi"),), command=("echo", "hello")))
        assert client.wait(job.id, timeout_s=150).phase == "Succeeded"
        return {"job_id": [job.id, job.id[:6], "honest", "last"], "artifact_id": [client.put_artifact(b"x")], "name": ["honest"]}


def cancel_all(web: httpx.Client) -> None:
    for job in web.get(f"{V}/jobs", params={"limit": 200}).json()["jobs"]:
        web.post(f"{V}/jobs/{job['id']}/cancel")


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + 60 * ROUNDS)
def test_no_almost_valid_request_is_an_error_of_ours(attacked: UserMachine, web: httpx.Client, tell: Callable[[str], None]) -> None:
    document: dict[str, Any] = web.get(f"{V}/openapi.json").json()
    asker = Asker(web, document, honest(attacked))
    log = attacked.state / "control.log"
    before = log.stat().st_size
    statuses: Counter[int] = Counter()
    bad: list[str] = []
    routes = routes_of(document)

    for number, (method, path, operation) in enumerate(routes):
        for turn, chance in enumerate(rounds(number, ROUNDS)):
            try:
                answer = asker.ask(method, path, operation, chance)
            except httpx.TransportError as error:
                bad.append(f"{method} {path}, round {number}.{turn}: no answer, {error}")
                continue
            statuses[answer.status_code] += 1
            if answer.status_code >= 500:
                bad.append(f"{method} {path}, round {number}.{turn}: {answer.status_code} {answer.text[:300]}")
        assert web.get(f"{V}/jobs").status_code == 200
        cancel_all(web)

    added = log.read_text(errors="replace")[before:]
    assert bad == []
    assert "Traceback" not in added, added[added.index("Traceback") - 500 :][:3000]
    assert statuses[200] > 0
    assert statuses[400] > 0
    eventually(lambda: honest(attacked), 150)
    tell(f"{statuses.total()} almost valid requests on {len(routes)} routes, answers {dict(sorted(statuses.items()))}")
